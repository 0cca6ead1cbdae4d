//! The options of `wgx run`, the same on the command line and in the file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::topology::CoreList;

/// Through what packets reach the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoMode {
    /// `AF_XDP` as fast as the driver allows, else the kernel's UDP sockets.
    #[default]
    Auto,
    /// `AF_XDP` or nothing: fail rather than fall back to sockets.
    AfXdp,
    /// The kernel's UDP sockets and a TUN device only.
    Udp,
}

/// Every option, unset unless given. Doc comments are the help texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Interfaces WireGuard clients arrive on
    #[arg(long, value_name = "IF[,IF...]", value_delimiter = ',')]
    pub uplink: Option<Vec<String>>,

    /// Interfaces with the plain network behind the gateway
    #[arg(long, value_name = "IF[,IF...]", value_delimiter = ',')]
    pub downlink: Option<Vec<String>>,

    /// Through what packets reach the wire [default: auto]
    #[arg(long, value_enum, value_name = "MODE")]
    pub io: Option<IoMode>,

    /// CPUs for the workers, as 1,3-5 [default: chosen near the NIC, one per physical core]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Workers never sleep: lowest latency, whole cores
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub busy_poll: Option<bool>,

    /// Workers poll the NIC themselves in place of its interrupts; as --busy-poll besides
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub napi_busy_poll: Option<bool>,

    /// CPUs of workers stay out of idle states while packets arrive, for lower latency and more power [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pm_qos: Option<bool>,

    /// Implementation of ChaCha20-Poly1305; an unknown name lists them [default: auto, the fastest that works here]
    #[arg(long, value_name = "NAME")]
    pub aead: Option<String>,

    /// MTU of the tunnel in bytes [default: that of the narrowest uplink less 80, at most 1420]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// File with keys and peers in the format of `wg setconf`
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,

    /// Bytes of each packet buffer: 2048 or 4096 [default: by the MTU of the interfaces]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub frame_len: Option<u32>,

    /// Packet buffers of each worker [default: 4096 per interface and 4096 more]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    pub frame_count: Option<u32>,
}

impl Options {
    /// These options where given, those of `file` elsewhere.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            uplink: self.uplink.or(file.uplink),
            downlink: self.downlink.or(file.downlink),
            io: self.io.or(file.io),
            cores: self.cores.or(file.cores),
            busy_poll: self.busy_poll.or(file.busy_poll),
            napi_busy_poll: self.napi_busy_poll.or(file.napi_busy_poll),
            pm_qos: self.pm_qos.or(file.pm_qos),
            aead: self.aead.or(file.aead),
            mtu: self.mtu.or(file.mtu),
            peers: self.peers.or(file.peers),
            frame_len: self.frame_len.or(file.frame_len),
            frame_count: self.frame_count.or(file.frame_count),
        }
    }
}
