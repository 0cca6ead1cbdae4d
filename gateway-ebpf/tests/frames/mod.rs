//! Frames and what must become of them: one table for the decision on the host and for the program in the kernel.

use std::net::IpAddr;

use gateway_ebpf::Reason;

/// MAC address of the interface under test.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The tunnel's UDP port.
pub const LISTEN_PORT: u16 = 51820;
/// The tunnel's MTU in bytes.
pub const TUNNEL_MTU: u16 = 1420;
/// The host's addresses.
pub const LOCAL: [&str; 4] = ["192.0.2.1", "10.7.0.1", "2001:db8::1", "2001:db8:7::1"];
/// Prefixes behind the tunnel.
pub const ALLOWED: [&str; 6] =
    ["10.7.0.0/24", "10.8.0.5/32", "169.254.0.0/16", "2001:db8:7::/64", "2001:db8:8::5/128", "fe80::/10"];

/// Offset of the IP header.
pub const IP: usize = 14;
/// Offset of the UDP header behind IPv4 and behind IPv6.
pub const UDP: [usize; 2] = [34, 54];

/// One frame and its fate on an interface that has a role.
pub struct Case {
    /// What is special about the frame, as a sentence.
    pub name: &'static str,
    /// The bytes on the wire.
    pub frame: Vec<u8>,
    /// The one reason that must be counted.
    pub reason: Reason,
}

/// A WireGuard message of `len` bytes, zero but for its type.
pub fn message(message_type: u8, len: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    message[0] = message_type;
    message
}

/// A UDP datagram from a client to the host's address of the client's family.
pub fn datagram(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(40000_u16.to_be_bytes());
    udp.extend(LISTEN_PORT.to_be_bytes());
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    packet(from, to, 17, &udp)
}

/// An Ethernet frame to [`MAC`] with an IP packet: TTL 64, TOS 0, no checksum (nobody here looks).
pub fn packet(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut frame = [MAC, [2, 0, 0, 0, 0, 2]].concat();
    let payload_len = payload.len() as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + payload_len).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(payload_len.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("mixed families"),
    }
    frame.extend(payload);
    frame
}

/// The frame with some bytes replaced.
pub fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame cut off or filled up with zeros to a length.
pub fn resized(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 0);
    frame
}

/// A good data packet over IPv4.
pub fn data_v4() -> Vec<u8> {
    datagram("198.51.100.7", "192.0.2.1", &message(4, 96))
}

/// A good data packet over IPv6.
pub fn data_v6() -> Vec<u8> {
    datagram("2001:db8:ffff::7", "2001:db8::1", &message(4, 96))
}

/// A good TCP packet for an address behind the tunnel.
pub fn inner_v4() -> Vec<u8> {
    packet("203.0.113.9", "10.7.0.44", 6, &[0; 80])
}

/// A good TCP packet for an address behind the tunnel.
pub fn inner_v6() -> Vec<u8> {
    packet("2001:db8:aaaa::9", "2001:db8:7::44", 6, &[0; 80])
}

fn case(name: &'static str, reason: Reason, frame: Vec<u8>) -> Case {
    Case { name, frame, reason }
}

/// Frames that are malformed or none of our business below UDP, whatever the role.
pub fn unparsable() -> Vec<Case> {
    let fragment = |flags: [u8; 2]| with(data_v4(), IP + 6, &flags);
    let next_header = |protocol| with(data_v6(), IP + 6, &[protocol]);
    vec![
        case("ARP", Reason::NotIp, resized(with(data_v4(), 12, &[0x08, 0x06]), 60)),
        case("802.1Q tag", Reason::Vlan, with(data_v4(), 12, &[0x81, 0x00])),
        case("802.1ad tag", Reason::Vlan, with(data_v4(), 12, &[0x88, 0xa8])),
        case("an Ethernet header alone", Reason::Truncated, resized(data_v4(), 14)),
        case("IPv4 header cut off", Reason::Truncated, resized(data_v4(), IP + 19)),
        case("IPv6 header cut off", Reason::Truncated, resized(data_v6(), IP + 39)),
        case("IPv6 in an IPv4 EtherType", Reason::IpHeader, with(data_v6(), 12, &[0x08, 0x00])),
        case("IPv4 in an IPv6 EtherType", Reason::IpHeader, with(data_v4(), 12, &[0x86, 0xdd])),
        case("IPv4 header of 16 bytes", Reason::IpHeader, with(data_v4(), IP, &[0x44])),
        case("IPv4 options", Reason::IpOptions, with(data_v4(), IP, &[0x46])),
        case("IPv4 length beyond the frame", Reason::IpLength, with(data_v4(), IP + 2, &[0, 125])),
        case("IPv4 length within the header", Reason::IpLength, with(data_v4(), IP + 2, &[0, 19])),
        case("IPv6 length beyond the frame", Reason::IpLength, with(data_v6(), IP + 4, &[0, 105])),
        case("IPv4 payload cut off", Reason::IpLength, resized(data_v4(), IP + 20 + 8 + 95)),
        case("first fragment", Reason::Fragment, fragment([0x20, 0])),
        case("last fragment", Reason::Fragment, fragment([0, 9])),
        case("middle fragment with DF", Reason::Fragment, fragment([0x60, 1])),
        case("IPv6 hop-by-hop options", Reason::ExtensionHeader, next_header(0)),
        case("IPv6 routing header", Reason::ExtensionHeader, next_header(43)),
        case("IPv6 fragment", Reason::ExtensionHeader, next_header(44)),
        case("IPv6 destination options", Reason::ExtensionHeader, next_header(60)),
    ]
}

