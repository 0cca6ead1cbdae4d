//! mac1, mac2 and cookies (paper sections 5.4.4 and 5.4.7).

use anyhow::{Context, Result, anyhow, ensure};
use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{Mac as _, consts::U16},
};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead as _, KeyInit, Payload},
};

use super::layout::{self, COOKIE_REPLY, COOKIE_REPLY_LEN, MAC_LEN, SENDER_INDEX};

/// A cookie, mac1 or mac2.
pub type Mac = [u8; MAC_LEN];

/// BLAKE2s-256 of a label and a public key.
fn labelled(label: &[u8], public_key: &[u8; 32]) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(public_key).finalize().into()
}

/// Keyed BLAKE2s with 16 bytes of output.
fn mac(key: &[u8], message: &[u8]) -> Mac {
    <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(key)
        .expect("keys here have 16 or 32 bytes")
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

/// Appends mac1 for the owner of `receiver`, and mac2: of `cookie`, or zero.
pub fn append(message: &mut Vec<u8>, receiver: &[u8; 32], cookie: Option<&Mac>) {
    let mac1 = mac(&labelled(b"mac1----", receiver), message);
    message.extend(mac1);
    let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(cookie, message));
    message.extend(mac2);
}

/// Makes both macs right again after the message was changed.
pub fn renew(message: &mut Vec<u8>, receiver: &[u8; 32], cookie: Option<&Mac>) {
    message.truncate(message.len().saturating_sub(2 * MAC_LEN));
    append(message, receiver, cookie);
}

/// Whether mac1 of a message to the owner of `receiver` is right.
pub fn mac1_is_right(message: &[u8], receiver: &[u8; 32]) -> bool {
    let mut again = message.to_vec();
    renew(&mut again, receiver, None);
    layout::mac1(message).is_some() && layout::mac1(message) == layout::mac1(&again)
}

/// Whether mac2 of a message is made of `cookie`.
pub fn mac2_is_right(message: &[u8], cookie: &Mac) -> bool {
    let Some(body_len) = message.len().checked_sub(MAC_LEN) else { return false };
    message[body_len..] == mac(cookie, &message[..body_len])
}

/// A cookie reply of the owner of `sender` to `provoking`, a handshake message.
pub fn cookie_reply(sender: &[u8; 32], provoking: &[u8], cookie: &Mac) -> Result<Vec<u8>> {
    let mac1 = layout::mac1(provoking).context("the message has no mac1")?;
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|error| anyhow!("no random bytes: {error}"))?;
    let key = labelled(b"cookie--", sender);
    let sealed = <XChaCha20Poly1305 as KeyInit>::new(&key.into())
        .encrypt(&nonce.into(), Payload { msg: cookie, aad: &mac1 })
        .map_err(|_| anyhow!("a cookie cannot be sealed"))?;
    let mut reply = COOKIE_REPLY.to_le_bytes().to_vec();
    reply.extend(layout::number(provoking, SENDER_INDEX).to_le_bytes());
    reply.extend(nonce);
    reply.extend(sealed);
    Ok(reply)
}

/// The cookie in a reply of the owner of `sender` to our message `provoking`, all of it checked.
pub fn open_cookie_reply(sender: &[u8; 32], provoking: &[u8], reply: &[u8]) -> Result<Mac> {
    ensure!(reply.len() == COOKIE_REPLY_LEN, "a cookie reply of {} bytes", reply.len());
    ensure!(layout::kind(reply) == COOKIE_REPLY, "type {:#x} is no cookie reply", layout::kind(reply));
    let (ours, named) = (layout::number(provoking, SENDER_INDEX), layout::number(reply, SENDER_INDEX));
    ensure!(ours == named, "the cookie reply is for index {named:#x}, not for our {ours:#x}");
    let mac1 = layout::mac1(provoking).context("our message has no mac1")?;
    let nonce: [u8; 24] = reply[8..32].try_into().context("the nonce")?;
    let key = labelled(b"cookie--", sender);
    let cookie = <XChaCha20Poly1305 as KeyInit>::new(&key.into())
        .decrypt(&nonce.into(), Payload { msg: &reply[32..], aad: &mac1 })
        .map_err(|_| anyhow!("the cookie is not sealed with our mac1 as associated data"))?;
    cookie.try_into().map_err(|_| anyhow!("a cookie has 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_reply_opens_only_for_the_message_that_provoked_it() {
        let (sender, cookie) = ([3; 32], [9; MAC_LEN]);
        let mut provoking = vec![7; 116];
        append(&mut provoking, &sender, None);
        let reply = cookie_reply(&sender, &provoking, &cookie).unwrap();
        assert_eq!(open_cookie_reply(&sender, &provoking, &reply).unwrap(), cookie);
        // The same index, but another mac1.
        provoking[20] ^= 1;
        renew(&mut provoking, &sender, None);
        assert!(open_cookie_reply(&sender, &provoking, &reply).is_err());
    }

    #[test]
    fn macs_cover_the_message_and_each_other() {
        let (receiver, cookie) = ([3; 32], [9; MAC_LEN]);
        let mut message = vec![1, 2, 3];
        append(&mut message, &receiver, Some(&cookie));
        assert!(mac1_is_right(&message, &receiver) && mac2_is_right(&message, &cookie));
        assert!(!mac1_is_right(&message, &[4; 32]) && !mac2_is_right(&message, &[8; MAC_LEN]));
        message[0] ^= 1;
        assert!(!mac1_is_right(&message, &receiver) && !mac2_is_right(&message, &cookie));
    }
}
