//! Interrupts put off while workers poll: two settings of each interface, put back as they were.
//!
//! A queue whose NAPI instance is polled stays without interrupts for as many rounds of `gro_flush_timeout` as
//! `napi_defer_hard_irqs` says, anew with every poll. So the timer is the watchdog: the kernel takes the queue of a
//! worker that is stopped or starved back within that time (`Documentation/networking/napi.rst`, "IRQ mitigation";
//! `busy_poll_stop`, `napi_watchdog` and `napi_complete_done`, net/core/dev.c).

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Link;
use crate::topology::interface::sysfs_directory;

/// Files below `/sys/class/net/IF` (`Documentation/ABI/testing/sysfs-class-net`) and the least that does: two rounds
/// of 200 us, in nanoseconds.
const SETTINGS: [(&str, u64); 2] = [("napi_defer_hard_irqs", 2), ("gro_flush_timeout", 200_000)];

/// Interfaces whose interrupts are put off until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Deferral {
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    made: Vec<Change>,
    is_undone: AtomicBool,
}

/// One file and what was in it.
#[derive(Debug)]
struct Change {
    path: PathBuf,
    before: u64,
    ours: u64,
}

impl Deferral {
    /// Puts off the interrupts of `links`, where nobody has put them off further already. Where that is not possible,
    /// one warning says so: sockets are polled all the same, between interrupts.
    pub(super) fn apply<'a>(links: impl IntoIterator<Item = &'a Link>) -> Self {
        Self::of(links.into_iter().map(|link| (link.name.as_str(), directory(link))))
    }

    fn of<'a>(directories: impl Iterator<Item = (&'a str, io::Result<PathBuf>)>) -> Self {
        let (mut made, mut refused) = (Vec::new(), Vec::new());
        for (name, directory) in directories {
            match directory.and_then(|directory| defer(&directory)) {
                Ok(changes) => made.extend(changes),
                Err(error) => refused.push(format!("{name}: {error}")),
            }
        }
        if !refused.is_empty() {
            let settings = SETTINGS.map(|(name, value)| format!("{name} to {value}")).join(" and ");
            tracing::warn!(
                "interrupts go on while workers poll; set {settings} in /sys/class/net/IF as root ({})",
                refused.join("; ")
            );
        }
        Self { changes: Arc::new(Changes { made, is_undone: AtomicBool::new(false) }) }
    }

    /// Undoes it before a panic ends the process, too. To be called when the hook that does so is in place.
    pub(super) fn undo_on_panic(&self) {
        if self.changes.made.is_empty() {
            return;
        }
        let changes = Arc::clone(&self.changes);
        let end = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            changes.undo();
            end(panic);
        }));
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        self.changes.undo();
    }
}

impl Changes {
    fn undo(&self) {
        if !self.is_undone.swap(true, Ordering::AcqRel) {
            self.made.iter().for_each(Change::undo);
        }
    }
}

impl Change {
    /// Raises the setting to `ours`; `None` when it is as high already.
    fn make(path: PathBuf, ours: u64) -> io::Result<Option<Self>> {
        let outcome = read(&path).and_then(|before| {
            if before >= ours {
                return Ok(None);
            }
            write(&path, ours)?;
            Ok(Some(before))
        });
        match outcome {
            Ok(before) => Ok(before.map(|before| Self { path, before, ours })),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    /// Puts back what was there, unless somebody has set something else since.
    fn undo(&self) {
        let outcome = match read(&self.path) {
            Ok(present) if present == self.ours => write(&self.path, self.before),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        // The interface may be gone, and its settings with it.
        if let Err(error) = outcome.or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!("cannot set {} back to {}: {error}", self.path.display(), self.before);
        }
    }
}

/// Both settings of an interface, or neither.
fn defer(directory: &Path) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (name, value) in SETTINGS {
        match Change::make(directory.join(name), value) {
            Ok(change) => changes.extend(change),
            Err(error) => {
                changes.iter().for_each(Change::undo);
                return Err(error);
            }
        }
    }
    Ok(changes)
}

/// The directory of the interface in sysfs. `/sys` may show another network namespace, with an interface of the same
/// name and number, but hardly of the same address: that one's interrupts are none of ours.
fn directory(link: &Link) -> io::Result<PathBuf> {
    let address = link.mac.map(|byte| format!("{byte:02x}")).join(":");
    sysfs_directory(&link.name, link.index)
        .filter(|directory| {
            fs::read_to_string(directory.join("address")).is_ok_and(|text| text.trim() == address)
        })
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "not in /sys of this network namespace"))
}

fn read(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{text:?} is no number")))
}

