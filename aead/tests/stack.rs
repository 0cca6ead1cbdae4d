//! What the vector backend leaves on the stack: none of what is secret about a packet.
//!
//! The memory below the caller's frame is read through `/proc/self/mem` right after a batch, on a thread of its own per
//! batch. What to look for is computed by another implementation afterwards, and elsewhere.

use std::{
    collections::HashMap,
    env,
    fs::{File, OpenOptions},
    hint::black_box,
    io::Write as _,
    os::unix::fs::FileExt as _,
    thread,
};

use aead::{Aead, Key, Packet, TAG_LEN};
use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};

/// How far below the frame is searched: more than any kernel uses, in debug builds too.
const SEARCHED: usize = 256 << 10;

/// Lengths of the texts of a batch, all of which are worth a pass of the vector backend.
fn batches() -> Vec<Vec<usize>> {
    let mixed = [1424, 1200, 512, 208, 64, 700];
    vec![
        vec![1228; 64],
        (0..64).map(|at| mixed[at % mixed.len()]).collect(),
        vec![0; 20],
        vec![1228; 16],
        vec![1424; 9],
        vec![208; 5],
        vec![64; 4],
    ]
}

/// Packets with a key and a text of their own each.
struct Batch {
    keys: Vec<[u8; 32]>,
    texts: Vec<Vec<u8>>,
}

impl Batch {
    fn new(lens: &[usize], seed: u64) -> Self {
        let mut stream = ChaCha20::new(&[1; 32].into(), &nonce(seed).into());
        let mut random = |len| {
            let mut bytes = vec![0; len];
            stream.apply_keystream(&mut bytes);
            bytes
        };
        let keys = lens.iter().map(|_| random(32).try_into().expect("32 bytes")).collect();
        let texts = lens.iter().map(|len| random(*len)).collect();
        Self { keys, texts }
    }

    /// Everything that must not be found, eight bytes at a time.
    fn secrets(&self) -> HashMap<u64, &'static str> {
        let mut secrets = HashMap::new();
        let word = |key: &[u8; 32], at: usize| u32::from_le_bytes(key.as_chunks().0[at]);
        for (packet, key) in self.keys.iter().enumerate() {
            let mut blocks = [0; 128];
            ChaCha20::new(key.into(), &nonce(packet as u64).into()).apply_keystream(&mut blocks);
            let words: Vec<u64> = blocks.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let r = [words[0] & 0x0fff_fffc_0fff_ffff, words[1] & 0x0fff_fffc_0fff_fffc];
            let first = limbs(u128::from(r[0]) | u128::from(r[1]) << 64);
            let mut power = first;
            for name in ["r", "r^2", "r^3", "r^4"] {
                let times_20 = power.map(|limb| limb * 20);
                secrets.extend(power.into_iter().chain(times_20).map(|limb| (limb, name)));
                power = product(&power, &first);
            }
            secrets.extend(words[2..4].iter().map(|word| (*word, "s")));
            let text_words = self.texts[packet].len().min(64) / 8;
            secrets.extend(words[8..8 + text_words].iter().map(|word| (*word, "key stream")));
            secrets.extend(key.as_chunks().0.iter().map(|word| (u64::from_le_bytes(*word), "key")));
            // Words of neighbours side by side, as the cipher has them.
            if let Some(next) = self.keys.get(packet + 1) {
                let pair = |at| u64::from(word(key, at)) | u64::from(word(next, at)) << 32;
                secrets.extend((0..8).map(|at| (pair(at), "key words")));
            }
        }
        secrets.remove(&0);
        secrets
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

const MASK_44: u128 = (1 << 44) - 1;

/// A number below 2^128 in radix 2^44, as the kernels have it.
fn limbs(number: u128) -> [u64; 3] {
    [number & MASK_44, number >> 44 & MASK_44, number >> 88].map(|limb| limb as u64)
}

/// Modulo 2^130 - 5: what is above 2^132 comes back times 20, and what is above 2^130 times 5.
fn product(a: &[u64; 3], b: &[u64; 3]) -> [u64; 3] {
    let term = |i: usize, j: usize| u128::from(a[i]) * u128::from(b[j]);
    let mut sums = [
        term(0, 0) + 20 * (term(1, 2) + term(2, 1)),
        term(0, 1) + term(1, 0) + 20 * term(2, 2),
        term(0, 2) + term(1, 1) + term(2, 0),
    ];
    for _ in 0..3 {
        sums[1] += sums[0] >> 44;
        sums[0] &= MASK_44;
        sums[2] += sums[1] >> 44;
        sums[1] &= MASK_44;
        sums[0] += 5 * (sums[2] >> 42);
        sums[2] &= (1 << 42) - 1;
    }
    sums.map(|limb| limb as u64)
}

/// What lies below the frame of `work`'s caller when it is done, on a thread of its own.
fn stack_below(work: impl FnOnce() + Send) -> Vec<u64> {
    let memory = File::open("/proc/self/mem").expect("a process can read its own memory");
    let mut below = vec![0; SEARCHED];
    thread::scope(|scope| {
        let seen = thread::Builder::new().stack_size(8 * SEARCHED).spawn_scoped(scope, || {
            let frame = 0_u8;
            let end = black_box(&raw const frame).addr();
            work();
            memory.read_exact_at(&mut below, (end - SEARCHED) as u64).expect("the stack is mapped");
        });
        seen.expect("a thread").join().expect("it does not panic");
    });
    // Whatever the frame's alignment, vectors on the stack are aligned to their length, and so are their words.
    (0..8).flat_map(|from| below[from..].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))).collect()
}

