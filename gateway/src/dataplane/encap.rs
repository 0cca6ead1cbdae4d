//! Outer headers: Ethernet, IP and UDP around a sealed datagram, prebuilt per path.

use std::net::{IpAddr, SocketAddr};

use gateway_ebpf::parse::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN};

use super::fib::LinkHop;
use super::inner::{fold, words_sum};

/// The longest outer header: Ethernet, IPv6, UDP.
pub const OUTER_HEADER_LEN_MAX: usize = ETHERNET_LEN + IPV6_LEN + UDP_LEN;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The kernel's default `net.ipv4.ip_default_ttl` and `net.ipv6.conf.all.hop_limit`.
const OUTER_TTL: u8 = 64;

/// Writes an Ethernet header for an IP packet of the version its first nibble says.
pub fn write_ethernet(header: &mut [u8], hop: &LinkHop, is_v6: bool) {
    header[..6].copy_from_slice(&hop.destination_mac);
    header[6..12].copy_from_slice(&hop.source_mac);
    header[12..14].copy_from_slice(if is_v6 { &ETHERTYPE_IPV6 } else { &ETHERTYPE_IPV4 });
}

/// Everything of the outer headers that is the same for all datagrams of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    bytes: [u8; OUTER_HEADER_LEN_MAX],
    len: u8,
    is_v6: bool,
    /// IPv4: sum of the header's constant words. IPv6: sum of the pseudo-header and the ports. At most some thirty
    /// 32-bit words.
    constant_sum: u64,
}

impl OuterHeader {
    /// Headers from `source` to `destination` over `hop`; `None` when their families differ.
    pub fn new(hop: &LinkHop, source: SocketAddr, destination: SocketAddr) -> Option<Self> {
        let is_v6 = source.is_ipv6();
        let ip_len = if is_v6 { IPV6_LEN } else { IPV4_LEN };
        let mut bytes = [0; OUTER_HEADER_LEN_MAX];
        write_ethernet(&mut bytes, hop, is_v6);
        let ip = &mut bytes[ETHERNET_LEN..];
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip[0] = 0x45;
                ip[8] = OUTER_TTL;
                ip[9] = PROTOCOL_UDP;
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip[0] = 0x60;
                ip[6] = PROTOCOL_UDP;
                ip[7] = OUTER_TTL;
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&destination.octets());
            }
            _ => return None,
        }
        ip[ip_len..ip_len + 2].copy_from_slice(&source.port().to_be_bytes());
        ip[ip_len + 2..ip_len + 4].copy_from_slice(&destination.port().to_be_bytes());
        let constant_sum = if is_v6 {
            words_sum(&ip[8..IPV6_LEN + 4]) + u64::from(PROTOCOL_UDP)
        } else {
            words_sum(&ip[..IPV4_LEN])
        };
        Some(Self { bytes, len: (ETHERNET_LEN + ip_len + UDP_LEN) as u8, is_v6, constant_sum })
    }

    /// Bytes to put before the datagram.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Bytes of IP packet a datagram of `datagram_len` makes: what is held against the link's MTU.
    pub fn packet_len(&self, datagram_len: usize) -> usize {
        self.len() - ETHERNET_LEN + datagram_len
    }

    /// Fills the first [`OuterHeader::len`] bytes of `frame`, whose rest is the datagram.
    ///
    /// `ecn` goes to the outer traffic class, whose DSCP stays 0 (drivers/net/wireguard/send.c: no leak of
    /// the inner mark). `identification` is that of the IPv4 header, which fragments of a datagram share: DF
    /// is not set, as in the kernel. The UDP checksum is computed over IPv6, where it is mandatory, and left
    /// out (0) over IPv4: the tag protects more than it would.
    pub fn write(&self, frame: &mut [u8], ecn: u8, identification: u16) {
        let ip_and_datagram_len = frame.len() - ETHERNET_LEN;
        let (header, datagram) = frame.split_at_mut(self.len());
        header.copy_from_slice(&self.bytes[..self.len()]);
        let udp_len = (UDP_LEN + datagram.len()) as u16;
        let (ip, udp) = header[ETHERNET_LEN..].split_at_mut(self.len() - ETHERNET_LEN - UDP_LEN);
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        if self.is_v6 {
            ip[1] |= ecn << 4;
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
            // The length counts twice: in the pseudo-header and in the UDP header.
            let sum = self.constant_sum + 2 * u64::from(udp_len) + words_sum(datagram);
            // 0 would mean "none": its other form is sent instead (RFC 8200, section 8.1).
            let checksum = Some(!fold(sum)).filter(|checksum| *checksum != 0).unwrap_or(0xffff);
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let total_len = ip_and_datagram_len as u16;
            ip[1] = ecn;
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            let sum = self.constant_sum + u64::from(ecn) + u64::from(total_len) + u64::from(identification);
            ip[10..12].copy_from_slice(&(!fold(sum)).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop() -> LinkHop {
        LinkHop {
            interface_index: 2,
            destination_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
            source: None,
        }
    }

    fn framed(source: &str, destination: &str, datagram: &[u8], ecn: u8, identification: u16) -> Vec<u8> {
        let header = OuterHeader::new(&hop(), source.parse().unwrap(), destination.parse().unwrap()).unwrap();
        let mut frame = vec![0xee; header.len()];
        frame.extend(datagram);
        header.write(&mut frame, ecn, identification);
        assert_eq!(header.packet_len(datagram.len()), frame.len() - ETHERNET_LEN);
        frame
    }

    #[test]
    fn addresses_of_two_families_make_no_header() {
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap());
        assert_eq!(OuterHeader::new(&hop(), v4, v6), None);
    }

    proptest! {
        #[test]
        fn ipv4_headers_are_whole(
            datagram in proptest::collection::vec(any::<u8>(), 0..1500), ecn in 0u8..4, identification: u16,
        ) {
            let frame = framed("192.0.2.1:51820", "203.0.113.9:4500", &datagram, ecn, identification);
            prop_assert_eq!(&frame[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
            let ip = &frame[14..34];
            prop_assert_eq!(fold(words_sum(ip)), 0xffff);
            prop_assert_eq!((ip[0], ip[1]), (0x45, ecn));
            prop_assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), 28 + datagram.len());
            prop_assert_eq!(&ip[12..20], [192, 0, 2, 1, 203, 0, 113, 9]);
            prop_assert_eq!(&frame[34..38], [0xca, 0x6c, 0x11, 0x94]);
            prop_assert_eq!(usize::from(u16::from_be_bytes([frame[38], frame[39]])), 8 + datagram.len());
            prop_assert_eq!(&frame[40..42], [0, 0]);
            prop_assert_eq!(&frame[42..], &datagram);
        }

        #[test]
        fn ipv6_udp_checksums_verify(
            datagram in proptest::collection::vec(any::<u8>(), 0..1500), ecn in 0u8..4,
        ) {
            let frame = framed("[2001:db8::1]:51820", "[2001:db8:7::9]:4500", &datagram, ecn, 0);
            let (ip, udp) = frame[14..].split_at(40);
            prop_assert_eq!(u16::from_be_bytes([ip[4], ip[5]]) as usize, udp.len());
            prop_assert_eq!((ip[0] << 4 | ip[1] >> 4) & 3, ecn);
            let pseudo = words_sum(&ip[8..]) + udp.len() as u64 + 17;
            prop_assert_eq!(fold(pseudo + words_sum(udp)), 0xffff);
            prop_assert!(udp[6..8] != [0, 0]);
        }
    }
}
