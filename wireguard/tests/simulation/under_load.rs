//! Under load: who gets a cookie, who gets in, and when it is over (paper section 5.3, kernel `receive.c`).

use std::net::SocketAddr;

use wireguard::{Admitted, DropReason, Endpoint, MessageType, Time, constants::UNDER_LOAD_QUEUED};

use crate::{
    network::{ALICE, BOB, Network},
    node::{Node, START, millis, secs},
};

/// Alice's initiation, with a cookie in its mac2 if she was given one by Bob before.
fn initiation(network: &mut Network) -> Vec<u8> {
    network.send(ALICE, BOB, 1);
    network.seen_of(ALICE, MessageType::HandshakeInitiation).last().expect("she initiates").datagram.clone()
}

/// What Bob does with a datagram while `queued` wait: `Ok(true)` for in, `Ok(false)` for a cookie.
fn admit(
    bob: &Node,
    datagram: &[u8],
    source: SocketAddr,
    queued: usize,
    time: Time,
) -> Result<bool, DropReason> {
    let admitted = bob.device.admission().admit(datagram, Endpoint::from(source), queued, time)?;
    if let Admitted::Reply(reply) = &admitted {
        assert_eq!(MessageType::classify(reply), Ok(MessageType::CookieReply));
        assert_eq!(reply[4..8], datagram[4..8], "the reply is for the sender's index");
    }
    Ok(matches!(admitted, Admitted::Message(_)))
}

/// An initiation without and one with Bob's cookie for Alice's address, made at about the time of the network.
fn with_and_without_cookie() -> (Network, Vec<u8>, Vec<u8>) {
    let mut network = Network::pair();
    network.nodes[BOB].queued = UNDER_LOAD_QUEUED;
    let without = initiation(&mut network);
    network.run_for(secs(1));
    network.muted = vec![ALICE];
    network.run_for(secs(5));
    let initiations = network.seen_of(ALICE, MessageType::HandshakeInitiation);
    assert_eq!(initiations.len(), 2, "the cookie itself causes no packet");
    let with = initiations[1].datagram.clone();
    assert_eq!(without[132..], [0; 16]);
    assert_ne!(with[132..], [0; 16]);
    (network, without, with)
}

#[test]
fn admission_follows_the_decision_table() {
    let (network, without, with) = with_and_without_cookie();
    let (bob, alice, time) = (&network.nodes[BOB], network.nodes[ALICE].address, network.time + secs(2));
    let spoilt = |datagram: &[u8], byte: usize| {
        let mut spoilt = datagram.to_vec();
        spoilt[byte] ^= 1;
        spoilt
    };
    let (idle, load) = (0, UNDER_LOAD_QUEUED);
    let later = time + secs(10);
    // Idle cases first: load lingers.
    let table = [
        ("idle, bad mac1", idle, spoilt(&without, 120), time, Err(DropReason::InvalidMac1)),
        ("idle, no mac2", idle, without.clone(), time, Ok(true)),
        ("idle, bad mac2", idle, spoilt(&with, 140), time, Ok(true)),
        ("idle, good mac2", idle, with.clone(), time, Ok(true)),
        ("one below load", load - 1, without.clone(), time, Ok(true)),
        ("load, bad mac1", load, spoilt(&without, 120), later, Err(DropReason::InvalidMac1)),
        ("load, bad mac1 and good mac2", load, spoilt(&with, 60), later, Err(DropReason::InvalidMac1)),
        ("load, no mac2", load, without.clone(), later, Ok(false)),
        ("load, bad mac2", load, spoilt(&with, 140), later, Ok(false)),
        ("load, good mac2", load, with.clone(), later, Ok(true)),
    ];
    for (case, queued, datagram, time, expected) in table {
        assert_eq!(admit(bob, &datagram, alice, queued, time), expected, "{case}");
    }
    // Four more make the burst of five, the sixth is too much.
    for message in 2..=5 {
        assert_eq!(admit(bob, &with, alice, load, later), Ok(true), "message {message}");
    }
    assert_eq!(admit(bob, &with, alice, load, later), Err(DropReason::RateLimited));
    assert_eq!(admit(bob, &with, alice, load, later + millis(50)), Ok(true));
    assert_eq!(bob.device.counters().dropped(DropReason::RateLimited), 1);
}

