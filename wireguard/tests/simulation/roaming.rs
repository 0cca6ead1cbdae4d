//! Roaming: the endpoint follows every authenticated packet, and nothing else.

use std::net::SocketAddr;

use wireguard::{DropReason, Endpoint, MessageType};

use crate::{
    network::{ALICE, BOB, Network},
    node::{millis, now, packet, secs},
};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn replies_follow_a_client_that_moves() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    for (number, moved) in ["198.51.100.7:9997", "[2001:db8::7]:1"].into_iter().enumerate() {
        network.nodes[ALICE].address = address(moved);
        network.send(ALICE, BOB, number as u64);
        network.run_for(secs(1));
        assert_eq!(network.nodes[BOB].endpoints[&peer].remote, address(moved));
        network.send(BOB, ALICE, number as u64);
        network.run_for(secs(1));
        assert_eq!(network.nodes[ALICE].delivered.len(), number + 1);
    }
    let status = network.nodes[BOB].device.peer(peer).expect("the peer is known");
    assert_eq!(status.endpoint.map(|endpoint| endpoint.remote), Some(address("[2001:db8::7]:1")));
}

#[test]
fn keepalive_and_handshake_roam_too() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    network.send(BOB, ALICE, 1);
    network.run_for(secs(1));
    network.nodes[ALICE].address = address("198.51.100.7:1");
    network.run_for(secs(10));
    assert_eq!(network.keepalives(ALICE).len(), 1);
    assert_eq!(network.nodes[BOB].endpoints[&peer].remote, address("198.51.100.7:1"));

    network.nodes[ALICE].address = address("198.51.100.7:2");
    network.run_for(secs(200));
    network.send(ALICE, BOB, 2);
    network.run_for(millis(15));
    assert_eq!(network.nodes[BOB].endpoints[&peer].remote, address("198.51.100.7:2"), "by the initiation");

    let bob = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    network.nodes[BOB].address = address("192.0.2.2:4444");
    network.run_for(millis(5));
    assert_eq!(
        network.nodes[ALICE].endpoints[&bob].remote,
        address("192.0.2.2:51820"),
        "sent before it moved"
    );
}

#[test]
fn packet_with_a_foreign_inner_source_roams_but_is_not_delivered() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    network.nodes[ALICE].address = address("192.0.2.1:9997");
    let spoofed = packet([10, 9, 9, 9].into(), network.nodes[BOB].inner_address, 100, 1);
    let time = network.time;
    network.nodes[ALICE].send(&spoofed, time);
    network.run_for(secs(1));
    assert!(network.nodes[BOB].delivered.is_empty());
    assert_eq!(network.nodes[BOB].endpoints[&peer].remote, address("192.0.2.1:9997"));
}

#[test]
fn forged_and_replayed_packets_do_not_roam() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    let before = network.nodes[BOB].endpoints[&peer];
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    let replayed = network.seen_of(ALICE, MessageType::Transport)[0].datagram.clone();
    let mut forged = replayed.clone();
    forged[20] ^= 1;
    let attacker = address("203.0.113.66:666");
    let time = network.time;
    network.nodes[BOB].receive(&replayed, attacker, time);
    network.nodes[BOB].receive(&forged, attacker, time);
    assert_eq!(network.nodes[BOB].drops, [DropReason::CounterReplayed, DropReason::AuthenticationFailed]);
    assert_eq!(network.nodes[BOB].endpoints[&peer], before);
}

#[test]
fn local_address_is_remembered_until_handshakes_go_unanswered() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    let local = network.nodes[BOB].endpoints[&peer].local.expect("Bob knows what Alice sent to");
    assert_eq!(local.ip, network.nodes[BOB].address.ip());
    network.run_for(secs(200));
    network.muted = vec![BOB];
    network.send(BOB, ALICE, 1);
    network.run_for(secs(4));
    assert!(network.nodes[BOB].endpoints[&peer].local.is_some(), "the first try keeps it");
    network.run_for(secs(2));
    assert_eq!(network.nodes[BOB].endpoints[&peer].local, None, "the retry lets the kernel choose");
}

#[test]
fn event_of_a_removed_session_is_ignored() {
    let mut network = Network::connected_pair();
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    let local_index = network.nodes[BOB].current_session(peer).expect("a session").local_index();
    network.run_for(secs(600));
    let endpoint = Endpoint::from(address("203.0.113.66:666"));
    let time = now(network.time);
    let device = &mut network.nodes[BOB].device;
    for event in [
        wireguard::SessionEvent::Roamed { local_index, endpoint },
        wireguard::SessionEvent::Confirmed { local_index },
        wireguard::SessionEvent::RekeyOnSend { local_index },
        wireguard::SessionEvent::RekeyOnReceive { local_index },
        wireguard::SessionEvent::Activity { peer: wireguard::PeerId(77) },
    ] {
        device.session_event(event, time);
    }
    assert!(device.poll_output().is_none());
}

#[test]
fn local_address_is_forgotten_when_port_or_mark_change() {
    let mut network = Network::connected_pair();
    let bob = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    let before = network.nodes[ALICE].endpoints[&bob];
    assert!(before.local.is_some());
    let time = network.time;
    network.nodes[ALICE].device.forget_local_addresses();
    network.nodes[ALICE].drain(time);
    assert_eq!(network.nodes[ALICE].endpoints[&bob], Endpoint { local: None, ..before });
}
