//! Inner IP packets: what a gateway writes into them. Reading them is [`gateway_ebpf::parse::ip`].

use gateway_ebpf::parse::Ip;

/// The ECN field, the low two bits of the traffic class (RFC 3168).
const ECN_MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Takes one from the TTL or hop limit of a packet that [`gateway_ebpf::parse::ip`] accepted and whose TTL is above 0.
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
pub fn decapsulate_ecn(outer_ecn: u8, inner: &Ip, packet: &mut [u8]) -> bool {
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
    use gateway_ebpf::parse::ip;
    use proptest::prelude::*;

    /// An IPv4 header of a 20-byte packet with a right checksum.
    fn ipv4(traffic_class: u8, ttl: u8) -> Vec<u8> {
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
                let inner = ip(&packet).unwrap();
                let kept = decapsulate_ecn(outer, &inner, &mut packet);
                assert_eq!(kept, result.is_some(), "outer {outer:02b} inner {inner_ecn:02b}");
                if let Some(result) = result {
                    assert_eq!(ip(&packet).unwrap().tos, 0xb8 | result);
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

            let inner = ip(&packet).unwrap();
            let _ = decapsulate_ecn(outer_ecn, &inner, &mut packet);
            decrement_ttl(&mut packet);
            prop_assert_eq!(fold(words_sum(&packet)), 0xffff);
            prop_assert_eq!(packet[8], ttl - 1);
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