#[test]
fn cookie_of_another_address_or_port_is_none() {
    let (network, _, with) = with_and_without_cookie();
    let (bob, time) = (&network.nodes[BOB], network.time);
    let [other_address, other_port] =
        ["198.51.100.9:51820", "192.0.2.1:51821"].map(|text| text.parse().expect("an address"));
    assert_eq!(admit(bob, &with, other_address, UNDER_LOAD_QUEUED, time), Ok(false));
    assert_eq!(admit(bob, &with, other_port, UNDER_LOAD_QUEUED, time), Ok(false));
    assert_eq!(admit(bob, &with, network.nodes[ALICE].address, UNDER_LOAD_QUEUED, time), Ok(true));
}

#[test]
fn cookie_is_worth_nothing_after_its_secret_has_changed() {
    let (network, _, with) = with_and_without_cookie();
    let (bob, alice) = (&network.nodes[BOB], network.nodes[ALICE].address);
    assert_eq!(admit(bob, &with, alice, UNDER_LOAD_QUEUED, START + secs(119)), Ok(true));
    assert_eq!(admit(bob, &with, alice, UNDER_LOAD_QUEUED, START + secs(121)), Ok(false));
}

#[test]
fn load_is_over_one_second_after_the_queue_was_long() {
    let (network, without, _) = with_and_without_cookie();
    let (bob, alice, time) = (&network.nodes[BOB], network.nodes[ALICE].address, network.time);
    assert_eq!(admit(bob, &without, alice, UNDER_LOAD_QUEUED, time), Ok(false));
    assert_eq!(admit(bob, &without, alice, 0, time + millis(999)), Ok(false));
    assert!(bob.device.admission().is_under_load(time + millis(999)));
    assert_eq!(admit(bob, &without, alice, 0, time + secs(1)), Ok(true));
    assert!(!bob.device.admission().is_under_load(time + secs(1)));
}

#[test]
fn handshake_completes_through_load_on_the_second_try() {
    let mut network = Network::pair();
    network.nodes[BOB].queued = UNDER_LOAD_QUEUED;
    network.send(ALICE, BOB, 7);
    network.run_for(secs(4));
    assert!(network.nodes[BOB].delivered.is_empty());
    let replies = network.seen_of(BOB, MessageType::CookieReply);
    assert_eq!((replies.len(), replies[0].tos), (1, 0));
    network.run_for(secs(2));
    assert_eq!(network.nodes[BOB].delivered.len(), 1);
    let counters = network.nodes[BOB].device.counters();
    assert_eq!((counters.cookies_sent, counters.initiations_received), (1, 1));
    assert_eq!(network.nodes[ALICE].device.counters().cookies_received, 1);
}

#[test]
fn loaded_initiator_answers_a_response_with_a_cookie() {
    let mut network = Network::pair();
    network.nodes[ALICE].queued = UNDER_LOAD_QUEUED;
    network.send(ALICE, BOB, 7);
    network.run_for(secs(1));
    assert_eq!(network.seen_of(ALICE, MessageType::CookieReply).len(), 1);
    assert_eq!(network.nodes[BOB].device.counters().cookies_received, 1);
    assert!(network.nodes[BOB].delivered.is_empty());
    // The next response carries the cookie.
    network.run_for(secs(5));
    assert_eq!(network.nodes[BOB].delivered.len(), 1);
    let responses = network.seen_of(BOB, MessageType::HandshakeResponse);
    assert_eq!(responses[0].datagram[76..], [0; 16]);
    assert_ne!(responses[1].datagram[76..], [0; 16]);
}

#[test]
fn cookie_replies_are_taken_under_load() {
    let mut network = Network::pair();
    for node in &mut network.nodes {
        node.queued = UNDER_LOAD_QUEUED;
    }
    network.send(ALICE, BOB, 7);
    network.run_for(secs(12));
    assert_eq!(network.nodes[BOB].delivered.len(), 1, "both sides ask for cookies, and both get in");
}

#[test]
fn flood_of_garbage_is_dropped_without_an_answer_even_under_load() {
    let mut network = Network::pair();
    network.nodes[BOB].queued = UNDER_LOAD_QUEUED;
    network.muted = vec![ALICE];
    let template = initiation(&mut network);
    let (from, to) = ("203.0.113.1:1".parse().expect("an address"), network.nodes[BOB].address);
    network.seen.clear();
    for byte in 0..132 {
        let mut garbage = template.clone();
        garbage[byte] ^= 0x40;
        network.inject(network.time, from, to, garbage);
    }
    network.run_for(secs(1));
    assert!(network.seen.iter().all(|seen| seen.from != BOB));
}
