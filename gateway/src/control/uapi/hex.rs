//! Keys as 64 hexadecimal digits, without a copy that outlives its use.

use std::fmt;

use wireguard::KEY_LEN;
use zeroize::Zeroizing;

/// Decodes exactly 64 hexadecimal digits of either case.
pub fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_LEN {
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
    key.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}
