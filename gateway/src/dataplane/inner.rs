//! Inner IP packets: the few fields a gateway reads and writes. Bytes in, bytes out; no ports, no sessions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;
/// Length of the IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;

/// The ECN field, the low two bits of the traffic class (RFC 3168).
pub const ECN_MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// What a gateway needs to know of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Length the header states, in bytes: at most that of the bytes parsed; what follows is padding.
    pub len: usize,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
}

impl Inner {
    /// Reads the header; `None` when `packet` is not IPv4 or IPv6, or shorter than its header says, which is
    /// what the kernel checks after opening (drivers/net/wireguard/receive.c,
    /// `wg_packet_consume_data_done`).
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV4_HEADER_LEN] = packet.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let header_len = usize::from(header[0] & 0xf) * 4;
        if header_len < IPV4_HEADER_LEN || len < header_len || len > packet.len() {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            len,
            ttl: header[8],
            traffic_class: header[1],
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV6_HEADER_LEN] = packet.first_chunk()?;
        let len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if len > packet.len() {
            return None;
        }
        let address = |at: usize| {
            let octets: [u8; 16] = std::array::from_fn(|i| header[at + i]);
            IpAddr::from(Ipv6Addr::from(octets))
        };
        Some(Self {
            source: address(8),
            destination: address(24),
            len,
            ttl: header[7],
            traffic_class: header[0] << 4 | header[1] >> 4,
        })
    }

    /// The ECN field of the traffic class.
    pub fn ecn(&self) -> u8 {
        self.traffic_class & ECN_MASK
    }
}

/// Takes one from the TTL or hop limit of a packet that [`Inner::parse`] accepted and whose TTL is above 0.
pub fn decrement_ttl(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return;
    }
    let old = u16::from_be_bytes([packet[8], packet[9]]);
    packet[8] -= 1;
    let new = u16::from_be_bytes([packet[8], packet[9]]);
    update_checksum(packet, old, new);
}

/// Merges the outer ECN field into the inner packet as RFC 6040, section 4.2 says; `false` when the packet
/// must be dropped, because it met congestion and cannot say so.
#[must_use]
pub fn decapsulate_ecn(outer_ecn: u8, inner: &Inner, packet: &mut [u8]) -> bool {
    let merged = match (outer_ecn & ECN_MASK, inner.ecn()) {
        (CE, NOT_ECT) => return false,
        (CE, _) => CE,
        (ECT_1, ECT_0) => ECT_1,
        (_, ecn) => ecn,
    };
    if merged != inner.ecn() {
        set_ecn(packet, merged);
    }
    true
}

fn set_ecn(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !(ECN_MASK << 4) | ecn << 4;
        return;
    }
    let old = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] = packet[1] & !ECN_MASK | ecn;
    let new = u16::from_be_bytes([packet[0], packet[1]]);
    update_checksum(packet, old, new);
}

/// Updates an IPv4 header checksum for one changed word (RFC 1624, equation 3).
fn update_checksum(header: &mut [u8], old: u16, new: u16) {
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    header[10..12].copy_from_slice(&(!fold(sum.into())).to_be_bytes());
}

