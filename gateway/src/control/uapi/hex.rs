//! Keys as 64 hexadecimal digits, without a copy that outlives its use.

use std::fmt;

use wireguard::KEY_LEN;
use zeroize::Zeroizing;

/// Digits of a key.
pub const KEY_DIGITS: usize = 2 * KEY_LEN;

/// Decodes exactly 64 hexadecimal digits of either case.
pub fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let digits = text.as_bytes();
    if digits.len() != KEY_DIGITS {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|value| value as u8)
}

/// Writes `key` as 64 lower-case digits.
///
/// # Errors
/// Those of `out`.
pub fn write_key(out: &mut impl fmt::Write, key: &[u8; KEY_LEN]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Zeroizing::new([0; KEY_DIGITS]);
    for (pair, byte) in text.chunks_exact_mut(2).zip(key) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    // Digits are text, so this is always `Ok`.
    str::from_utf8(&*text).map_or(Err(fmt::Error), |text| out.write_str(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_in_lower_case() {
        let upper = "0123456789ABCDEF".repeat(4);
        let key = decode_key(&upper).unwrap();
        let mut text = String::new();
        write_key(&mut text, &key).unwrap();
        assert_eq!(text, upper.to_ascii_lowercase());
    }

    #[test]
    fn what_is_not_64_digits_is_no_key() {
        for text in [String::new(), "0".repeat(63), "0".repeat(65), "g".repeat(64), "é".repeat(32)] {
            assert!(decode_key(&text).is_none(), "{text}");
        }
    }
}
