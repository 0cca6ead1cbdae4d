//! Timers: rekeying, keepalives, retransmits and forgetting, to the second.

use std::time::Duration;

use wireguard::{MessageType, PeerChange, Time};

use crate::{
    network::{ALICE, BOB, LATENCY, Network, Seen},
    node::{millis, now, secs},
};

fn gaps(seen: &[&Seen]) -> Vec<Duration> {
    seen.windows(2).map(|pair| pair[1].at.saturating_since(pair[0].at)).collect()
}

/// Both sides send a packet every second; `None` would be sent by neither.
fn exchange(network: &mut Network, from: &[usize], rounds: u64) {
    for number in 0..rounds {
        for &from in from {
            network.send(from, 1 - from, number);
        }
        network.run_for(secs(1));
    }
}

#[test]
fn initiator_rekeys_every_120_seconds_for_hours_without_loss() {
    let mut network = Network::connected_pair();
    exchange(&mut network, &[ALICE, BOB], 3 * 3600);
    assert_eq!(network.nodes[ALICE].delivered.len(), 3 * 3600);
    assert_eq!(network.nodes[BOB].delivered.len(), 3 * 3600);
    assert!(network.nodes[ALICE].drops.is_empty() && network.nodes[BOB].drops.is_empty());
    assert!(network.seen_of(BOB, MessageType::HandshakeInitiation).is_empty(), "the responder never rekeys");
    let initiations = network.seen_of(ALICE, MessageType::HandshakeInitiation);
    assert!((88..=90).contains(&initiations.len()), "{} handshakes", initiations.len());
    for gap in gaps(&initiations) {
        assert!((secs(120)..secs(123)).contains(&gap), "{gap:?} between handshakes");
    }
    assert!(network.nodes[ALICE].session_count() <= 2 && network.nodes[BOB].session_count() <= 2);
}

#[test]
fn initiator_that_receives_after_165_seconds_rekeys_once() {
    let mut network = Network::connected_pair();
    network.run_for(millis(163_500));
    network.send(BOB, ALICE, 1);
    network.run_for(secs(1));
    assert!(network.seen_of(ALICE, MessageType::HandshakeInitiation).is_empty(), "not yet 165 s");
    network.run_for(millis(500));
    network.muted = vec![ALICE];
    exchange(&mut network, &[BOB], 3);
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation).len(), 1, "once, not per packet");
    network.muted.clear();
    exchange(&mut network, &[BOB], 20);
    assert_eq!(network.nodes[ALICE].delivered.len(), 24, "nothing was lost");
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation).len(), 2, "one retransmit");
    assert!(network.seen_of(BOB, MessageType::HandshakeInitiation).is_empty());
}

#[test]
fn session_of_180_seconds_carries_nothing_more() {
    let mut network = Network::connected_pair();
    network.muted = vec![ALICE];
    network.run_for(millis(178_900));
    network.send(BOB, ALICE, 1);
    network.run_for(millis(50));
    assert_eq!(network.nodes[ALICE].delivered.len(), 1, "younger than 180 s");
    network.run_for(millis(100));
    network.muted.clear();
    network.send(BOB, ALICE, 2);
    network.run_for(secs(1));
    assert_eq!(
        network.seen_of(BOB, MessageType::HandshakeInitiation).len(),
        1,
        "the responder initiates now"
    );
    assert_eq!(network.nodes[ALICE].delivered.len(), 2);
}

#[test]
fn silence_after_received_data_is_answered_after_10_seconds() {
    let mut network = Network::connected_pair();
    network.run_for(secs(30));
    network.seen.clear();
    let sent_at = network.time;
    network.send(ALICE, BOB, 1);
    network.run_for(secs(60));
    let keepalives = network.keepalives(BOB);
    assert_eq!(keepalives.len(), 1);
    assert_eq!(keepalives[0].at, sent_at + LATENCY + secs(10));
    assert!(network.keepalives(ALICE).is_empty(), "keepalives are not answered");
    assert!(network.seen_of(ALICE, MessageType::HandshakeInitiation).is_empty());
}

