//! What is measured, and how each is started in the gateway's place.

use std::{collections::BTreeMap, process::Command};

use ::tests::{Gateway, Io, Namespace, peer::Program, program};
use anyhow::{Context as _, Result};
use bench::report::{AF_XDP_FORWARD, Contender, Kind};

/// Everything of the gateway under test runs on this processor; the load generator has the other.
pub const GATEWAY_CPU: u32 = 0;
/// The load generator's processor.
pub const LOAD_CPU: u32 = 1;
/// A measurement comes before what else the machine does. The same for all.
const NICENESS: &str = "-20";

/// One of those that can stand between clients and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// `wgx` with one worker.
    Wgx(Io),
    /// Another implementation of WireGuard.
    Peer(Program),
    /// Plain forwarding on AF_XDP, without WireGuard.
    Forward,
    /// The kernel's IP forwarding, without WireGuard.
    Kernel,
}

impl Candidate {
    /// All, in the order they are measured in turn.
    pub const ALL: [Candidate; 6] = [
        Self::Wgx(Io::AfXdp),
        Self::Peer(Program::Boringtun),
        Self::Peer(Program::Gotatun),
        Self::Peer(Program::WireguardGo),
        Self::Forward,
        Self::Kernel,
    ];

    /// The one of a name that [`Candidate::contender`] gives.
    pub fn named(name: &str) -> Result<Self, String> {
        let all = || Self::ALL.into_iter().chain([Self::Wgx(Io::Udp)]);
        all().find(|candidate| candidate.contender().name == name).ok_or_else(|| {
            let names: Vec<_> = all().map(|candidate| candidate.contender().name).collect();
            format!("use some of {}", names.join(", "))
        })
    }

    /// As reports call it.
    pub fn contender(self) -> Contender {
        let (name, kind) = match self {
            Self::Wgx(Io::Udp) => ("wgx-udp", Kind::Ours),
            Self::Wgx(_) => ("wgx", Kind::Ours),
            Self::Peer(program) => (program.name(), Kind::Peer),
            Self::Forward => (AF_XDP_FORWARD, Kind::Ceiling),
            Self::Kernel => ("kernel-forward", Kind::Ceiling),
        };
        Contender { name: name.to_owned(), kind }
    }

    /// Whether it speaks WireGuard.
    pub fn has_tunnel(self) -> bool {
        matches!(self, Self::Wgx(_) | Self::Peer(_))
    }

    /// Why it cannot be measured here.
    pub fn obstacle(self) -> Option<String> {
        match self {
            Self::Peer(program) => program.path().err().map(|error| format!("{error:#}")),
            _ => None,
        }
    }

    /// What serves the gateway's tunnel interface, on these processors; `None` without a tunnel.
    pub fn command(self, gateway: &Gateway, cpus: &[u32]) -> Result<Option<Command>> {
        let command = match self {
            Self::Wgx(io) => gateway.run_command(io)?,
            Self::Peer(program) => {
                prepare(program, gateway)?;
                // On one processor more threads only take it from each other.
                let options: &[&str] = if program == Program::Boringtun { &["--threads", "1"] } else { &[] };
                program.command(&gateway.namespace, &gateway.interface, options)?
            }
            Self::Forward | Self::Kernel => return Ok(None),
        };
        Ok(Some(pinned(&command, cpus)))
    }
}

/// gotatun 0.10.2 reads the MTU of its interface at the start: it has to be there before.
fn prepare(program: Program, gateway: &Gateway) -> Result<()> {
    if program == Program::Gotatun {
        let interface = &gateway.interface;
        gateway.namespace.ip(&format!("tuntap add dev {interface} mode tun"))?;
        gateway.namespace.ip(&format!("link set {interface} mtu 1420 up"))?;
    }
    Ok(())
}

/// Where so many workers run: the first on the gateway's processor, the others on those behind the load generator's, or
/// where there is none left, beside the generator.
pub fn worker_cpus(workers: u32, cpu_count: u32) -> Vec<u32> {
    let more = (1..workers).map(|worker| LOAD_CPU + worker);
    let there = |cpu: u32| if cpu < cpu_count { cpu } else { LOAD_CPU };
    std::iter::once(GATEWAY_CPU).chain(more.map(there)).collect()
}

/// As `taskset` and `--cores` take them.
pub fn cpu_list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The same command, with all its threads on these processors.
pub fn pinned(command: &Command, cpus: &[u32]) -> Command {
    let mut outer = program::command("taskset");
    outer.args(["--cpu-list", &cpu_list(cpus), "nice", "-n", NICENESS]);
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Makes the kernel forward what arrives at these interfaces on the gateway's processor, not on the sender's.
///
/// Received packets of a veth pair are worked on where they were sent, which for the kernel's own forwarding would be
/// all of the work.
pub fn steer_receive(namespace: &Namespace, interfaces: &[&str]) -> Result<()> {
    for interface in interfaces {
        let mut shell = namespace.command("sh");
        let mask = 1 << GATEWAY_CPU;
        let line = format!("echo {mask:x} > /sys/class/net/{interface}/queues/rx-0/rps_cpus");
        program::output(shell.args(["-c", &line]), std::time::Duration::from_secs(5))
            .with_context(|| format!("{interface} cannot be steered to a processor"))?;
    }
    Ok(())
}

/// Versions of what is measured, by name.
pub fn versions(candidates: &[Candidate]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for candidate in candidates {
        let name = candidate.contender().name;
        match candidate {
            Candidate::Wgx(_) => {
                versions.insert("wgx".to_owned(), own_version());
            }
            Candidate::Peer(program) => {
                versions.insert(name, program.version().unwrap_or_else(|_| "unknown".to_owned()));
            }
            Candidate::Forward | Candidate::Kernel => {}
        }
    }
    versions
}

/// The version with the commit it was built from, where git tells.
fn own_version() -> String {
    let mut git = crate::command::command("git");
    let commit = crate::command::output(git.args(["describe", "--always", "--dirty"]));
    match commit {
        Some(commit) => format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.trim()),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_found_by_its_name() {
        for candidate in Candidate::ALL {
            assert_eq!(Candidate::named(&candidate.contender().name), Ok(candidate));
        }
        assert!(Candidate::named("openvpn").unwrap_err().contains("boringtun"));
    }

    #[test]
    fn workers_share_the_generators_processor_only_where_there_is_no_other() {
        assert_eq!(worker_cpus(1, 2), [0]);
        assert_eq!(worker_cpus(3, 4), [0, 2, 3]);
        assert_eq!(worker_cpus(2, 2), [0, 1]);
    }

    #[test]
    fn a_pinned_command_keeps_its_words_and_variables() {
        let mut command = Command::new("wireguard-go");
        command.args(["-f", "wg0"]).env("LOG_LEVEL", "error");
        let pinned = pinned(&command, &[3, 5]);
        let words: Vec<_> = pinned.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words, ["--cpu-list", "3,5", "nice", "-n", "-20", "wireguard-go", "-f", "wg0"]);
        assert!(
            pinned.get_envs().any(|(name, value)| name == "LOG_LEVEL" && value == Some("error".as_ref()))
        );
    }
}
