//! What a running gateway tells about itself: one JSON document per connection on a socket of its own, since the
//! protocol of `wg` has no place for queues, workers and drops. No secrets are in it.

mod gather;
pub mod read;
pub mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataplane::counters::WorkerCounters;

pub use read::{read_status, running_instances};

/// Where the status sockets are.
pub const STATUS_DIR: &str = "/run/wgx";

/// Reads statistics that somebody else writes.
pub type StatisticsSource = Box<dyn Fn() -> Value + Send>;

/// A source that serializes what `read` returns.
pub fn statistics<S: Serialize>(read: impl Fn() -> S + Send + 'static) -> StatisticsSource {
    // Counters are numbers and strings, which always serialize.
    Box::new(move || serde_json::to_value(read()).unwrap_or(Value::Null))
}

/// What the runtime knows and control does not.
#[derive(Default)]
pub struct StatusSources {
    /// The rung of the ladder the gateway stands on: `af-xdp` or `udp`.
    pub rung: String,
    /// The AEAD in use.
    pub aead: String,
    /// Interfaces by index.
    pub interfaces: Vec<(u32, InterfaceInfo)>,
    /// AF_XDP sockets.
    pub links: Vec<(LinkInfo, StatisticsSource)>,
    /// Workers.
    pub workers: Vec<(WorkerInfo, Arc<WorkerCounters>)>,
    /// Whether a CPU is kept out of idle states; none where that is not done.
    pub pm_qos_held: Option<Box<dyn Fn(usize) -> bool + Send>>,
    /// The kernel's UDP sockets.
    pub sockets: Option<StatisticsSource>,
    /// The TUN device.
    pub tunnel: Option<StatisticsSource>,
}

/// An interface the gateway was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// `uplink`, `downlink` or both.
    pub roles: Vec<String>,
    /// How the XDP program is attached: `driver` or `generic`.
    pub attach_mode: Option<String>,
}

/// An AF_XDP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Name of its interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// Index of the worker that owns it.
    pub worker: usize,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Index, from 0.
    pub worker: usize,
    /// CPU it is pinned to.
    pub cpu: Option<usize>,
    /// What it serves: `links` or `sockets`.
    pub serves: String,
}

/// The whole status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the tunnel.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Version of wgx.
    pub version: String,
    /// Seconds since the gateway started.
    pub uptime_secs: u64,
    /// The rung of the ladder: `af-xdp` or `udp`.
    pub rung: String,
    /// The AEAD in use.
    pub aead: String,
    /// Whether the tunnel's device is up.
    pub up: bool,
    /// MTU of the tunnel, in bytes.
    pub mtu: u16,
    /// UDP port.
    pub listen_port: u16,
    /// Our public key, in base64.
    pub public_key: Option<String>,
    /// False when policy routing rules force all packets onto the slow path.
    pub plain_rules: bool,
    /// Allowed IPs that the XDP program has no room for: their packets take the slow path.
    #[serde(default)]
    pub unsteered_allowed_ips: usize,
    /// Interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// AF_XDP sockets.
    pub links: Vec<LinkStatus>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Statistics of the kernel's UDP sockets.
    pub sockets: Option<Value>,
    /// Statistics of the TUN device.
    pub tunnel: Option<Value>,
    /// Peers, in the order of `wg show`.
    pub peers: Vec<PeerReport>,
    /// Whether handshakes take a cookie now: many messages are waiting, or were within the last second.
    #[serde(default)]
    pub under_load: bool,
    /// Handshake messages that wait to be looked at.
    #[serde(default)]
    pub handshakes_waiting: usize,
    /// Handshake messages by what became of them; zero counts are left out.
    pub handshakes: BTreeMap<String, u64>,
}

/// An interface and what the XDP program counted there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// What it is.
    #[serde(flatten)]
    pub info: InterfaceInfo,
    /// Frames by reason; zero counts are left out.
    pub xdp: BTreeMap<String, u64>,
}

/// An AF_XDP socket and its rings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// What it is.
    #[serde(flatten)]
    pub info: LinkInfo,
    /// Its counters and mode.
    pub statistics: Value,
}

/// A worker and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// What it is.
    #[serde(flatten)]
    pub info: WorkerInfo,
    /// Turns that moved at least one packet.
    pub batches: u64,
    /// Times it blocked for want of packets.
    pub idle_waits: u64,
    /// Whether the gateway keeps its CPU out of idle states now.
    #[serde(default)]
    pub pm_qos_held: bool,
    /// Packets by verdict; zero counts are left out.
    pub verdicts: BTreeMap<String, u64>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its public key, in base64.
    pub public_key: String,
    /// Where it is reached.
    pub endpoint: Option<String>,
    /// `fast` by AF_XDP, `kernel` by the UDP socket.
    pub path: String,
    /// When the last handshake completed, in seconds of Unix time.
    pub latest_handshake: Option<u64>,
    /// UDP payload received, in bytes.
    pub rx_bytes: u64,
    /// UDP payload sent, in bytes.
    pub tx_bytes: u64,
    /// How many allowed IPs it has.
    pub allowed_ip_count: usize,
}
