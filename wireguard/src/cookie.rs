//! mac1, mac2 and cookies (paper sections 5.4.4 and 5.4.7): proof of knowing a key, and of owning an address.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use subtle::ConstantTimeEq;
use zerocopy::byteorder::little_endian::U32;
use zeroize::Zeroizing;

use crate::{
    constants::{COOKIE_LIFETIME, LABEL_COOKIE, LABEL_MAC1, TAG_LEN},
    drop_reason::DropReason,
    keys::PublicKey,
    message::{CookieReply, TYPE_COOKIE_REPLY},
    noise::kdf::{hash, mac},
    time::Time,
};

/// Bytes of a cookie, of mac1 and of mac2.
pub const MAC_LEN: usize = 16;

/// The two keys that follow from a receiver's static public key. No secrets: whoever knows the public key has them.
#[derive(Clone)]
pub struct ReceiverKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl ReceiverKeys {
    /// The keys of messages to, and cookie replies from, the owner of `public_key`.
    pub fn new(public_key: &PublicKey) -> Self {
        Self {
            mac1: hash(&[LABEL_MAC1, public_key.as_bytes()]),
            cookie: hash(&[LABEL_COOKIE, public_key.as_bytes()]),
        }
    }

    /// Whether mac1 of a whole handshake message is right; the cheapest check there is.
    pub fn verify_mac1(&self, datagram: &[u8]) -> bool {
        let Some((body, macs)) = datagram.split_last_chunk::<{ 2 * MAC_LEN }>() else {
            return false;
        };
        mac(&self.mac1, &[body]).ct_eq(&macs[..MAC_LEN]).into()
    }

    /// Fills in mac1 of a whole handshake message to the owner of these keys; shorter datagrams are left alone.
    pub fn write_mac1(&self, datagram: &mut [u8]) {
        if let Some((body, macs)) = datagram.split_last_chunk_mut::<{ 2 * MAC_LEN }>() {
            macs[..MAC_LEN].copy_from_slice(&mac(&self.mac1, &[body]));
        }
    }

    /// Seals `cookie` for the sender of a message with `mac1` and sender index `receiver_index`.
    /// `nonce` must be random; 24 bytes make repeats improbable.
    pub fn seal_cookie(
        &self,
        cookie: &[u8; MAC_LEN],
        nonce: [u8; 24],
        mac1: &[u8; MAC_LEN],
        receiver_index: u32,
    ) -> CookieReply {
        let mut encrypted_cookie = [0; MAC_LEN + TAG_LEN];
        let (body, tag) = encrypted_cookie.split_at_mut(MAC_LEN);
        body.copy_from_slice(cookie);
        let computed = XChaCha20Poly1305::new((&self.cookie).into())
            .encrypt_inout_detached(&nonce.into(), mac1, body.into())
            .expect("a cookie is short");
        tag.copy_from_slice(&computed);
        CookieReply {
            message_type: U32::new(TYPE_COOKIE_REPLY),
            receiver_index: U32::new(receiver_index),
            nonce,
            encrypted_cookie,
        }
    }

    fn open_cookie(&self, reply: &CookieReply, mac1: &[u8; MAC_LEN]) -> Option<Zeroizing<[u8; MAC_LEN]>> {
        let (body, tag) = reply.encrypted_cookie.split_first_chunk::<MAC_LEN>()?;
        let tag: [u8; TAG_LEN] = tag.try_into().ok()?;
        let mut cookie = Zeroizing::new(*body);
        XChaCha20Poly1305::new((&self.cookie).into())
            .decrypt_inout_detached(&reply.nonce.into(), mac1, cookie.as_mut_slice().into(), &tag.into())
            .ok()?;
        Some(cookie)
    }
}

/// Whether mac2 of a whole handshake message was made with `cookie`.
pub(crate) fn verify_mac2(cookie: &[u8; MAC_LEN], datagram: &[u8]) -> bool {
    let Some((body, mac2)) = datagram.split_last_chunk::<MAC_LEN>() else {
        return false;
    };
    mac(cookie, &[body]).ct_eq(mac2).into()
}

/// What we remember of cookies from one peer.
#[derive(Default)]
pub(crate) struct CookieJar {
    /// mac1 of our last handshake message, while no cookie was received for it.
    unanswered_mac1: Option<[u8; MAC_LEN]>,
    cookie: Option<(Zeroizing<[u8; MAC_LEN]>, Time)>,
}

impl CookieJar {
    /// Fills in mac1, and mac2 if there is a fresh cookie, of a whole handshake message to the owner of `keys`.
    pub(crate) fn add_macs(&mut self, keys: &ReceiverKeys, datagram: &mut [u8], now: Time) {
        let Some((body, macs)) = datagram.split_last_chunk_mut::<{ 2 * MAC_LEN }>() else {
            return;
        };
        let mac1 = mac(&keys.mac1, &[body]);
        self.cookie.take_if(|(_, received_at)| now.saturating_since(*received_at) >= COOKIE_LIFETIME);
        let mac2 = match &self.cookie {
            Some((cookie, _)) => mac(cookie.as_slice(), &[body, &mac1]),
            None => [0; MAC_LEN],
        };
        macs[..MAC_LEN].copy_from_slice(&mac1);
        macs[MAC_LEN..].copy_from_slice(&mac2);
        self.unanswered_mac1 = Some(mac1);
    }

