//! What this process made and has not removed yet, so that a signal can remove it too.
//!
//! Namespaces are called `wgx-PID-N-ROLE` and tunnel interfaces `wgxPID-N`, after the process that made them:
//! [`remove_stale`] knows by the name alone whether their maker is gone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::program;

/// Folders with a socket per tunnel interface. Paths are not part of a network namespace.
const SOCKET_FOLDERS: [&str; 2] = ["/run/wireguard", "/run/wgx"];

/// The name all namespaces and interfaces begin with.
const MARK: &str = "wgx";

/// Where the kernel's names of namespaces are mounted.
const NAMESPACES: &str = "/run/netns";

/// Where laboratories keep logs and configuration files: root's alone, and gone with a reboot.
pub(crate) const FOLDERS: &str = "/run/wgx-lab";

#[derive(Default)]
struct Made {
    pids: BTreeSet<u32>,
    namespaces: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
}

static MADE: Mutex<Option<Made>> = Mutex::new(None);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The registry; whoever holds it keeps a signal's clean-up waiting, and the other way round.
pub(crate) struct Registry(MutexGuard<'static, Option<Made>>);

impl Registry {
    pub(crate) fn lock() -> Self {
        // What a panicking thread left here is still what has to be removed.
        Self(MADE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn made(&mut self) -> &mut Made {
        self.0.get_or_insert_default()
    }

    pub(crate) fn add_pid(&mut self, pid: u32) {
        self.made().pids.insert(pid);
    }

    pub(crate) fn forget_pid(&mut self, pid: u32) {
        self.made().pids.remove(&pid);
    }

    pub(crate) fn add_namespace(&mut self, name: &str) {
        self.made().namespaces.insert(name.to_owned());
    }

    pub(crate) fn forget_namespace(&mut self, name: &str) {
        self.made().namespaces.remove(name);
    }

    pub(crate) fn add_interface(&mut self, name: &str) {
        self.made().interfaces.insert(name.to_owned());
    }

    pub(crate) fn forget_interface(&mut self, name: &str) {
        self.made().interfaces.remove(name);
    }

    pub(crate) fn add_folder(&mut self, path: &Path) {
        self.made().folders.insert(path.to_owned());
    }

    pub(crate) fn forget_folder(&mut self, path: &Path) {
        self.made().folders.remove(path);
    }

    fn remove_everything(&mut self) {
        let made = std::mem::take(self.made());
        for pid in &made.pids {
            signal(*pid, Signal::TERM);
        }
        // The programs get a moment to undo what they did; what they leave goes with the namespaces.
        for _ in 0..50 {
            if made.pids.iter().all(|pid| is_gone(*pid)) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        for pid in &made.pids {
            signal(*pid, Signal::KILL);
            // They are our children: not every container has an init that would collect them.
            let _ = waitpid(Pid::from_raw(pid.cast_signed()), WaitOptions::empty());
        }
        for name in &made.namespaces {
            delete_namespace(name);
        }
        for name in &made.interfaces {
            remove_sockets(name);
        }
        for folder in &made.folders {
            remove_folder(folder);
        }
    }
}

/// A number no other laboratory of this process has.
pub(crate) fn next_number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A name for a tunnel interface that is unique on this machine: UAPI sockets of all namespaces share a folder.
pub(crate) fn interface_name() -> String {
    let name = format!("{MARK}{}-{}", std::process::id(), next_number());
    debug_assert!(name.len() <= 15, "IFNAMSIZ");
    name
}

/// The beginning of the names of one laboratory's namespaces.
pub(crate) fn namespace_prefix() -> String {
    format!("{MARK}-{}-{}", std::process::id(), next_number())
}

/// Makes Ctrl-C, SIGTERM and SIGHUP remove everything before the process ends.
pub(crate) fn install_signal_handler() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    eprintln!("\ninterrupted: removing the laboratory");
                    // As shells have it for a process that a signal ended.
                    abandon(128 + signal);
                }
            });
        }
        Err(error) => eprintln!("Ctrl-C will not clean up: {error}"),
    });
}