#[test]
fn data_after_the_first_deserves_another_keepalive() {
    let mut network = Network::connected_pair();
    network.run_for(secs(30));
    network.seen.clear();
    let sent_at = network.time;
    network.send(ALICE, BOB, 1);
    network.run_for(secs(4));
    network.send(ALICE, BOB, 2);
    network.run_for(secs(60));
    let times: Vec<Time> = network.keepalives(BOB).iter().map(|seen| seen.at).collect();
    assert_eq!(times, [sent_at + LATENCY + secs(10), sent_at + LATENCY + secs(20)]);
}

#[test]
fn steady_traffic_needs_no_keepalives() {
    let mut network = Network::connected_pair();
    exchange(&mut network, &[ALICE, BOB], 100);
    assert!(network.keepalives(ALICE).is_empty() && network.keepalives(BOB).is_empty());
}

#[test]
fn one_way_stream_is_acknowledged_every_10_seconds() {
    let mut network = Network::connected_pair();
    network.run_for(secs(30));
    network.seen.clear();
    exchange(&mut network, &[ALICE], 85);
    let keepalives = network.keepalives(BOB);
    assert_eq!(keepalives.len(), 8);
    assert!(gaps(&keepalives).iter().all(|&gap| gap == secs(10)), "{:?}", gaps(&keepalives));
    assert!(network.seen_of(ALICE, MessageType::HandshakeInitiation).is_empty());
}

#[test]
fn persistent_keepalive_starts_at_once_and_keeps_its_interval() {
    let mut network = Network::pair();
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.persistent_keepalive = Some(25);
    let time = network.time;
    network.nodes[ALICE].apply(change.clone(), time);
    network.run_for(millis(100));
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation).len(), 1, "sent at once");
    network.run_for(secs(110));
    let keepalives = network.keepalives(ALICE);
    assert_eq!(keepalives.len(), 5);
    assert!(gaps(&keepalives).iter().all(|&gap| gap == secs(25)), "{:?}", gaps(&keepalives));
    assert!(network.keepalives(BOB).is_empty());

    change.persistent_keepalive = Some(0);
    let time = network.time;
    network.nodes[ALICE].apply(change, time);
    network.seen.clear();
    network.run_for(secs(1000));
    assert!(network.seen.is_empty(), "switched off");
}

#[test]
fn any_packet_puts_the_persistent_keepalive_off() {
    let mut network = Network::connected_pair();
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.persistent_keepalive = Some(25);
    let time = network.time;
    network.nodes[ALICE].apply(change, time);
    network.run_for(secs(1));
    network.seen.clear();
    for number in 0..5 {
        network.send(ALICE, BOB, number);
        network.run_for(secs(9));
        network.send(BOB, ALICE, number);
        network.run_for(secs(9));
    }
    network.send(ALICE, BOB, 5);
    network.run_for(secs(24));
    assert!(network.keepalives(ALICE).is_empty(), "115 s without a pause of 25 s");
    network.run_for(secs(12));
    // Bob acknowledged Alice's last packet after 10 s: her interval counts from there.
    let acknowledged = network.keepalives(BOB).last().expect("a keepalive").at + LATENCY;
    assert_eq!(network.keepalives(ALICE)[0].at, acknowledged + secs(25));
}

#[test]
fn persistent_keepalive_works_for_hours_over_rekeys() {
    let mut network = Network::connected_pair();
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.persistent_keepalive = Some(25);
    let time = network.time;
    network.nodes[ALICE].apply(change, time);
    network.run_for(secs(2 * 3600));
    network.send(BOB, ALICE, 1);
    network.run_for(secs(1));
    assert_eq!(network.nodes[ALICE].delivered.len(), 1, "Bob can reach Alice at any time");
    assert!(network.seen_of(BOB, MessageType::HandshakeInitiation).is_empty());
}