/// Frames on an interface with the uplink role alone.
pub fn uplink() -> Vec<Case> {
    let to_us = |payload: Vec<u8>| datagram("198.51.100.7", "192.0.2.1", &payload);
    let typed = |head: [u8; 4]| with(data_v4(), UDP[0] + 8, &head);
    let from = |source| datagram(source, "192.0.2.1", &message(4, 96));
    let from_v6 = |source| datagram(source, "2001:db8::1", &message(4, 96));
    vec![
        case("data over IPv4", Reason::Data, data_v4()),
        case("data over IPv6", Reason::Data, data_v6()),
        case("keepalive", Reason::Data, to_us(message(4, 32))),
        case("data that fills the MTU", Reason::Data, to_us(message(4, 1472))),
        case("data with link padding behind", Reason::Data, resized(to_us(message(4, 32)), 90)),
        case("data with ECN and DSCP", Reason::Data, with(data_v4(), IP + 1, &[0xbb])),
        case("data with TTL 1", Reason::Data, with(data_v4(), IP + 8, &[1])),
        case("data with the reserved flag", Reason::Data, with(data_v4(), IP + 6, &[0x80, 0])),
        case("data to any MAC address", Reason::Data, with(data_v4(), 0, &[9; 6])),
        case("data of 31 bytes", Reason::MessageLength, to_us(message(4, 31))),
        case("initiation", Reason::Handshake, to_us(message(1, 148))),
        case("response", Reason::Handshake, to_us(message(2, 92))),
        case("cookie reply", Reason::Handshake, to_us(message(3, 64))),
        case("initiation one byte short", Reason::MessageLength, to_us(message(1, 147))),
        case("initiation one byte long", Reason::MessageLength, to_us(message(1, 149))),
        case("response one byte long", Reason::MessageLength, to_us(message(2, 93))),
        case("cookie reply one byte short", Reason::MessageLength, to_us(message(3, 63))),
        case("type 0", Reason::UnknownMessage, typed([0, 0, 0, 0])),
        case("type 5", Reason::UnknownMessage, typed([5, 0, 0, 0])),
        case("type 4 with reserved bytes", Reason::UnknownMessage, typed([4, 0, 0, 1])),
        case("type 4 in big endian", Reason::UnknownMessage, typed([0, 0, 0, 4])),
        case("three bytes", Reason::UnknownMessage, to_us(vec![4, 0, 0])),
        case("no payload", Reason::UnknownMessage, to_us(vec![])),
        case("another port", Reason::OtherPort, with(data_v4(), UDP[0] + 2, &[0xca, 0x6d])),
        case("port 0", Reason::OtherPort, with(data_v6(), UDP[1] + 2, &[0, 0])),
        case("a stranger's address", Reason::OtherAddress, with(data_v4(), IP + 16, &[192, 0, 2, 9])),
        case("a stranger's IPv6 address", Reason::OtherAddress, with(data_v6(), IP + 39, &[9])),
        case("broadcast", Reason::OtherAddress, with(data_v4(), IP + 16, &[255; 4])),
        case("UDP length too short", Reason::UdpLength, with(data_v4(), UDP[0] + 4, &[0, 103])),
        case("UDP length too long", Reason::UdpLength, with(data_v4(), UDP[0] + 4, &[0, 105])),
        case("UDP length below its header", Reason::UdpLength, with(data_v6(), UDP[1] + 4, &[0, 7])),
        case(
            "room for half a UDP header",
            Reason::Truncated,
            packet("198.51.100.7", "192.0.2.1", 17, &[0; 4]),
        ),
        case("TCP", Reason::NotUdp, with(data_v4(), IP + 9, &[6])),
        case("ICMPv6", Reason::NotUdp, with(data_v6(), IP + 6, &[58])),
        case("from loopback", Reason::MartianSource, from("127.0.0.1")),
        case("from multicast", Reason::MartianSource, from("224.0.0.1")),
        case("from broadcast", Reason::MartianSource, from("255.255.255.255")),
        case("from nowhere", Reason::MartianSource, from("0.0.0.0")),
        case("from ::1", Reason::MartianSource, from_v6("::1")),
        case("from ::", Reason::MartianSource, from_v6("::")),
        case("from ::ffff:192.0.2.7", Reason::MartianSource, from_v6("::ffff:192.0.2.7")),
        case("from multicast over IPv6", Reason::MartianSource, from_v6("ff02::1")),
        case("a plain packet for a client", Reason::NotUdp, inner_v4()),
    ]
}

