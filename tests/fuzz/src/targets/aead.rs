//! Batches of packets against another implementation of ChaCha20-Poly1305, for every backend.

use std::sync::LazyLock;

use aead::{Aead, Key, Packet, TAG_LEN};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use wireguard::nonce;

use crate::input::Input;

static BACKENDS: LazyLock<Vec<Aead>> =
    LazyLock::new(|| Aead::names().filter_map(|name| Aead::by_name(name).ok()).collect());

struct Plain {
    key: [u8; 32],
    counter: u64,
    text: Vec<u8>,
    /// What is done to the sealed packet on its way.
    damage: Option<(usize, u8)>,
}

impl Plain {
    fn read(input: &mut Input) -> Self {
        let text = input.bytes(600).to_vec();
        let damage = (input.below(3) == 0).then(|| (input.below(text.len() + TAG_LEN), input.value()));
        Self { key: [input.value(); 32], counter: input.value(), text, damage }
    }

    fn sealed(&self) -> Vec<u8> {
        let mut buffer = self.text.clone();
        let tag = ChaCha20Poly1305::new(&self.key.into())
            .encrypt_inout_detached(&nonce(self.counter).into(), &[], buffer.as_mut_slice().into())
            .expect("a packet is short");
        buffer.extend_from_slice(&tag);
        buffer
    }
}

/// Seals a batch, damages some of it, and opens it, with each backend.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut batch = Vec::new();
    while batch.len() < 40 && input.has_step() {
        batch.push(Plain::read(&mut input));
    }
    let short = input.bytes(TAG_LEN - 1);
    for aead in &*BACKENDS {
        check(*aead, &batch, short);
    }
}

fn packets<'a>(keys: &'a [Key], batch: &[Plain], buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    let batch = keys.iter().zip(batch).zip(buffers);
    batch.map(|((key, plain), buffer)| Packet { key, counter: plain.counter, buffer }).collect()
}

fn check(aead: Aead, batch: &[Plain], short: &[u8]) {
    let keys: Vec<Key> = batch.iter().map(|plain| Key::new(&plain.key)).collect();
    let mut buffers: Vec<Vec<u8>> =
        batch.iter().map(|plain| [plain.text.as_slice(), &[0xee; TAG_LEN]].concat()).collect();
    assert_eq!(aead.seal(&mut packets(&keys, batch, &mut buffers)), batch.len());
    for (plain, buffer) in batch.iter().zip(&mut buffers) {
        assert_eq!(*buffer, plain.sealed(), "{} seals {} bytes wrong", aead.name(), plain.text.len());
        if let Some((place, flip)) = plain.damage {
            buffer[place] ^= flip;
        }
    }
    let mut authentic = vec![true; 3];
    aead.open(&mut packets(&keys, batch, &mut buffers), &mut authentic);
    assert_eq!(authentic.len(), batch.len());
    for ((plain, buffer), authentic) in batch.iter().zip(&buffers).zip(authentic) {
        let is_damaged = plain.damage.is_some_and(|(_, flip)| flip != 0);
        assert_eq!(authentic, !is_damaged, "{}", aead.name());
        if authentic {
            assert_eq!(buffer[..plain.text.len()], plain.text, "{}", aead.name());
        } else {
            assert!(buffer.iter().all(|byte| *byte == 0), "{} gives away what is forged", aead.name());
        }
    }
    let mut buffer = short.to_vec();
    let key = Key::new(&[1; 32]);
    let mut authentic = Vec::new();
    aead.open(&mut [Packet { key: &key, counter: 0, buffer: &mut buffer }], &mut authentic);
    assert_eq!(authentic, [false], "{} bytes hold no tag", short.len());
}
