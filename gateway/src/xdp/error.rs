//! What can go wrong on the way into the kernel: what was tried, with which value, and what to do.

use std::{error::Error as StdError, io};

use aya::{
    EbpfError,
    programs::{ProgramError, xdp::XdpError},
};
use rustix::io::Errno;

const CAPABILITIES: &str = "run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW";

/// A failure to load, attach or feed the XDP program.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages show")]
pub enum Error {
    /// The kernel cannot tie a program to a process.
    #[error("this kernel is too old for the XDP program: AF_XDP takes Linux 6.4; use `--io udp`")]
    KernelTooOld,
    /// The embedded object is not the one this program was written for.
    #[error("the embedded XDP object has no `{missing}`: run `cargo xtask build-ebpf` and build again")]
    Foreign { missing: &'static str },
    /// The kernel did not take the object or the program.
    #[error("cannot load the XDP program: {cause}; {remedy}")]
    Load { cause: String, remedy: &'static str },
    /// No such interface any more.
    #[error("cannot attach to {interface}: the interface is gone; see `ip link`")]
    NoInterface { interface: String },
    /// Attached by us already.
    #[error("cannot attach to {interface} twice: name each interface once")]
    AlreadyAttached { interface: String },
    /// All slots are taken.
    #[error(
        "cannot attach to {interface}: {} interfaces are attached already, no more fit",
        gateway_ebpf::layout::MAX_INTERFACES
    )]
    TooManyInterfaces { interface: String },
    /// Another XDP program is there.
    #[error(
        "cannot attach to {interface}: it has an XDP program already (another wgx?); see `ip link show {interface}`, \
         then stop its owner or run `ip link set {interface} xdp off`"
    )]
    Busy { interface: String },
    /// No right to attach.
    #[error("cannot attach to {interface}: not permitted; {}", CAPABILITIES)]
    NotPermitted { interface: String },
    /// Neither mode works.
    #[error(
        "cannot attach to {interface} (MTU {mtu}): driver mode: {driver}; generic mode: {generic}; \
         lower the MTU (native XDP takes frames up to a page), switch off LRO (`ethtool -K {interface} lro off`), \
         or use `--io udp`"
    )]
    Attach { interface: String, mtu: u32, driver: String, generic: String },
    /// The driver does not take it, and nothing slower will do.
    #[error("cannot attach to {interface} in the driver: {cause}; lower the MTU or use another interface")]
    AttachDriver { interface: String, cause: String },
    /// The interface was never attached.
    #[error("interface {interface_index} has no XDP program of ours: attach it first")]
    NotAttached { interface_index: u32 },
    /// The queue has no place in the socket map.
    #[error(
        "{interface} queue {queue} cannot have a socket: only queues below {} can; reduce them with \
         `ethtool -L {interface} combined N`",
        gateway_ebpf::layout::MAX_QUEUES
    )]
    QueueOutOfRange { interface: String, queue: u32 },
    /// The kernel did not take the socket.
    #[error("cannot steer {interface} queue {queue} to its socket: {cause}; is it an AF_XDP socket?")]
    Socket { interface: String, queue: u32, cause: String },
    /// A map could not be read or changed.
    #[error("cannot use the XDP map {map}: {cause}{hint}")]
    Map { map: &'static str, cause: String, hint: &'static str },
}

impl Error {
    pub(super) fn map(map: &'static str, error: &(dyn StdError + 'static)) -> Self {
        let hint = match errno_in(error).map(Errno::from_raw_os_error) {
            // A full hash says the one, a full trie the other.
            Some(Errno::TOOBIG | Errno::NOSPC) => "; it is full: use fewer addresses or wider prefixes",
            _ => "",
        };
        Self::Map { map, cause: chain(error), hint }
    }

    pub(super) fn object(error: &EbpfError) -> Self {
        Self::Load { cause: chain(error), remedy: remedy(errno_in(error)) }
    }

    pub(super) fn program(error: &ProgramError) -> Self {
        if let ProgramError::LoadError { io_error, verifier_log } = error {
            let log = verifier_log.to_string();
            let Some(verdict) = verdict_in(&log) else {
                return Self::Load { cause: io_error.to_string(), remedy: remedy(io_error.raw_os_error()) };
            };
            tracing::debug!("verifier log:\n{log}");
            let remedy = if verdict.contains("prohibited for !root") {
                // Without CAP_PERFMON the verifier refuses most arithmetic with packet pointers.
                CAPABILITIES
            } else {
                "use `--io udp` and report this with the kernel version (RUST_LOG=debug shows the whole log)"
            };
            return Self::Load { cause: format!("the verifier refuses it: {verdict}"), remedy };
        }
        Self::Load { cause: chain(error), remedy: remedy(errno_in(error)) }
    }
}

/// The last line of a verifier log that says something about the program; the log has thousands.
fn verdict_in(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !STATISTICS.iter().any(|prefix| line.starts_with(prefix)))
}

/// The attach failures for which another mode is no remedy.
pub(super) fn hopeless(interface: &str, error: &ProgramError) -> Option<Error> {
    let interface = interface.to_owned();
    match Errno::from_raw_os_error(attach_errno(error)?) {
        // EEXIST: the other program is attached in the other mode.
        Errno::BUSY | Errno::EXIST => Some(Error::Busy { interface }),
        Errno::NODEV | Errno::NXIO => Some(Error::NoInterface { interface }),
        Errno::PERM | Errno::ACCESS => Some(Error::NotPermitted { interface }),
        _ => None,
    }
}

fn attach_errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        other => errno_in(other),
    }
}

/// The messages of an error and all its causes, each once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

fn errno_in(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io_error) = error.downcast_ref::<io::Error>() {
            return io_error.raw_os_error();
        }
        cause = error.source();
    }
    None
}

fn remedy(errno: Option<i32>) -> &'static str {
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => CAPABILITIES,
        Some(Errno::NOMEM) => "the machine is out of memory",
        Some(Errno::INVAL | Errno::NOSYS) => {
            "is this kernel older than 5.15, or built without BPF? use `--io udp`"
        }
        _ => "use `--io udp` and report this",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_last_line_before_the_statistics() {
        let log = "0: R1=ctx()\nmisaligned stack access off -12 size 8\nverification time 3 usec\nstack depth 232\n\
                   processed 9 insns (limit 1000000)\n\n";
        assert_eq!(verdict_in(log), Some("misaligned stack access off -12 size 8"));
        assert_eq!(verdict_in("processed 0 insns\n"), None);
    }

    #[test]
    fn a_chain_of_causes_says_everything_once() {
        let error = aya::maps::MapError::CreateError {
            name: "SOCKETS".into(),
            io_error: io::Error::from_raw_os_error(Errno::PERM.raw_os_error()),
        };
        let error = Error::object(&EbpfError::from(error)).to_string();
        assert_eq!(error.matches("Operation not permitted").count(), 1, "{error}");
        assert!(error.contains("SOCKETS") && error.ends_with(CAPABILITIES), "{error}");
    }
}
