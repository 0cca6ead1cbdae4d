//! Sessions that follow one another: how many there are, what the old ones still carry, and beginning anew.

use wireguard::{MessageType, constants::REKEY_AFTER_TIME};

use crate::{
    network::{ALICE, BOB, Network},
    node::{millis, number_of, secs},
};

/// Makes Alice rekey, with a packet that has `number`.
fn rekey(network: &mut Network, number: u64) {
    network.run_for(REKEY_AFTER_TIME);
    network.send(ALICE, BOB, number);
    network.run_for(secs(1));
}

#[test]
fn packet_of_the_previous_session_is_still_delivered() {
    let mut network = Network::connected_pair();
    network.seen.clear();
    network.muted = vec![ALICE];
    network.send(ALICE, BOB, 7);
    let late = network.seen_of(ALICE, MessageType::Transport)[0].datagram.clone();
    network.muted.clear();
    let old_index = u32::from_le_bytes(late[4..8].try_into().expect("four bytes"));
    rekey(&mut network, 8);
    let bob_of_alice = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    let current = network.nodes[ALICE].current_session(bob_of_alice).expect("there is a session");
    assert_ne!(current.remote_index(), old_index, "there is a newer session");

    let (from, to) = (network.nodes[ALICE].address, network.nodes[BOB].address);
    network.inject(network.time, from, to, late);
    network.run_for(millis(10));
    let numbers: Vec<_> =
        network.nodes[BOB].delivered.iter().map(|packet| number_of(&packet.packet)).collect();
    assert_eq!(numbers, [8, 7]);
}

#[test]
fn peer_never_has_more_than_three_sessions() {
    let mut network = Network::connected_pair();
    for number in 0..5 {
        rekey(&mut network, number);
    }
    assert_eq!(network.nodes[ALICE].session_count(), 2, "current and previous");
    assert_eq!(network.nodes[BOB].session_count(), 2, "current and previous");

    // Responses that never arrive: each replaces the one before, and takes the previous session along.
    network.muted = vec![BOB];
    network.run_for(REKEY_AFTER_TIME);
    network.send(ALICE, BOB, 6);
    network.run_for(secs(30));
    assert!(network.seen_of(BOB, MessageType::HandshakeResponse).len() >= 9, "five handshakes, then retries");
    assert_eq!(network.nodes[BOB].session_count(), 2, "current and next");
}

#[test]
fn packet_after_giving_up_starts_anew_and_older_ones_are_gone() {
    let mut network = Network::pair();
    network.muted = vec![ALICE];
    network.send(ALICE, BOB, 1);
    network.run_for(secs(200));
    assert_eq!(network.nodes[ALICE].device.counters().handshakes_given_up, 1);
    network.muted.clear();
    network.run_for(secs(60));
    assert!(network.nodes[BOB].delivered.is_empty(), "what was given up stays given up");
    network.send(ALICE, BOB, 2);
    network.run_for(secs(1));
    let numbers: Vec<_> =
        network.nodes[BOB].delivered.iter().map(|packet| number_of(&packet.packet)).collect();
    assert_eq!(numbers, [2]);
}

#[test]
fn response_counts_as_a_handshake_sent() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    network.run_for(millis(15));
    assert_eq!(network.seen_of(BOB, MessageType::HandshakeResponse).len(), 1);
    // The confirmation is lost, so Bob has nothing to send with.
    network.muted = vec![ALICE];
    network.send(BOB, ALICE, 2);
    network.run_for(millis(4_990));
    assert!(network.seen_of(BOB, MessageType::HandshakeInitiation).is_empty(), "within five seconds");
    network.run_for(millis(400));
    assert_eq!(network.seen_of(BOB, MessageType::HandshakeInitiation).len(), 1);
}