/// Removes everything at once and ends the process: for a watchdog.
pub(crate) fn abandon(code: i32) -> ! {
    let mut registry = Registry::lock();
    registry.remove_everything();
    // The lock is never released: the rest of the process cannot make anything new until it ends.
    std::process::exit(code)
}

/// Removes what processes that no longer live have left.
pub fn remove_stale() {
    for name in names_in(NAMESPACES) {
        if owner_of_namespace(&name).is_some_and(is_gone) {
            delete_namespace(&name);
        }
    }
    for name in names_in(FOLDERS) {
        if owner_of_namespace(&name).is_some_and(is_gone) {
            remove_folder(&Path::new(FOLDERS).join(name));
        }
    }
    for folder in SOCKET_FOLDERS {
        for file in names_in(folder) {
            if let Some(interface) = file.strip_suffix(".sock")
                && owner_of_interface(interface).is_some_and(is_gone)
            {
                remove_sockets(interface);
            }
        }
    }
}

/// Removes the namespaces whose names begin with `prefix` and a dash, with all that runs in them, and the sockets
/// of `interfaces`. Returns how many namespaces there were.
pub fn remove_prefixed(prefix: &str, interfaces: &[&str]) -> Result<usize> {
    let ours = |name: &String| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
    let names: Vec<_> = names_in(NAMESPACES).into_iter().filter(ours).collect();
    for name in &names {
        delete_namespace(name);
    }
    for interface in interfaces {
        remove_sockets(interface);
    }
    remove_folder(&Path::new(FOLDERS).join(prefix));
    let left: Vec<_> = names_in(NAMESPACES).into_iter().filter(ours).collect();
    ensure!(left.is_empty(), "{} cannot be removed: are you root?", left.join(", "));
    Ok(names.len())
}

/// Ends the processes of a namespace and removes it; one that does not exist is fine.
pub(crate) fn delete_namespace(name: &str) {
    let path = Path::new(NAMESPACES).join(name);
    if !path.exists() {
        return;
    }
    if let Ok(output) = program::command("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() {
        for pid in
            String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok())
        {
            signal(pid, Signal::KILL);
        }
    }
    let mut delete: Command = program::command("ip");
    match delete.args(["netns", "del", name]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!("namespace {name} stays: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Err(error) => eprintln!("namespace {name} stays: ip: {error}"),
    }
}

/// Removes the sockets a killed tunnel program left in the file system.
pub(crate) fn remove_sockets(interface: &str) {
    for folder in SOCKET_FOLDERS {
        // Usually the program has removed it.
        let _ = fs::remove_file(Path::new(folder).join(interface).with_extension("sock"));
    }
}

/// Removes a laboratory's folder, and the folder of folders when it was the last.
pub(crate) fn remove_folder(folder: &Path) {
    // Nothing can be done about one that does not go.
    let _ = fs::remove_dir_all(folder);
    let _ = fs::remove_dir(FOLDERS);
}

/// Whether no process has this id, or only one that has ended.
pub(crate) fn is_gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which may itself contain parentheses.
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

/// Sends a signal; a process that is already gone is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

fn names_in(folder: &str) -> Vec<String> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default()
}

/// The process id in `wgx-PID-N-ROLE`.
fn owner_of_namespace(name: &str) -> Option<u32> {
    name.strip_prefix(MARK)?.strip_prefix('-')?.split_once('-')?.0.parse().ok()
}

/// The process id in `wgxPID-N`.
fn owner_of_interface(name: &str) -> Option<u32> {
    name.strip_prefix(MARK)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let pid = std::process::id();
        assert_eq!(owner_of_namespace(&format!("{}-client1", namespace_prefix())), Some(pid));
        assert_eq!(owner_of_interface(&interface_name()), Some(pid));
        assert_eq!(owner_of_namespace("wgx-demo-client1"), None);
        assert_eq!(owner_of_namespace("wg0"), None);
        assert_eq!(owner_of_interface("wg0"), None);
    }

    #[test]
    fn this_process_is_not_gone() {
        assert!(!is_gone(std::process::id()));
    }
}
