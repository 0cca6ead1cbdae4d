//! mac1 and cookie replies: who does not know the key or has not seen the message has nothing to offer.

use wireguard::{PublicKey, cookie::ReceiverKeys};

use crate::input::Input;

/// Signs a message and damages it: the damage shows.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let keys = ReceiverKeys::new(&PublicKey::from_bytes([input.value(); 32]));
    let cookie = keys.seal_cookie(&input.value(), input.value(), &input.value(), input.value());
    assert_eq!(cookie.message_type.get(), 3);
    let mut datagram = input.bytes(200).to_vec();
    keys.write_mac1(&mut datagram);
    let is_long_enough = datagram.len() >= 32;
    assert_eq!(keys.verify_mac1(&datagram), is_long_enough, "{} bytes", datagram.len());
    if !is_long_enough {
        return;
    }
    let proven_len = datagram.len() - 16;
    let place = input.below(datagram.len());
    let flip: u8 = input.value();
    datagram[place] ^= flip;
    let is_unhurt = flip == 0 || place >= proven_len;
    assert_eq!(keys.verify_mac1(&datagram), is_unhurt, "byte {place} of {proven_len} flipped by {flip}");
}
