//! The implementations behind [`Aead`](crate::Aead), and the one `match` per batch that picks among them.

mod aws_lc;
mod portable;

use zeroize::Zeroize;

use crate::{Key, Packet, TAG_LEN};

/// Which implementation to run. A plain enum: dispatch is one predictable branch per batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    AwsLc,
    Portable,
}

impl Backend {
    /// Every backend this processor can run, fastest first.
    pub(crate) const ALL: [Self; 2] = [Self::AwsLc, Self::Portable];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::Portable => "portable",
        }
    }

    /// See [`Aead::seal`](crate::Aead::seal).
    pub(crate) fn seal(self, batch: &mut [Packet<'_>]) -> usize {
        match self {
            Self::AwsLc => seal_each(batch, aws_lc::seal),
            Self::Portable => seal_each(batch, portable::seal),
        }
    }

    /// See [`Aead::open`](crate::Aead::open); `authentic` is as long as `batch`.
    pub(crate) fn open(self, batch: &mut [Packet<'_>], authentic: &mut [bool]) {
        debug_assert_eq!(batch.len(), authentic.len());
        match self {
            Self::AwsLc => open_each(batch, authentic, aws_lc::open),
            Self::Portable => open_each(batch, authentic, portable::open),
        }
    }
}

/// The nonce of `WireGuard`'s transport data: 32 zero bits, then the little-endian counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Seals one packet after the other with a backend that takes them singly.
#[inline]
fn seal_each(
    batch: &mut [Packet<'_>],
    seal: impl Fn(&Key, [u8; 12], &mut [u8]) -> Option<[u8; TAG_LEN]>,
) -> usize {
    let mut sealed_count = 0;
    for Packet { key, counter, buffer } in batch {
        let sealed = buffer
            .split_last_chunk_mut::<TAG_LEN>()
            .and_then(|(text, tag_room)| seal(key, nonce(*counter), text).map(|tag| *tag_room = tag));
        if sealed.is_some() {
            sealed_count += 1;
        } else {
            buffer.zeroize();
        }
    }
    sealed_count
}

/// Opens one packet after the other with a backend that takes them singly.
#[inline]
fn open_each(
    batch: &mut [Packet<'_>],
    authentic: &mut [bool],
    open: impl Fn(&Key, [u8; 12], &mut [u8], &[u8; TAG_LEN]) -> bool,
) {
    for (Packet { key, counter, buffer }, authentic) in batch.iter_mut().zip(authentic) {
        *authentic = buffer
            .split_last_chunk_mut::<TAG_LEN>()
            .is_some_and(|(text, tag)| open(key, nonce(*counter), text, tag));
        if !*authentic {
            buffer.zeroize();
        }
    }
}
