//! The ranges of what can be configured.

use std::ops::RangeInclusive;

/// MTU of the tunnel in bytes: from what every IPv4 host takes (RFC 791) to what fits a frame of 4096 bytes.
pub const MTU_RANGE: RangeInclusive<u32> = 576..=frame_mtu_max(4096) - OUTER_LEN_MAX;

/// Frames per worker: from one full batch with its rings to 1 GiB of frames of 4096 bytes.
pub const FRAME_COUNT_RANGE: RangeInclusive<u32> = 1024..=262_144;

/// Frames a worker needs for each interface: a full receive, transmit, fill and completion ring at once.
pub const FRAME_COUNT_PER_LINK: u32 = 4096;

/// Bytes before the packet in every frame: the kernel keeps as many (`XDP_PACKET_HEADROOM`).
pub const FRAME_HEADROOM: u32 = 256;

/// Bytes an IPv6 outer header, UDP, the data message's header and its tag add to a packet.
pub const OUTER_LEN_MAX: u32 = 40 + 8 + 16 + 16;

/// The same for an IPv4 outer header.
pub const OUTER_LEN_MIN: u32 = 20 + 8 + 16 + 16;

/// MTU of the tunnel unless the uplink is narrower: an uplink of 1500 bytes less [`OUTER_LEN_MAX`], as
/// `wg-quick` has it.
pub const MTU_DEFAULT: u32 = 1420;

/// The value of `--aead` that leaves the choice to the program.
pub const AEAD_AUTO: &str = "auto";

/// What `--aead` takes.
pub fn aead_names() -> impl Iterator<Item = &'static str> {
    std::iter::once(AEAD_AUTO).chain(aead::Aead::names())
}

/// The longest IP packet an Ethernet frame in `frame_len` bytes of memory can carry: less the headroom, the
/// Ethernet header, one VLAN tag, and the padding and tag that sealing appends.
pub const fn frame_mtu_max(frame_len: u32) -> u32 {
    frame_len - FRAME_HEADROOM - 14 - 4 - 32
}

/// Whether `name` can name a tunnel: what `wg` accepts, and what the kernel accepts of that.
pub fn is_tunnel_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}