#[test]
fn unanswered_data_starts_a_handshake_after_15_seconds_and_jitter() {
    let mut network = Network::connected_pair();
    network.run_for(secs(30));
    network.seen.clear();
    network.muted = vec![BOB];
    let sent_at = network.time;
    for number in 0..14 {
        network.send(ALICE, BOB, number);
        network.run_for(secs(1));
    }
    network.run_for(secs(3));
    let initiations = network.seen_of(ALICE, MessageType::HandshakeInitiation);
    let waited = initiations[0].at.saturating_since(sent_at);
    assert!((secs(15)..secs(15) + millis(334)).contains(&waited), "{waited:?}");
}

#[test]
fn unreachable_peer_gets_20_initiations_with_jitter_and_then_none() {
    let mut network = Network::pair();
    network.muted = vec![ALICE];
    network.send(ALICE, BOB, 1);
    network.run_for(secs(400));
    let initiations = network.seen_of(ALICE, MessageType::HandshakeInitiation);
    assert_eq!(initiations.len(), 20);
    let gaps = gaps(&initiations);
    assert!(gaps.iter().all(|gap| (secs(5)..secs(5) + millis(333)).contains(gap)), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "jitter differs");
    assert_eq!(network.nodes[ALICE].device.counters().handshakes_given_up, 1);
    assert_eq!(network.nodes[ALICE].device.counters().staged_dropped, 1);

    network.run_for(secs(400));
    assert_eq!(network.nodes[ALICE].device.next_timeout(), None, "all is forgotten after 540 s");
    network.muted.clear();
    network.send(ALICE, BOB, 2);
    network.run_for(secs(1));
    assert_eq!(network.nodes[BOB].delivered.len(), 1, "new data tries again");
}

#[test]
fn keys_are_erased_540_seconds_after_the_last_handshake() {
    let mut network = Network::connected_pair();
    network.run_for(secs(538));
    assert_eq!((network.nodes[ALICE].session_count(), network.nodes[BOB].session_count()), (1, 1));
    network.run_for(secs(3));
    assert_eq!((network.nodes[ALICE].session_count(), network.nodes[BOB].session_count()), (0, 0));
    assert_eq!(network.nodes[ALICE].device.next_timeout(), None);
    assert_eq!(network.nodes[BOB].device.next_timeout(), None);
}

#[test]
fn down_device_is_silent_and_keeps_no_keys() {
    let mut network = Network::connected_pair();
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.persistent_keepalive = Some(25);
    let time = network.time;
    network.nodes[ALICE].apply(change, time);
    network.run_for(secs(1));
    network.seen.clear();
    let time = network.now();
    network.nodes[ALICE].device.set_up(false, time);
    network.nodes[ALICE].drain(network.time);
    assert_eq!(network.nodes[ALICE].device.next_timeout(), None);
    assert_eq!(network.nodes[ALICE].session_count(), 0);
    network.send(ALICE, BOB, 1);
    network.run_for(secs(100));
    assert!(network.seen.iter().all(|seen| seen.from == BOB));
    assert_eq!(network.nodes[ALICE].device.counters().stage_refused, 1);

    let time = network.now();
    network.nodes[ALICE].device.set_up(true, time);
    network.nodes[ALICE].drain(network.time);
    network.run_for(secs(1));
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation).len(), 1, "keepalive on going up");
    assert_eq!(network.keepalives(ALICE).len(), 1);
    let time = network.time;
    network.nodes[ALICE].device.set_up(true, now(time));
    assert!(network.nodes[ALICE].device.poll_output().is_none(), "going up twice is nothing");
}

#[test]
fn key_set_while_up_starts_the_persistent_keepalive() {
    let mut network = Network::pair();
    let time = network.now();
    network.nodes[ALICE].device.set_private_key(None, time);
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.persistent_keepalive = Some(25);
    network.nodes[ALICE].apply(change, time.monotonic);
    network.run_for(secs(60));
    assert!(network.seen.is_empty(), "no key, no packet");
    let time = network.now();
    network.nodes[ALICE].device.set_private_key(Some(crate::node::private_key(1)), time);
    network.nodes[ALICE].drain(network.time);
    network.run_for(millis(100));
    assert_eq!(network.keepalives(ALICE).len(), 1);
    assert!(network.nodes[ALICE].device.peers().next().expect("one peer").tx_bytes > 0);
}
