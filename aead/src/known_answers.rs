//! The answers a backend must give before it is used. The tags were computed with the Python package
//! `cryptography` (OpenSSL), independent of every backend here: key `80 81 .. 9f`, plaintext byte `i` of a packet
//! of `n` bytes is `7 i + n`, nonce and additional data as the crate states.

use crate::{Aead, Key, Packet, TAG_LEN};

/// Plaintext length, counter, tag. The lengths cross every block boundary a kernel may treat apart.
const ANSWERS: [(usize, u64, &str); 7] = [
    (0, 0, "3ae5d3f2a376d317eaea5aef0215ba54"),
    (1, 1, "4df6c71bc8df0f57033a1a7289e52747"),
    (63, 2, "15cbe750cd1683564b2c2973a5741496"),
    (64, 1 << 32, "211c4fde10e9ca40826e88bdbd64aab5"),
    (65, (1 << 40) + 7, "df34a1a7a4c889a98e6e0b1e191f152b"),
    (208, 3, "59d2799725d5769ebb81733014e7aca1"),
    (1424, 1 << 60, "8c91374a89a47db39420e6f2a5504a12"),
];

/// Whether `aead` seals all of them in one batch to the right tags, opens them again and refuses them forged.
pub(crate) fn hold(aead: Aead) -> bool {
    let key = Key::new(&std::array::from_fn(|i| 0x80 + i as u8));
    let mut buffers = ANSWERS.map(|(len, ..)| {
        let mut buffer = plaintext(len);
        buffer.resize(len + TAG_LEN, 0);
        buffer
    });
    aead.seal(&mut batch(&key, &mut buffers));
    let sealed_right = buffers.iter().zip(ANSWERS).all(|(buffer, (len, _, tag))| hex(&buffer[len..]) == tag);

    let mut forged = buffers.clone();
    for buffer in &mut forged {
        buffer[0] ^= 1;
    }
    let refused = aead.open(&mut batch(&key, &mut forged)).count() == 0;
    let opened = aead.open(&mut batch(&key, &mut buffers)).count() == ANSWERS.len();
    let opened_right = buffers.iter().zip(ANSWERS).all(|(buffer, (len, ..))| buffer[..len] == plaintext(len));
    sealed_right && refused && opened && opened_right
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + len) as u8).collect()
}

fn batch<'a>(key: &'a Key, buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    buffers.iter_mut().zip(ANSWERS).map(|(buffer, (_, counter, _))| Packet { key, counter, buffer }).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
