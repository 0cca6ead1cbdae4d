//! Names, keys and values of the program's maps.
//!
//! Ports and addresses are byte arrays in network order, so neither side can get the endianness wrong.

use crate::Reason;

/// Most interfaces the program serves at once; each has a slot below this.
pub const MAX_INTERFACES: u32 = 16;
/// Most receive queues of one interface that can have a socket.
pub const MAX_QUEUES: u32 = 64;
/// Most addresses of the host per family.
pub const MAX_LOCAL_ADDRESSES: u32 = 4096;
/// Most allowed-IP prefixes per family (2^20; the trie takes memory per entry, not up front).
pub const MAX_ALLOWED_IPS: u32 = 1 << 20;

/// Name of the program in the object.
pub const PROGRAM: &str = "wgx_steer";
/// Name of the other program, in an object of its own, that redirects without looking.
pub const REDIRECT_PROGRAM: &str = "wgx_redirect";
/// Sockets by queue, of that program.
pub const REDIRECT: &str = "REDIRECT";
/// Array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Hash: interface index → [`Interface`].
pub const INTERFACES: &str = "INTERFACES";
/// Hash set: IPv4 addresses of the host.
pub const LOCAL_IPV4: &str = "LOCAL_IPV4";
/// Hash set: IPv6 addresses of the host.
pub const LOCAL_IPV6: &str = "LOCAL_IPV6";
/// Longest-prefix trie: allowed IPs, IPv4.
pub const ALLOWED_IPV4: &str = "ALLOWED_IPV4";
/// Longest-prefix trie: allowed IPs, IPv6.
pub const ALLOWED_IPV6: &str = "ALLOWED_IPV6";
/// Sockets by [`socket_index`].
pub const SOCKETS: &str = "SOCKETS";
/// Per-CPU counters by [`counter_index`].
pub const COUNTERS: &str = "COUNTERS";

/// Bit in [`Interface::roles`]: WireGuard datagrams arrive here.
pub const ROLE_UPLINK: u32 = 1;
/// Bit in [`Interface::roles`]: packets for addresses behind the tunnel arrive here.
pub const ROLE_DOWNLINK: u32 = 2;

/// What holds for all interfaces. All zero (as the map starts) steers nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// UDP port of the tunnel in network order; 0 steers no datagram.
    pub listen_port: [u8; 2],
    /// MTU of the tunnel in bytes; a longer inner packet is left to the kernel.
    pub tunnel_mtu: u16,
}

/// What holds for one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Which part of the sockets and counters is this interface's; below [`MAX_INTERFACES`].
    pub slot: u32,
    /// [`ROLE_UPLINK`] and [`ROLE_DOWNLINK`], or'ed.
    pub roles: u32,
    /// MAC address of the interface.
    pub mac: [u8; 6],
    /// Zero: fills the struct to its alignment, as map values may hold no undefined bytes.
    pub reserved: [u8; 2],
}

impl Settings {
    /// The map value, as the program sees it.
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let [p0, p1] = self.listen_port;
        let [m0, m1] = self.tunnel_mtu.to_ne_bytes();
        [p0, p1, m0, m1]
    }
}

impl Interface {
    /// The map value, as the program sees it.
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let [s0, s1, s2, s3] = self.slot.to_ne_bytes();
        let [r0, r1, r2, r3] = self.roles.to_ne_bytes();
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        let [z0, z1] = self.reserved;
        [s0, s1, s2, s3, r0, r1, r2, r3, m0, m1, m2, m3, m4, m5, z0, z1]
    }
}

/// Index in [`SOCKETS`] of a queue; `None` when the queue is beyond [`MAX_QUEUES`].
#[inline(always)]
pub const fn socket_index(slot: u32, queue: u32) -> Option<u32> {
    if queue < MAX_QUEUES { Some(slot * MAX_QUEUES + queue) } else { None }
}

/// Number of entries in [`SOCKETS`].
pub const SOCKET_COUNT: u32 = MAX_INTERFACES * MAX_QUEUES;

/// Index in [`COUNTERS`].
#[inline(always)]
pub const fn counter_index(slot: u32, reason: Reason) -> u32 {
    slot * Reason::COUNT as u32 + reason as u32
}

/// Number of entries in [`COUNTERS`].
pub const COUNTER_COUNT: u32 = MAX_INTERFACES * Reason::COUNT as u32;
