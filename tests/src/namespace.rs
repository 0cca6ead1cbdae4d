//! One network namespace: commands and code that run inside it.

use std::{fs, net::IpAddr, os::fd::AsFd, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    program::{self, Outcome},
    registry::{self, Registry},
};

/// Time for a command that only talks to the kernel.
const QUICK: Duration = Duration::from_secs(30);

/// A network namespace of the laboratory. Cloning clones the name, not the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    /// Whether what runs here dies with us, even when we are killed.
    bound_to_us: bool,
}

impl Namespace {
    /// Makes the namespace with its loopback interface up.
    pub(crate) fn create(name: &str, bound_to_us: bool) -> Result<Self> {
        let mut registry = Registry::lock();
        registry.add_namespace(name);
        program::output(program::command("ip").args(["netns", "add", name]), QUICK)
            .context("no network namespace: are you root?")?;
        drop(registry);
        let namespace = Self { name: name.to_owned(), bound_to_us };
        // Duplicate address detection would make IPv6 addresses unusable for the first two seconds.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Ends all that runs inside and removes the namespace.
    pub(crate) fn remove(&self) {
        registry::delete_namespace(&self.name);
        Registry::lock().forget_namespace(&self.name);
    }

    /// The name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = program::command("ip");
        command.args(["netns", "exec", &self.name]);
        if self.bound_to_us {
            // Should this process be killed, the kernel ends the command.
            command.args(["setpriv", "--pdeathsig", "KILL"]);
        }
        command.arg(program.as_ref());
        command
    }

    /// Runs `line`, split at blanks, inside; it has to succeed. Returns its standard output.
    pub fn run(&self, line: &str) -> Result<String> {
        program::output(&mut self.split(line), QUICK)
    }

    /// Runs `line`, split at blanks, inside, whatever comes of it.
    pub fn attempt(&self, line: &str, timeout: Duration) -> Result<Outcome> {
        program::run(&mut self.split(line), timeout)
    }

    /// Runs `ip LINE` on this namespace.
    pub fn ip(&self, line: &str) -> Result<String> {
        let mut command = program::command("ip");
        program::output(command.args(["-n", &self.name]).args(line.split_whitespace()), QUICK)
    }

    /// Writes a kernel setting, named by its path below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.enter(|| {
            fs::write(Path::new("/proc/sys").join(path), value)
                .with_context(|| format!("{path} cannot be set to {value}"))
        })?
    }

    /// Gives an interface an address and makes it usable at once.
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix_len: u8) -> Result<()> {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        self.ip(&format!("address add {address}/{prefix_len} dev {interface} {nodad}"))?;
        Ok(())
    }

    /// Runs code on a thread inside: sockets it opens belong to this namespace for good.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let file = fs::File::open(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                        .with_context(|| format!("namespace {} cannot be entered", self.name))?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("code in namespace {} panicked", self.name))?
        })
    }

    fn split(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}
