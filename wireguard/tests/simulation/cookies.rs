//! Cookie replies: what an initiator does with one.

use blake2::{
    Blake2sMac,
    digest::{FixedOutput, KeyInit, Update, consts::U16},
};
use wireguard::{DropReason, MessageType, cookie::ReceiverKeys};
use zerocopy::IntoBytes;

use crate::{
    network::{ALICE, BOB, Network},
    node::secs,
};

const COOKIE: [u8; 16] = [0xc0; 16];

/// A cookie reply of Bob's to a message of Alice's.
fn reply_to(network: &Network, message: &[u8]) -> Vec<u8> {
    let keys = ReceiverKeys::new(&network.nodes[BOB].public_key());
    let sender_index = u32::from_le_bytes(message[4..8].try_into().expect("four bytes"));
    let mac1 = message[116..132].try_into().expect("16 bytes");
    keys.seal_cookie(&COOKIE, [0x24; 24], mac1, sender_index).as_bytes().to_vec()
}

#[test]
fn cookie_makes_mac2_of_the_retransmit() {
    let mut network = Network::pair();
    network.muted = vec![ALICE];
    network.send(ALICE, BOB, 1);
    let first = network.seen[0].datagram.clone();
    assert_eq!(first[132..], [0; 16]);
    let peer = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    let before = network.nodes[ALICE].endpoints[&peer];
    let reply = reply_to(&network, &first);
    let (elsewhere, to) = ("203.0.113.1:1".parse().expect("an address"), network.nodes[ALICE].address);
    network.inject(network.time, elsewhere, to, reply.clone());
    network.run_for(secs(4));
    assert_eq!(network.seen.len(), 1, "a cookie causes no packet");
    assert_eq!(network.nodes[ALICE].endpoints[&peer], before, "and no roaming");
    assert_eq!(network.nodes[ALICE].device.counters().cookies_received, 1);

    network.run_for(secs(2));
    let retransmits = network.seen_of(ALICE, MessageType::HandshakeInitiation);
    let retransmit = &retransmits[1].datagram;
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&COOKIE).expect("16 bytes");
    mac.update(&retransmit[..132]);
    assert_eq!(retransmit[132..], <[u8; 16]>::from(mac.finalize_fixed()));

    // The index of the first try is gone, and the cookie was taken already.
    let to = network.nodes[ALICE].address;
    network.inject(network.time, elsewhere, to, reply);
    network.run_for(secs(1));
    assert_eq!(network.nodes[ALICE].drops, [DropReason::UnknownIndex]);
}

#[test]
fn cookie_for_another_message_is_refused() {
    let mut network = Network::pair();
    network.muted = vec![ALICE];
    network.send(ALICE, BOB, 1);
    let mut other = network.seen[0].datagram.clone();
    other[116] ^= 1;
    let reply = reply_to(&network, &other);
    let (from, to) = (network.nodes[BOB].address, network.nodes[ALICE].address);
    network.inject(network.time, from, to, reply);
    network.run_for(secs(6));
    assert_eq!(network.nodes[ALICE].drops, [DropReason::AuthenticationFailed]);
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation)[1].datagram[132..], [0; 16]);
}
