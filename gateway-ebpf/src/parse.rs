//! Ethernet, IPv4, IPv6, UDP and the WireGuard message type, read in place.
//!
//! Offsets count from the start of the bytes given. All functions take any bytes whatever: what does not
//! fit is an `Err` that says why, never a panic. Sources: RFC 894, RFC 791, RFC 8200, RFC 768, and the
//! message layouts of the WireGuard paper, section 5.4.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Reason;

/// Length of an Ethernet header without VLAN tag.
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;

/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Bytes that can be read in bounds: a slice in user space, a packet under the verifier's eyes in the kernel.
pub trait Bytes {
    /// Whether there are at least `len` bytes.
    fn holds(&self, len: usize) -> bool;

    /// The `N` bytes at `offset`, or `None` when they are not all there.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline]
    fn holds(&self, len: usize) -> bool {
        len <= self.len()
    }

    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}

/// An Ethernet header whose payload is IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// True for IPv6, false for IPv4.
    pub is_ipv6: bool,
}

/// An IP header, checked against the bytes that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Where the IP header starts.
    pub offset: usize,
    /// Length of the IP header: IPv4 options included, IPv6 extension headers not.
    pub header_len: usize,
    /// Length of the whole IP packet, header included; link-layer padding behind it is not.
    pub len: usize,
    /// IPv4 TOS or IPv6 traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4 protocol or IPv6 next header (which may be an extension header).
    pub protocol: u8,
    /// More fragments follow or this is not the first one (IPv4 only: an IPv6 fragment has an extension header).
    pub is_fragment: bool,
}

/// A UDP datagram inside an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Where the payload starts.
    pub payload_offset: usize,
    /// Length of the payload.
    pub payload_len: usize,
}

/// A frame that carries a UDP datagram: what the uplink's sockets receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Link header.
    pub ethernet: Ethernet,
    /// Network header.
    pub ip: Ip,
    /// Transport header and where the payload is.
    pub udp: Udp,
}

/// A frame that carries a plain IP packet: what the downlink's sockets receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Link header.
    pub ethernet: Ethernet,
    /// Network header, with offset and length of the IP packet.
    pub ip: Ip,
}

/// A WireGuard message as far as type and length tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1, 2 or 3: handshake initiation, handshake response, cookie reply.
    Handshake,
    /// Type 4: transport data.
    Data,
}

impl Ip {
    /// True for IPv6.
    #[inline(always)]
    pub const fn is_ipv6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// ECN bits (RFC 3168): 0 not capable, 1 and 2 capable, 3 congestion experienced.
    #[inline(always)]
    pub const fn ecn(&self) -> u8 {
        self.tos & 0b11
    }

    /// Whether this is a packet that may be steered: no IPv4 options, no fragment, no IPv6 extension header.
    ///
    /// # Errors
    ///
    /// The reason why it must be left to the kernel.
    #[inline(always)]
    pub const fn plain(&self) -> Result<(), Reason> {
        if self.is_ipv6() {
            if is_extension_header(self.protocol) {
                return Err(Reason::ExtensionHeader);
            }
        } else if self.header_len != IPV4_LEN {
            return Err(Reason::IpOptions);
        } else if self.is_fragment {
            return Err(Reason::Fragment);
        }
        Ok(())
    }
}

impl Outer {
    /// Where the datagram comes from.
    pub const fn source(&self) -> SocketAddr {
        SocketAddr::new(self.ip.source, self.udp.source_port)
    }

    /// Where the datagram goes to.
    pub const fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ip.destination, self.udp.destination_port)
    }
}

/// Reads a whole frame that carries a UDP datagram, as strictly as the XDP program does.
///
/// # Errors
///
/// The reason why this is not a frame that the uplink steers. Port and addresses are not looked at.
pub fn outer(frame: &[u8]) -> Result<Outer, Reason> {
    let ethernet = ethernet(frame)?;
    let ip = network(frame, &ethernet)?;
    ip.plain()?;
    let udp = udp(frame, &ip)?;
    Ok(Outer { ethernet, ip, udp })
}

/// Reads a whole frame that carries an IP packet of any protocol, as strictly as the XDP program does.
///
/// # Errors
///
/// The reason why this is not a frame that the downlink steers. Addresses and hop limit are not looked at.
pub fn inner(frame: &[u8]) -> Result<Inner, Reason> {
    let ethernet = ethernet(frame)?;
    let ip = network(frame, &ethernet)?;
    ip.plain()?;
    Ok(Inner { ethernet, ip })
}

/// Reads an Ethernet header.
///
/// # Errors
///
/// `Truncated`, `Vlan` or `NotIp`.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized>(frame: &B) -> Result<Ethernet, Reason> {
    let header: [u8; ETHERNET_LEN] = frame.read(0).ok_or(Reason::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
    let is_ipv6 = match u16::from_be_bytes([t0, t1]) {
        ETHERTYPE_IPV4 => false,
        ETHERTYPE_IPV6 => true,
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(Reason::Vlan),
        _ => return Err(Reason::NotIp),
    };
    Ok(Ethernet { destination: [d0, d1, d2, d3, d4, d5], source: [s0, s1, s2, s3, s4, s5], is_ipv6 })
}

