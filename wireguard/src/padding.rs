//! How far an inner packet is padded before it is sealed.

use crate::constants::PADDING_MULTIPLE;

/// Length of an inner packet of `inner_len` bytes after padding, for a tunnel of `mtu` bytes.
///
/// The next multiple of 16, but never beyond the MTU. A packet that is larger than the MTU is padded by the
/// rest of its length modulo the MTU, as the kernel's `calculate_skb_padding` does. An `mtu` of 0 means no limit.
pub const fn padded_len(inner_len: usize, mtu: usize) -> usize {
    if mtu == 0 {
        return inner_len.next_multiple_of(PADDING_MULTIPLE);
    }
    let last_unit_len = if inner_len > mtu { inner_len % mtu } else { inner_len };
    let padded_unit_len = last_unit_len.next_multiple_of(PADDING_MULTIPLE);
    let padded_unit_len = if padded_unit_len > mtu { mtu } else { padded_unit_len };
    inner_len + (padded_unit_len - last_unit_len)
}

#[cfg(test)]
mod tests {
    use super::padded_len;

    #[test]
    fn padding_follows_the_kernel() {
        let cases = [
            // (inner, mtu, padded)
            (0, 1420, 0),
            (1, 1420, 16),
            (16, 1420, 16),
            (17, 1420, 32),
            (84, 1420, 96),
            (1408, 1420, 1408),
            (1409, 1420, 1420),
            (1419, 1420, 1420),
            (1420, 1420, 1420),
            (1421, 1420, 1436),
            (1436, 1420, 1436),
            (1437, 1420, 1452),
            (2840, 1420, 2840),
            (2841, 1420, 2856),
            (2839, 1420, 2840),
            (1279, 1280, 1280),
            (1, 0, 16),
            (1500, 0, 1504),
            (10, 7, 14),
        ];
        for (inner_len, mtu, expected) in cases {
            assert_eq!(padded_len(inner_len, mtu), expected, "{inner_len} bytes, MTU {mtu}");
        }
    }

    #[test]
    fn padding_never_shrinks_nor_exceeds_fifteen_bytes() {
        for mtu in [1, 68, 576, 1280, 1420, 1500] {
            for inner_len in 0..4000 {
                let padded = padded_len(inner_len, mtu);
                assert!(padded >= inner_len && padded - inner_len < 16);
                assert!(inner_len > mtu || padded <= mtu);
            }
        }
    }
}
