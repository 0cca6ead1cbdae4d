//! Known answers that a backend must give before it may touch a packet.

use crate::{KEY_LEN, Key, Packet, TAG_LEN};

/// A backend gave a wrong answer: it must not be used on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "AEAD backend {backend} fails its self-test: {check} (packet of {text_len} bytes); choose another backend"
)]
pub struct SelfTestError {
    /// Name of the backend.
    pub backend: &'static str,
    /// What was wrong.
    pub check: &'static str,
    /// Length in bytes of the plaintext at fault.
    pub text_len: usize,
}

/// Lengths around every block boundary and of typical packets, with the tag each must get. The tags were computed
/// with an independent implementation (OpenSSL's, through Python's `cryptography`) from the inputs of [`Case`].
#[rustfmt::skip]
const ANSWERS: [(usize, u128); 13] = [
    (0, 0xa97b_399e_3c58_9d46_631f_eaaf_00e9_2fa3),
    (1, 0xabc9_d013_acee_aaaf_c484_a5b9_c822_3b6a),
    (15, 0x4856_3a72_ae61_f7c7_6eb0_4cd6_73ce_9d94),
    (16, 0xfa19_28eb_4482_08d1_638a_1f90_ed53_cc66),
    (17, 0x586d_1f89_11ed_78d9_8952_0c88_a224_f73a),
    (63, 0x490c_db79_8830_75ec_7d47_050f_915f_62f9),
    (64, 0x23be_f745_5b7d_1f82_7996_98bc_1a6b_9d35),
    (65, 0x8468_fa7e_ca2d_9682_654c_3369_fa84_54e9),
    (208, 0xaeeb_40dd_74cf_29be_6b38_3168_e683_2989),
    (512, 0xbc6e_1215_4e44_bb7c_72db_1d6f_05b8_7f03),
    (1200, 0xc72b_985d_a3c6_335e_605e_e342_3daa_db6b),
    (1424, 0x5c8e_2a68_8ab7_7863_13d2_2296_b799_4242),
    (2048, 0xe443_3357_72bb_d27b_316d_4a83_26a6_61b1),
];

/// The RFC 8439 key stream of the all-zero key and nonce from block 1 on (appendix A.1, test vector 2).
#[rustfmt::skip]
const ZERO_KEY_STREAM: [u8; 64] = [
    0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a, 0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08, 0x0d,
    0xcb, 0x0f, 0x29, 0xa0, 0x48, 0xe3, 0x65, 0x69, 0x12, 0xc6, 0x53, 0x3e, 0x32, 0xee, 0x7a, 0xed,
    0x29, 0xb7, 0x21, 0x76, 0x9c, 0xe6, 0x4e, 0x43, 0xd5, 0x71, 0x33, 0xb0, 0x74, 0xd8, 0x39, 0xd5,
    0x31, 0xed, 0x1f, 0x28, 0x51, 0x0a, 0xfb, 0x45, 0xac, 0xe1, 0x0a, 0x1f, 0x4b, 0x79, 0x4d, 0x6f,
];

/// The inputs of one known answer: any fixed, uneven pattern does.
struct Case {
    key: Key,
    counter: u64,
    text: Vec<u8>,
    tag: [u8; TAG_LEN],
}

impl Case {
    fn new(index: usize, (text_len, tag): (usize, u128)) -> Self {
        let key: [u8; KEY_LEN] = std::array::from_fn(|at| (index * 37 + at * 11) as u8);
        Self {
            key: Key::new(&key),
            counter: (index as u64).wrapping_mul(0x0123_4567_89ab_cdef),
            text: (0..text_len).map(|at| (index * 29 + at * 7 + at / 256) as u8).collect(),
            tag: tag.to_be_bytes(),
        }
    }

    fn packet<'a>(&'a self, buffer: &'a mut [u8]) -> Packet<'a> {
        Packet { key: &self.key, counter: self.counter, buffer }
    }
}