/// Reads the IP header that follows an Ethernet header.
///
/// # Errors
///
/// As [`ipv4`] and [`ipv6`].
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(frame: &B, ethernet: &Ethernet) -> Result<Ip, Reason> {
    if ethernet.is_ipv6 { ipv6(frame, ETHERNET_LEN) } else { ipv4(frame, ETHERNET_LEN) }
}

/// Reads the header of a bare IP packet (from a TUN device or out of a tunnel) by its version.
///
/// # Errors
///
/// As [`ipv4`] and [`ipv6`]; `IpHeader` for any other version.
pub fn ip(packet: &[u8]) -> Result<Ip, Reason> {
    match packet.first().ok_or(Reason::Truncated)? >> 4 {
        4 => ipv4(packet, 0),
        6 => ipv6(packet, 0),
        _ => Err(Reason::IpHeader),
    }
}

/// Reads the IPv4 header at `offset`; options and fragments are reported, not refused.
///
/// # Errors
///
/// `Truncated`, `IpHeader` or `IpLength`.
#[inline(always)]
pub fn ipv4<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<Ip, Reason> {
    let header: [u8; IPV4_LEN] = bytes.read(offset).ok_or(Reason::Truncated)?;
    let [version_ihl, tos, l0, l1, _, _, f0, f1, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        header;
    let header_len = (version_ihl & 0x0f) as usize * 4;
    if version_ihl >> 4 != 4 || header_len < IPV4_LEN {
        return Err(Reason::IpHeader);
    }
    let len = u16::from_be_bytes([l0, l1]) as usize;
    if len < header_len || !bytes.holds(offset + len) {
        return Err(Reason::IpLength);
    }
    Ok(Ip {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        offset,
        header_len,
        len,
        tos,
        hop_limit,
        protocol,
        // All but the reserved bit and "don't fragment".
        is_fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
    })
}

/// Reads the IPv6 header at `offset`; extension headers show as the protocol, they are not walked.
///
/// # Errors
///
/// `Truncated`, `IpHeader` or `IpLength`. Jumbograms (payload length 0, RFC 2675) read as empty packets.
#[inline(always)]
pub fn ipv6<B: Bytes + ?Sized>(bytes: &B, offset: usize) -> Result<Ip, Reason> {
    let fixed: [u8; 8] = bytes.read(offset).ok_or(Reason::Truncated)?;
    let source: [u8; 16] = bytes.read(offset + 8).ok_or(Reason::Truncated)?;
    let destination: [u8; 16] = bytes.read(offset + 24).ok_or(Reason::Truncated)?;
    let [b0, b1, _, _, l0, l1, protocol, hop_limit] = fixed;
    if b0 >> 4 != 6 {
        return Err(Reason::IpHeader);
    }
    let len = IPV6_LEN + u16::from_be_bytes([l0, l1]) as usize;
    if !bytes.holds(offset + len) {
        return Err(Reason::IpLength);
    }
    Ok(Ip {
        source: IpAddr::V6(Ipv6Addr::from_octets(source)),
        destination: IpAddr::V6(Ipv6Addr::from_octets(destination)),
        offset,
        header_len: IPV6_LEN,
        len,
        tos: b0 << 4 | b1 >> 4,
        hop_limit,
        protocol,
        is_fragment: false,
    })
}

/// Reads the UDP header of a [plain](Ip::plain) IP packet.
///
/// # Errors
///
/// `NotUdp`, `Truncated`, or `UdpLength` when the UDP length is not exactly what the IP packet holds.
#[inline(always)]
pub fn udp<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Result<Udp, Reason> {
    if ip.protocol != PROTOCOL_UDP {
        return Err(Reason::NotUdp);
    }
    // Not `ip.header_len`: with two constants the verifier follows the packet pointer at no cost.
    let offset = ip.offset + if ip.is_ipv6() { IPV6_LEN } else { IPV4_LEN };
    let [s0, s1, d0, d1, l0, l1, _, _] = bytes.read(offset).ok_or(Reason::Truncated)?;
    let len = u16::from_be_bytes([l0, l1]) as usize;
    if len < UDP_LEN || offset + len != ip.offset + ip.len {
        return Err(Reason::UdpLength);
    }
    Ok(Udp {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload_offset: offset + UDP_LEN,
        payload_len: len - UDP_LEN,
    })
}

/// Tells the kind of a WireGuard message by its first four bytes and its length.
///
/// # Errors
///
/// `UnknownMessage` when the type is none of the four, `MessageLength` when the length does not suit it.
#[inline(always)]
pub fn message<B: Bytes + ?Sized>(bytes: &B, udp: &Udp) -> Result<Message, Reason> {
    let Some(head) = bytes.read(udp.payload_offset) else { return Err(Reason::UnknownMessage) };
    let (message, fits) = match u32::from_le_bytes(head) {
        // Header 16 bytes, tag 16 bytes: an empty data packet is a keepalive.
        4 => (Message::Data, udp.payload_len >= 32),
        1 => (Message::Handshake, udp.payload_len == 148),
        2 => (Message::Handshake, udp.payload_len == 92),
        3 => (Message::Handshake, udp.payload_len == 64),
        _ => return Err(Reason::UnknownMessage),
    };
    if fits { Ok(message) } else { Err(Reason::MessageLength) }
}

/// Next-header values of RFC 8200 section 4 and its followers that stand before the upper-layer header.
const fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254)
}