fn found(stack: &[u64], secrets: &HashMap<u64, &'static str>) -> Vec<&'static str> {
    let mut found: Vec<&str> = stack.iter().filter_map(|word| secrets.get(word).copied()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn vector_backend(test: &str) -> Option<Aead> {
    let aead = Aead::by_name("avx512-ifma");
    let Err(error) = aead else { return aead.ok() };
    let line = format!("skipped: {test}: {error}\n");
    eprint!("{line}");
    if let Some(path) = env::var_os("WGX_TEST_LOG") {
        let log = OpenOptions::new().append(true).create(true).open(path);
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("WGX_TEST_LOG can be written");
    }
    None
}

#[test]
fn no_key_power_or_key_stream_is_left_on_the_stack() {
    let Some(aead) = vector_backend("no_key_power_or_key_stream_is_left_on_the_stack") else { return };
    for (seed, lens) in (0..).zip(batches()) {
        for is_forged in [false, true] {
            let batch = Batch::new(&lens, seed * 2 + u64::from(is_forged));
            let keys: Vec<Key> = batch.keys.iter().map(Key::new).collect();
            let mut buffers: Vec<Vec<u8>> =
                batch.texts.iter().map(|text| [text.as_slice(), &[0; TAG_LEN]].concat()).collect();
            let mut packets: Vec<Packet<'_>> = (0..)
                .zip(keys.iter().zip(&mut buffers))
                .map(|(counter, (key, buffer))| Packet { key, counter, buffer })
                .collect();
            let mut authentic = Vec::with_capacity(lens.len());

            let after_sealing = stack_below(|| assert_eq!(aead.seal(&mut packets), lens.len()));
            if is_forged {
                *packets[1].buffer.last_mut().expect("a tag") ^= 1;
            }
            let after_opening = stack_below(|| aead.open(&mut packets, &mut authentic));
            assert_eq!(authentic.iter().filter(|authentic| !**authentic).count(), usize::from(is_forged));

            let secrets = batch.secrets();
            let left = (found(&after_sealing, &secrets), found(&after_opening, &secrets));
            assert_eq!(
                left,
                (vec![], vec![]),
                "after sealing and opening {} of {:?}",
                lens.len(),
                &lens[..4]
            );
        }
    }
}

#[test]
fn a_secret_that_is_left_is_found() {
    #[inline(never)]
    fn careless(key: &[u8; 32]) {
        black_box([*key; 64]);
    }
    let batch = Batch::new(&[64; 2], 99);
    let stack = stack_below(|| careless(&batch.keys[0]));
    assert_eq!(found(&stack, &batch.secrets()), ["key"]);
}
