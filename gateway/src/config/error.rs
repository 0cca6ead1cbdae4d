//! Everything that can be wrong with a configuration. Each message is one line: what was tried, with which
//! value, and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::limits::{FRAME_COUNT_RANGE, MTU_RANGE, aead_names};
use crate::topology::InterfaceError;

/// Why a configuration cannot be carried out.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say what each variant and field is")]
pub enum ConfigError {
    #[error("{name:?} cannot name a tunnel: use 1 to 15 of a-z A-Z 0-9 _ = + . -")]
    BadName { name: String },

    #[error("cannot read configuration file {}: {source}", path.display())]
    FileUnreadable { path: PathBuf, source: io::Error },

    #[error("configuration file {} is longer than {limit} bytes: is it the right file?", path.display())]
    FileTooLong { path: PathBuf, limit: u64 },

    #[error("configuration file {}, line {line}: {problem}", path.display())]
    FileInvalid { path: PathBuf, line: usize, problem: String },

    #[error("cannot read peers file {}: {source}; name a file in the format of `wg setconf`", path.display())]
    PeersUnreadable { path: PathBuf, source: io::Error },

    #[error("peers file {} is no regular file: name a file in the format of `wg setconf`", path.display())]
    PeersNotAFile { path: PathBuf },

    #[error(
        "no uplink is given: add --uplink IF with the interface clients arrive on, or --io udp to use sockets"
    )]
    NoUplink,

    #[error("interface {interface:?} is listed twice in {option}: name each once")]
    InterfaceTwice { interface: String, option: &'static str },

    #[error("{option} has an empty interface name: write names separated by commas without spaces")]
    InterfaceNameEmpty { option: &'static str },

    #[error("{count} interfaces are given: at most {limit} can be served, leave some out")]
    TooManyInterfaces { count: usize, limit: u32 },

    #[error(
        "interface {interface:?} given as {option} does not exist in this network namespace: `ip link` lists those that do"
    )]
    NoSuchInterface { interface: String, option: &'static str },

    #[error("tunnel and {option} have the same name {interface:?}: give the tunnel a name of its own")]
    TunnelIsInterface { interface: String, option: &'static str },

    #[error(
        "an interface called {name:?} exists already: stop what made it (`ip -d link show {name}` tells) or choose another name"
    )]
    TunnelExists { name: String },

    #[error(
        "interface {interface:?} has an XDP program in {mode} mode already (another wgx?): stop what attached it, or `ip link set dev {interface} xdp off`"
    )]
    ForeignProgram { interface: String, mode: String },

    #[error("interface {interface:?} is down: `ip link set dev {interface} up`")]
    InterfaceDown { interface: String },

    #[error(
        "interface {interface:?} is the loopback device, on which AF_XDP does not work: name another, or use --io udp"
    )]
    InterfaceLoopback { interface: String },

    #[error("interface {interface:?} is no Ethernet interface: name another, or use --io udp")]
    InterfaceNotEthernet { interface: String },

    #[error(
        "interface {interface:?} has {count} receive queues, at most {limit} can be served: reduce them with `{command}`"
    )]
    TooManyQueues { interface: String, count: u32, limit: u32, command: String },

    #[error(
        "interface {interface:?} has {rx_count} receive but {tx_count} transmit queues, and every worker needs both: `{command}`"
    )]
    TooFewTransmitQueues { interface: String, rx_count: u32, tx_count: u32, command: String },

    #[error("interface {interface:?} has MTU {mtu}, and frames of {frame_len} bytes hold {limit}: {advice}")]
    InterfaceMtu { interface: String, mtu: u32, frame_len: u32, limit: u32, advice: String },

    #[error("MTU {mtu} is out of range: {} to {} bytes are possible", MTU_RANGE.start(), MTU_RANGE.end())]
    MtuOutOfRange { mtu: u32 },

    #[error("MTU {mtu} does not fit uplink {interface:?} of MTU {uplink_mtu}: use --mtu {limit} or less")]
    MtuAboveUplink { mtu: u32, interface: String, uplink_mtu: u32, limit: u32 },

    #[error(
        "uplink {interface:?} has MTU {uplink_mtu}, too little for a tunnel: `ip link set dev {interface} mtu 1500`"
    )]
    UplinkMtuTooSmall { interface: String, uplink_mtu: u32 },

    #[error("frame length {frame_len} is not possible: use 2048 or 4096")]
    FrameLen { frame_len: u32 },

    #[error("frame count {frame_count} is out of range: {} to {} frames per worker are possible", FRAME_COUNT_RANGE.start(), FRAME_COUNT_RANGE.end())]
    FrameCountOutOfRange { frame_count: u32 },

    #[error(
        "{frame_count} frames per worker are too few for {link_count} interfaces: use at least {minimum}"
    )]
    FrameCountTooSmall { frame_count: u32, link_count: usize, minimum: u32 },

    #[error(
        "--napi-busy-poll polls the NIC through AF_XDP sockets, and --io udp opens none: leave one of them out"
    )]
    NapiBusyPollWithoutLinks,

    #[error(
        "--napi-busy-poll takes workers that never sleep, and --busy-poll=false lets them sleep: leave one of them out"
    )]
    NapiBusyPollAsleep,

    #[error("AEAD {name:?} is unknown: use one of {}", aead_names().collect::<Vec<_>>().join(", "))]
    UnknownAead { name: String },

    #[error(
        "AEAD {name:?} needs a processor that this machine does not have ({needed}): use one of {}",
        aead_names().collect::<Vec<_>>().join(", ")
    )]
    AeadLacksProcessor { name: String, needed: &'static str },

    #[error(
        "CPU {cpu} of the core list is not among those this process may use ({allowed}): choose from these"
    )]
    CoreNotAllowed { cpu: u32, allowed: String },

    #[error("this process may use no CPU that can be named: widen its cpuset")]
    NoCpus,

    #[error(transparent)]
    Interface(#[from] InterfaceError),
}