/// Frames on an interface with the downlink role alone.
pub fn downlink() -> Vec<Case> {
    let to = |destination| packet("203.0.113.9", destination, 6, &[0; 80]);
    let to_v6 = |destination| packet("2001:db8:aaaa::9", destination, 6, &[0; 80]);
    let from = |source| packet(source, "10.7.0.44", 6, &[0; 80]);
    let sized = |len| packet("203.0.113.9", "10.7.0.44", 6, &vec![0; len]);
    let sized_v6 = |len| packet("2001:db8:aaaa::9", "2001:db8:7::44", 6, &vec![0; len]);
    vec![
        case("TCP for a client", Reason::Inner, inner_v4()),
        case("TCP for a client over IPv6", Reason::Inner, inner_v6()),
        case("UDP for a client", Reason::Inner, datagram("203.0.113.9", "10.7.0.44", &[0; 20])),
        case("ICMP for a client", Reason::Inner, packet("203.0.113.9", "10.7.0.44", 1, &[8, 0, 0, 0])),
        case("ESP for a client", Reason::Inner, packet("2001:db8:aaaa::9", "2001:db8:7::44", 50, &[0; 40])),
        case("a host route", Reason::Inner, to("10.8.0.5")),
        case("an IPv6 host route", Reason::Inner, to_v6("2001:db8:8::5")),
        case("link padding behind a short packet", Reason::Inner, resized(sized(4), 60)),
        case("a packet as long as the tunnel MTU", Reason::Inner, sized(1400)),
        case("an IPv6 packet as long as the tunnel MTU", Reason::Inner, sized_v6(1380)),
        case("one byte more", Reason::TooBig, sized(1401)),
        case("one byte more over IPv6", Reason::TooBig, sized_v6(1381)),
        case("TTL 2", Reason::Inner, with(inner_v4(), IP + 8, &[2])),
        case("TTL 1", Reason::HopLimit, with(inner_v4(), IP + 8, &[1])),
        case("TTL 0", Reason::HopLimit, with(inner_v4(), IP + 8, &[0])),
        case("hop limit 1", Reason::HopLimit, with(inner_v6(), IP + 7, &[1])),
        case("another MAC address", Reason::OtherMac, with(inner_v4(), 0, &[2, 0, 0, 0, 0, 3])),
        case("broadcast MAC address", Reason::OtherMac, with(inner_v4(), 0, &[0xff; 6])),
        case("multicast MAC address", Reason::OtherMac, with(inner_v6(), 0, &[0x33, 0x33, 0, 0, 0, 1])),
        case("next to a host route", Reason::NotAllowed, to("10.8.0.6")),
        case("an address of nobody", Reason::NotAllowed, to("10.9.0.1")),
        case("an IPv6 address of nobody", Reason::NotAllowed, to_v6("2001:db8:9::1")),
        case("the host's tunnel address", Reason::LocalDestination, to("10.7.0.1")),
        case("the host's IPv6 tunnel address", Reason::LocalDestination, to_v6("2001:db8:7::1")),
        case("multicast", Reason::NotForwardable, to("224.0.0.251")),
        case("broadcast", Reason::NotForwardable, to("255.255.255.255")),
        case("loopback", Reason::NotForwardable, to("127.0.0.1")),
        case("link-local", Reason::NotForwardable, to("169.254.1.1")),
        case("IPv6 multicast", Reason::NotForwardable, to_v6("ff02::1")),
        case("IPv6 link-local", Reason::NotForwardable, to_v6("fe80::44")),
        case("IPv6 loopback", Reason::NotForwardable, to_v6("::1")),
        case("from loopback", Reason::MartianSource, from("127.0.0.1")),
        case("from multicast", Reason::MartianSource, from("239.1.1.1")),
        case("from a link-local address", Reason::MartianSource, from("169.254.1.1")),
        case("WireGuard data to the host", Reason::LocalDestination, data_v4()),
    ]
}

/// Frames on an interface with both roles: what is not a datagram to the tunnel gets its chance as a packet.
pub fn both() -> Vec<Case> {
    let tunnelled = datagram("203.0.113.9", "10.7.0.44", &message(4, 96));
    vec![
        case("data over IPv4", Reason::Data, data_v4()),
        case("data over IPv6", Reason::Data, data_v6()),
        case("TCP for a client", Reason::Inner, inner_v4()),
        case("TCP for a client over IPv6", Reason::Inner, inner_v6()),
        case("a client's own WireGuard, through the tunnel", Reason::Inner, tunnelled),
        case(
            "UDP with a bad length for a client",
            Reason::Inner,
            with(datagram("203.0.113.9", "10.7.0.44", &[0; 20]), UDP[0] + 4, &[0, 7]),
        ),
        case("handshake", Reason::Handshake, datagram("198.51.100.7", "192.0.2.1", &message(1, 148))),
        case("noise on our port", Reason::UnknownMessage, datagram("198.51.100.7", "192.0.2.1", b"noise")),
        case("SSH to the host", Reason::LocalDestination, packet("198.51.100.7", "192.0.2.1", 6, &[0; 20])),
    ]
}