/// Runs all checks against a backend's two functions.
pub(crate) fn run(
    backend: &'static str,
    seal: impl Fn(&mut [Packet<'_>]) -> usize,
    open: impl Fn(&mut [Packet<'_>], &mut [bool]),
) -> Result<(), SelfTestError> {
    let wrong = |check, text_len| SelfTestError { backend, check, text_len };

    let mut stream = [0; ZERO_KEY_STREAM.len() + TAG_LEN];
    seal(&mut [Packet { key: &Key::new(&[0; KEY_LEN]), counter: 0, buffer: &mut stream }]);
    if stream[..ZERO_KEY_STREAM.len()] != ZERO_KEY_STREAM {
        return Err(wrong("key stream differs from RFC 8439", ZERO_KEY_STREAM.len()));
    }

    let cases: Vec<Case> =
        ANSWERS.into_iter().enumerate().map(|(index, answer)| Case::new(index, answer)).collect();
    // A backend may treat packets differently by how many there are and how unequal: a few of all lengths, more than
    // one pass takes of all lengths, and full passes of one length each.
    let every_case = || 0..cases.len();
    check_batch(&every_case().collect::<Vec<_>>(), &cases, &seal, &open)
        .map_err(|(check, at)| wrong(check, at))?;
    let thrice: Vec<usize> = every_case().chain(every_case().rev()).chain(every_case()).collect();
    check_batch(&thrice, &cases, &seal, &open).map_err(|(check, at)| wrong(check, at))?;
    for index in every_case() {
        check_batch(&[index; 33], &cases, &seal, &open).map_err(|(check, at)| wrong(check, at))?;
    }
    Ok(())
}

/// Seals the cases that `chosen` lists, then opens them with every other one damaged. Fails with what is wrong and the
/// length of the text.
fn check_batch(
    chosen: &[usize],
    cases: &[Case],
    seal: impl Fn(&mut [Packet<'_>]) -> usize,
    open: impl Fn(&mut [Packet<'_>], &mut [bool]),
) -> Result<(), (&'static str, usize)> {
    let chosen: Vec<&Case> = chosen.iter().map(|index| &cases[*index]).collect();
    let mut buffers: Vec<Vec<u8>> =
        chosen.iter().map(|case| [case.text.as_slice(), &[0; TAG_LEN]].concat()).collect();

    if seal(&mut batch(&chosen, &mut buffers)) != chosen.len() {
        return Err(("a packet was not sealed", 0));
    }
    for (case, buffer) in chosen.iter().zip(&buffers) {
        if !buffer.ends_with(&case.tag) {
            return Err(("tag differs from the known answer", case.text.len()));
        }
    }

    // Every other packet is damaged, alternately in its first byte (ciphertext, or tag if empty) and in its last.
    for (index, buffer) in buffers.iter_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
        let at = if index % 4 == 0 { 0 } else { buffer.len() - 1 };
        buffer[at] ^= 0x80;
    }
    let mut authentic = vec![false; chosen.len()];
    open(&mut batch(&chosen, &mut buffers), &mut authentic);
    for (index, (case, buffer)) in chosen.iter().zip(&buffers).enumerate() {
        let text_len = case.text.len();
        match (index % 2 == 0, authentic[index]) {
            (true, true) => return Err(("a forged packet was accepted", text_len)),
            (false, false) => return Err(("an authentic packet was refused", text_len)),
            (true, false) if buffer.iter().any(|&byte| byte != 0) => {
                return Err(("a forged packet was not wiped", text_len));
            }
            (false, true) if buffer[..text_len] != case.text => {
                return Err(("a packet did not decrypt to its plaintext", text_len));
            }
            _ => {}
        }
    }
    Ok(())
}

fn batch<'a>(cases: &[&'a Case], buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    cases.iter().zip(buffers).map(|(case, buffer)| case.packet(buffer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    const GOOD: Backend = Backend::Portable;

    fn failed_check(
        seal: impl Fn(&mut [Packet<'_>]) -> usize,
        open: impl Fn(&mut [Packet<'_>], &mut [bool]),
    ) -> &'static str {
        run("broken", seal, open).expect_err("the backend is broken").check
    }

    #[test]
    fn every_backend_passes() {
        for backend in Backend::available() {
            let result =
                run(backend.name(), |batch| backend.seal(batch), |batch, to| backend.open(batch, to));
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn backend_that_does_not_encrypt_fails() {
        let check = failed_check(|batch| batch.len(), |batch, to| GOOD.open(batch, to));
        assert_eq!(check, "key stream differs from RFC 8439");
    }

    #[test]
    fn backend_with_one_wrong_tag_fails() {
        let seal = |batch: &mut [Packet<'_>]| {
            let sealed_count = GOOD.seal(batch);
            if let Some(last) = batch.get_mut(12).and_then(|packet| packet.buffer.last_mut()) {
                *last ^= 1;
            }
            sealed_count
        };
        assert_eq!(failed_check(seal, |batch, to| GOOD.open(batch, to)), "tag differs from the known answer");
    }

    #[test]
    fn backend_that_fails_only_in_a_full_pass_of_equal_lengths_fails() {
        let seal = |batch: &mut [Packet<'_>]| {
            let sealed_count = GOOD.seal(batch);
            if batch.len() > 16 && batch.iter().all(|packet| packet.buffer.len() == 208 + TAG_LEN) {
                batch[16].buffer[208] ^= 1;
            }
            sealed_count
        };
        assert_eq!(failed_check(seal, |batch, to| GOOD.open(batch, to)), "tag differs from the known answer");
    }

    #[test]
    fn backend_that_accepts_forgeries_fails() {
        let open = |batch: &mut [Packet<'_>], authentic: &mut [bool]| {
            GOOD.open(batch, authentic);
            authentic.fill(true);
        };
        assert_eq!(failed_check(|batch| GOOD.seal(batch), open), "a forged packet was accepted");
    }

    #[test]
    fn backend_that_refuses_everything_fails() {
        let open = |batch: &mut [Packet<'_>], authentic: &mut [bool]| {
            for packet in batch.iter_mut() {
                packet.buffer.fill(0);
            }
            authentic.fill(false);
        };
        assert_eq!(failed_check(|batch| GOOD.seal(batch), open), "an authentic packet was refused");
    }

    #[test]
    fn backend_that_leaves_forgeries_in_place_fails() {
        let open = |batch: &mut [Packet<'_>], authentic: &mut [bool]| {
            GOOD.open(batch, authentic);
            for (packet, _) in batch.iter_mut().zip(authentic).filter(|(_, authentic)| !**authentic) {
                packet.buffer.fill(1);
            }
        };
        assert_eq!(failed_check(|batch| GOOD.seal(batch), open), "a forged packet was not wiped");
    }
}