fn write(path: &Path, value: u64) -> io::Result<()> {
    // Never creates: where the kernel has no such setting there is nothing to set.
    let mut file = fs::File::options().write(true).truncate(true).open(path)?;
    file.write_all(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// A directory with settings, as sysfs has it for an interface.
    struct Sysfs(PathBuf);

    impl Sysfs {
        fn new(test: &str, settings: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("wgx-deferral-{}-{test}", std::process::id()));
            fs::create_dir(&path).expect("create");
            for (name, value) in settings {
                fs::write(path.join(name), value).expect("write");
            }
            Self(path)
        }

        fn apply(&self) -> Deferral {
            Deferral::of([("eth0", Ok(self.0.clone()))].into_iter())
        }

        fn values(&self) -> Vec<String> {
            let value = |(name, _): &(&str, u64)| fs::read_to_string(self.0.join(name)).unwrap_or_default();
            SETTINGS.iter().map(|setting| value(setting).trim().to_owned()).collect()
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove");
        }
    }

    #[test]
    fn settings_are_raised_and_put_back() {
        let sysfs = Sysfs::new("raised", &[("napi_defer_hard_irqs", "1\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = sysfs.apply();
        assert_eq!(sysfs.values(), ["2", "200000"]);
        drop(deferral);
        assert_eq!(sysfs.values(), ["1", "0"]);
    }

    #[test]
    fn what_puts_interrupts_off_further_is_left_alone() {
        let sysfs = Sysfs::new("further", &[("napi_defer_hard_irqs", "100\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = sysfs.apply();
        assert_eq!(sysfs.values(), ["100", "200000"]);
        drop(deferral);
        assert_eq!(sysfs.values(), ["100", "0"]);
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let sysfs = Sysfs::new("meanwhile", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "0\n")]);
        let deferral = sysfs.apply();
        fs::write(sysfs.0.join("gro_flush_timeout"), "20000\n").expect("write");
        drop(deferral);
        assert_eq!(sysfs.values(), ["0", "20000"]);
    }

    #[test]
    fn an_interface_with_one_setting_only_is_left_as_it_was() {
        let sysfs = Sysfs::new("half", &[("napi_defer_hard_irqs", "0\n")]);
        let _deferral = sysfs.apply();
        assert_eq!(sysfs.values(), ["0", ""]);
        let sysfs = Sysfs::new("text", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "soon\n")]);
        let _deferral = sysfs.apply();
        assert_eq!(sysfs.values(), ["0", "soon"]);
    }

    #[test]
    fn one_interface_that_is_not_to_be_found_does_not_keep_the_others() {
        let sysfs = Sysfs::new("others", &[("napi_defer_hard_irqs", "0\n"), ("gro_flush_timeout", "0\n")]);
        let missing = Err(io::Error::from(ErrorKind::NotFound));
        let deferral = Deferral::of([("eth0", missing), ("eth1", Ok(sysfs.0.clone()))].into_iter());
        assert_eq!(sysfs.values(), ["2", "200000"]);
        drop(deferral);
        assert_eq!(sysfs.values(), ["0", "0"]);
    }

    /// Names the directory to the process that panics.
    const PANICS_OVER: &str = "WGX_TEST_DEFERRAL";

    #[test]
    fn a_panic_puts_settings_back_before_it_ends_the_process() {
        if let Some(path) = std::env::var_os(PANICS_OVER) {
            crate::runtime::protect::protect_process().expect("protected");
            let deferral = Deferral::of([("eth0", Ok(path.into()))].into_iter());
            deferral.undo_on_panic();
            let worker = std::thread::spawn(|| panic!("as a worker's thread might"));
            let _ = worker.join();
            return;
        }
        let sysfs = Sysfs::new("panic", &[("napi_defer_hard_irqs", "1\n"), ("gro_flush_timeout", "0\n")]);
        let name = "runtime::deferral::tests::a_panic_puts_settings_back_before_it_ends_the_process";
        let output = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(PANICS_OVER, &sysfs.0)
            .output()
            .expect("a process");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{told}");
        assert!(told.contains("as a worker's thread might"), "{told}");
        assert_eq!(sysfs.values(), ["1", "0"]);
    }

    #[test]
    fn an_interface_of_another_address_is_another_namespaces() {
        let index = crate::topology::Interface::read("lo").expect("lo").index;
        let link = |mac| Link {
            name: "lo".into(),
            index,
            mac,
            mtu: 65536,
            queue_count: 1,
            uplink: true,
            downlink: false,
        };
        assert!(directory(&link([0; 6])).is_ok());
        assert!(directory(&link([2, 0, 0, 0, 0, 1])).is_err());
    }
}