    /// Takes a cookie for the next messages.
    pub(crate) fn consume(
        &mut self,
        keys: &ReceiverKeys,
        reply: &CookieReply,
        now: Time,
    ) -> Result<(), DropReason> {
        let mac1 = self.unanswered_mac1.ok_or(DropReason::UnexpectedCookie)?;
        let cookie = keys.open_cookie(reply, &mac1).ok_or(DropReason::AuthenticationFailed)?;
        self.cookie = Some((cookie, now));
        self.unanswered_mac1 = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_vectors::hex;

    fn message() -> Vec<u8> {
        (0..148).map(|byte| byte as u8).collect()
    }

    #[test]
    fn mac1_is_keyed_by_the_receivers_public_key() {
        let keys = ReceiverKeys::new(&PublicKey::from_bytes([1; 32]));
        let mut datagram = message();
        CookieJar::default().add_macs(&keys, &mut datagram, Time(0));
        assert!(keys.verify_mac1(&datagram));
        assert_eq!(datagram[132..], [0; 16], "no cookie, no mac2");
        assert!(!ReceiverKeys::new(&PublicKey::from_bytes([2; 32])).verify_mac1(&datagram));
        datagram[0] ^= 1;
        assert!(!keys.verify_mac1(&datagram));
        assert!(!keys.verify_mac1(&[0; 31]));
    }

    /// An initiation that Linux made for the owner of this key (VPP's `test/test_wireguard.py`).
    #[test]
    fn mac1_is_that_of_linux() {
        let receiver = hex("691b871534f120221035e7e9d39a0a5a526fdf380ac5bf3e596ec924c8748f23");
        let initiation = hex(concat!(
            "0100000098b9032b55cc4b39e73c3d24a2a1ab884b524a811808bb86640fb70de93154fec1",
            "879125ab012624a27f0b75c0a2582f438ddb5f8e768af40b4ab44402f9ff473e1b797e80d3",
            "9d93c5480c82a3d4510f70396976586fb67300a5167bae6ca3ff3dfd00eb59be198810f5aa",
            "036abc243d2155ee4f2336483900aef80108752cd700000000000000000000000000000000",
        ));
        let keys = ReceiverKeys::new(&PublicKey::from_bytes(receiver.try_into().expect("32 bytes")));
        assert_eq!(initiation.len(), 148);
        assert!(keys.verify_mac1(&initiation));
        let mut made_by_us = initiation.clone();
        made_by_us[116..132].fill(0);
        keys.write_mac1(&mut made_by_us);
        assert_eq!(made_by_us, initiation);
    }

    #[test]
    fn cookie_makes_mac2_for_115_seconds() {
        let keys = ReceiverKeys::new(&PublicKey::from_bytes([1; 32]));
        let mut jar = CookieJar::default();
        let mut datagram = message();
        jar.add_macs(&keys, &mut datagram, Time(0));
        let mac1: [u8; 16] = datagram[116..132].try_into().expect("16 bytes");
        let cookie = [0x5a; 16];
        let reply = keys.seal_cookie(&cookie, [3; 24], &mac1, 7);
        let received_at = Time(1_000_000);
        assert_eq!(jar.consume(&keys, &reply, received_at), Ok(()));

        let mut young = message();
        jar.add_macs(&keys, &mut young, received_at + Duration::from_secs(114));
        assert_eq!(young[132..], mac(&cookie, &[&young[..132]]));
        let mut old = message();
        jar.add_macs(&keys, &mut old, received_at + COOKIE_LIFETIME);
        assert_eq!(old[132..], [0; 16]);
    }

    #[test]
    fn cookie_is_taken_once_and_only_for_the_last_mac1() {
        let keys = ReceiverKeys::new(&PublicKey::from_bytes([1; 32]));
        let mut jar = CookieJar::default();
        let reply = keys.seal_cookie(&[1; 16], [3; 24], &[9; 16], 7);
        assert_eq!(jar.consume(&keys, &reply, Time(0)), Err(DropReason::UnexpectedCookie));
        let mut datagram = message();
        jar.add_macs(&keys, &mut datagram, Time(0));
        assert_eq!(jar.consume(&keys, &reply, Time(0)), Err(DropReason::AuthenticationFailed));
        let mac1: [u8; 16] = datagram[116..132].try_into().expect("16 bytes");
        let reply = keys.seal_cookie(&[1; 16], [3; 24], &mac1, 7);
        assert_eq!(jar.consume(&keys, &reply, Time(0)), Ok(()));
        assert_eq!(jar.consume(&keys, &reply, Time(0)), Err(DropReason::UnexpectedCookie));
    }
}
