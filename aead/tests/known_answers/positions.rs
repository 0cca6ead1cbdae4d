//! A packet at every position of a batch, among packets of other lengths and keys.

use aead::{Aead, Key, Packet, TAG_LEN};

/// A group of sixteen lanes, and one packet more.
const BATCH_LEN: usize = 17;

/// Lengths around the packet's own and far from it, so that it is the longest, the shortest, or among its like.
fn filler_len(text_len: usize, position: usize, index: usize) -> usize {
    match (index + position) % 4 {
        0 => text_len,
        1 => text_len + 1 + index,
        2 => text_len.saturating_sub(1 + index),
        _ => index * 40,
    }
}

fn batch<'a>(
    key: &'a Key,
    counter: u64,
    filler_key: &'a Key,
    buffers: &'a mut [Vec<u8>],
    position: usize,
) -> Vec<Packet<'a>> {
    let buffers = buffers.iter_mut().enumerate();
    buffers
        .map(|(index, buffer)| {
            let (key, counter) = if index == position { (key, counter) } else { (filler_key, index as u64) };
            Packet { key, counter, buffer }
        })
        .collect()
}

/// Seals `text` at every position of a batch and gives each outcome to `check`; opened again, all must be as before.
pub fn seal_at_every_position(
    aead: Aead,
    key: &[u8; 32],
    counter: u64,
    text: &[u8],
    check: impl Fn(&[u8], usize),
) {
    let (key, filler_key) = (Key::new(key), Key::new(&[0x5a; 32]));
    for position in 0..BATCH_LEN {
        let texts: Vec<Vec<u8>> = (0..BATCH_LEN)
            .map(|index| {
                let filler = || vec![index as u8; filler_len(text.len(), position, index)];
                if index == position { text.to_vec() } else { filler() }
            })
            .collect();
        let mut buffers: Vec<Vec<u8>> =
            texts.iter().map(|text| [text.as_slice(), &[0xff; TAG_LEN]].concat()).collect();
        let sealed_count = aead.seal(&mut batch(&key, counter, &filler_key, &mut buffers, position));
        assert_eq!(sealed_count, BATCH_LEN);
        check(&buffers[position], position);

        let mut authentic = Vec::new();
        aead.open(&mut batch(&key, counter, &filler_key, &mut buffers, position), &mut authentic);
        assert_eq!(authentic, [true; BATCH_LEN], "{} at {position}", aead.name());
        for (text, buffer) in texts.iter().zip(&buffers) {
            assert_eq!(buffer[..text.len()], *text, "{} at {position}", aead.name());
        }
    }
}

/// Opens `sealed`, which is not authentic, at every position of a batch of authentic packets.
pub fn refuse_at_every_position(aead: Aead, key: &[u8; 32], counter: u64, sealed: &[u8]) {
    let (key, filler_key) = (Key::new(key), Key::new(&[0x5a; 32]));
    for position in 0..BATCH_LEN {
        let filler = |index| vec![index as u8; filler_len(sealed.len(), position, index) + TAG_LEN];
        let mut buffers: Vec<Vec<u8>> = (0..BATCH_LEN).map(filler).collect();
        aead.seal(&mut batch(&key, counter, &filler_key, &mut buffers, position));
        buffers[position] = sealed.to_vec();
        let mut authentic = Vec::new();
        aead.open(&mut batch(&key, counter, &filler_key, &mut buffers, position), &mut authentic);
        for (index, authentic) in authentic.into_iter().enumerate() {
            assert_eq!(authentic, index != position, "{}: packet {index} of {position}", aead.name());
        }
        assert!(buffers[position].iter().all(|byte| *byte == 0), "{} at {position}", aead.name());
    }
}
