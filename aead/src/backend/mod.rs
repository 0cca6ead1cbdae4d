//! The implementations behind [`Aead`](crate::Aead), and the one `match` per batch that picks among them.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod aws_lc;
mod portable;

use zeroize::Zeroize;

use crate::{Key, Packet, TAG_LEN};

/// Which implementation to run. A plain enum: dispatch is one predictable branch per batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Features),
    AwsLc,
    Portable,
}

/// Name of the backend that seals several packets in one pass.
const AVX512: &str = "avx512-ifma";

impl Backend {
    /// Every backend this processor can run, fastest first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = avx512::Features::detect().map(Self::Avx512);
        #[cfg(not(target_arch = "x86_64"))]
        let wide = None;
        wide.into_iter().chain([Self::AwsLc, Self::Portable])
    }

    /// What a processor needs for the backend called `name`, if there is one that some processors cannot run.
    pub(crate) fn needs(name: &str) -> Option<&'static str> {
        (name == AVX512).then_some("x86-64 with AVX-512 F, BW, DQ, VL, IFMA and VBMI2, and BMI2")
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => AVX512,
            Self::AwsLc => "aws-lc-rs",
            Self::Portable => "portable",
        }
    }

    /// See [`Aead::seal`](crate::Aead::seal).
    pub(crate) fn seal(self, batch: &mut [Packet<'_>]) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(features) => avx512::seal(features, batch),
            Self::AwsLc => seal_each(batch, aws_lc::seal),
            Self::Portable => seal_each(batch, portable::seal),
        }
    }

    /// See [`Aead::open`](crate::Aead::open); `authentic` is as long as `batch`.
    pub(crate) fn open(self, batch: &mut [Packet<'_>], authentic: &mut [bool]) {
        debug_assert_eq!(batch.len(), authentic.len());
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(features) => avx512::open(features, batch, authentic),
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
    batch.iter_mut().map(|packet| seal_one(packet, &seal)).filter(|sealed| *sealed).count()
}

/// Whether the packet was sealed; if not, it was wiped.
#[inline]
fn seal_one(
    Packet { key, counter, buffer }: &mut Packet<'_>,
    seal: impl Fn(&Key, [u8; 12], &mut [u8]) -> Option<[u8; TAG_LEN]>,
) -> bool {
    let sealed = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .and_then(|(text, tag_room)| seal(key, nonce(*counter), text).map(|tag| *tag_room = tag));
    if sealed.is_none() {
        buffer.zeroize();
    }
    sealed.is_some()
}

/// Opens one packet after the other with a backend that takes them singly.
#[inline]
fn open_each(
    batch: &mut [Packet<'_>],
    authentic: &mut [bool],
    open: impl Fn(&Key, [u8; 12], &mut [u8], &[u8; TAG_LEN]) -> bool,
) {
    for (packet, authentic) in batch.iter_mut().zip(authentic) {
        *authentic = open_one(packet, &open);
    }
}

/// Whether the packet is authentic; if not, it was wiped.
#[inline]
fn open_one(
    Packet { key, counter, buffer }: &mut Packet<'_>,
    open: impl Fn(&Key, [u8; 12], &mut [u8], &[u8; TAG_LEN]) -> bool,
) -> bool {
    let authentic = buffer
        .split_last_chunk_mut::<TAG_LEN>()
        .is_some_and(|(text, tag)| open(key, nonce(*counter), text, tag));
    if !authentic {
        buffer.zeroize();
    }
    authentic
}