/// Sum of the big-endian 16-bit words of `bytes`, an odd last byte padded with zero (RFC 1071), unfolded.
pub fn words_sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let sum: u64 = chunks.iter().map(|chunk| u64::from(u32::from_be_bytes(*chunk))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum of words into 16 bits with end-around carry.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IPv4 header of a 20-byte packet with a right checksum.
    pub(crate) fn ipv4(traffic_class: u8, ttl: u8) -> Vec<u8> {
        let mut packet = vec![0x45, traffic_class, 0, 20, 0x12, 0x34, 0, 0, ttl, 17, 0, 0];
        packet.extend([10, 8, 0, 2, 10, 9, 0, 5]);
        let checksum = !fold(words_sum(&packet));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn ipv6(traffic_class: u8) -> Vec<u8> {
        let mut packet = vec![0x60 | traffic_class >> 4, traffic_class << 4, 0, 0, 0, 0, 17, 64];
        packet.extend([0x20; 32]);
        packet
    }

    #[test]
    fn addresses_lengths_and_marks_are_read() {
        let inner = Inner::parse(&ipv4(0xb9, 7)).unwrap();
        assert_eq!(inner.source, IpAddr::from([10, 8, 0, 2]));
        assert_eq!(inner.destination, IpAddr::from([10, 9, 0, 5]));
        assert_eq!((inner.len, inner.ttl, inner.traffic_class, inner.ecn()), (20, 7, 0xb9, 1));
        assert_eq!(Inner::parse(&ipv6(0xb9)).unwrap().traffic_class, 0xb9);
    }

    #[test]
    fn packets_shorter_than_they_say_are_refused() {
        let mut long = ipv4(0, 64);
        long[3] = 21;
        assert_eq!(Inner::parse(&long), None);
        let mut v6 = ipv6(0);
        v6[5] = 1;
        assert_eq!(Inner::parse(&v6), None);
        let mut short_header = ipv4(0, 64);
        short_header[0] = 0x44;
        assert_eq!(Inner::parse(&short_header), None);
        assert_eq!(Inner::parse(&[0x50; 40]), None);
        assert_eq!(Inner::parse(&[]), None);
    }

    #[test]
    fn ecn_is_merged_as_rfc_6040_says() {
        // (outer, inner, result); None means drop. The table of RFC 6040, figure 4.
        let table = [
            (NOT_ECT, NOT_ECT, Some(NOT_ECT)),
            (NOT_ECT, ECT_0, Some(ECT_0)),
            (NOT_ECT, ECT_1, Some(ECT_1)),
            (NOT_ECT, CE, Some(CE)),
            (ECT_0, NOT_ECT, Some(NOT_ECT)),
            (ECT_0, ECT_0, Some(ECT_0)),
            (ECT_0, ECT_1, Some(ECT_1)),
            (ECT_0, CE, Some(CE)),
            (ECT_1, NOT_ECT, Some(NOT_ECT)),
            (ECT_1, ECT_0, Some(ECT_1)),
            (ECT_1, ECT_1, Some(ECT_1)),
            (ECT_1, CE, Some(CE)),
            (CE, NOT_ECT, None),
            (CE, ECT_0, Some(CE)),
            (CE, ECT_1, Some(CE)),
            (CE, CE, Some(CE)),
        ];
        for (outer, inner_ecn, result) in table {
            for mut packet in [ipv4(0xb8 | inner_ecn, 64), ipv6(0xb8 | inner_ecn)] {
                let inner = Inner::parse(&packet).unwrap();
                let kept = decapsulate_ecn(outer, &inner, &mut packet);
                assert_eq!(kept, result.is_some(), "outer {outer:02b} inner {inner_ecn:02b}");
                if let Some(result) = result {
                    assert_eq!(Inner::parse(&packet).unwrap().traffic_class, 0xb8 | result);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_ipv4_checksum_stays_right(traffic_class: u8, ttl in 1u8.., ident: u16, outer_ecn in 0u8..4) {
            let mut packet = ipv4(traffic_class, ttl);
            packet[4..6].copy_from_slice(&ident.to_be_bytes());
            packet[10..12].fill(0);
            let checksum = !fold(words_sum(&packet));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());

            let inner = Inner::parse(&packet).unwrap();
            let _ = decapsulate_ecn(outer_ecn, &inner, &mut packet);
            decrement_ttl(&mut packet);
            prop_assert_eq!(fold(words_sum(&packet)), 0xffff);
            prop_assert_eq!(packet[8], ttl - 1);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(inner) = Inner::parse(&bytes) {
                prop_assert!(inner.len <= bytes.len());
            }
        }

        #[test]
        fn the_sum_is_that_of_single_words(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut plain = 0u64;
            for pair in bytes.chunks(2) {
                plain += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
            prop_assert_eq!(fold(words_sum(&bytes)), fold(plain));
        }
    }
}
