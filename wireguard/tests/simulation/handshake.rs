//! Handshakes: who gets one, what goes over the wire, and what does not.

use wireguard::{
    DropReason, Endpoint, MessageType, PeerChange, PresharedKey, PrivateKey, PublicKey, Time,
    constants::STAGED_PACKETS_MAX,
};

use crate::{
    network::{ALICE, BOB, Network},
    node::{Node, START, is_keepalive, kind, millis, now, number_of, packet, secs},
};

#[test]
fn one_handshake_carries_data_both_ways() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    network.send(BOB, ALICE, 2);
    network.run_for(secs(1));
    assert_eq!(number_of(&network.nodes[BOB].delivered[0].packet), 1);
    assert_eq!(number_of(&network.nodes[ALICE].delivered[0].packet), 2);
    let kinds: Vec<_> = network.seen.iter().map(|seen| (seen.from, kind(&seen.datagram), seen.tos)).collect();
    assert_eq!(
        kinds,
        [
            (ALICE, MessageType::HandshakeInitiation, 0x88),
            (BOB, MessageType::HandshakeResponse, 0x88),
            (ALICE, MessageType::Transport, 0),
            (BOB, MessageType::Transport, 0),
        ]
    );
}

/// The exact check of the kernel's netns.sh: 10 pings of 84 bytes.
#[test]
fn byte_counts_cover_handshakes_and_padding() {
    let mut network = Network::pair();
    for number in 0..10 {
        network.send_packet(ALICE, BOB, 84, number);
        network.run_for(millis(100));
        network.send_packet(BOB, ALICE, 84, number);
        network.run_for(millis(100));
    }
    let alice = network.nodes[ALICE].device.peers().next().expect("one peer");
    let bob = network.nodes[BOB].device.peers().next().expect("one peer");
    assert_eq!((alice.rx_bytes, alice.tx_bytes), (1372, 1428));
    assert_eq!((bob.rx_bytes, bob.tx_bytes), (1428, 1372));
    assert!(alice.last_handshake.is_some() && bob.last_handshake.is_some());
}

#[test]
fn ecn_is_copied_out_and_dscp_is_not() {
    let mut network = Network::connected_pair();
    let mut inner = packet(network.nodes[ALICE].inner_address, network.nodes[BOB].inner_address, 100, 7);
    inner[1] = 0b1011_1011;
    let time = network.time;
    let peer = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    network.nodes[ALICE].device.stage(peer, inner, now(time));
    network.nodes[ALICE].drain(network.time);
    assert_eq!(network.nodes[ALICE].outbox[0].tos, 0b11);
}

#[test]
fn initiator_with_nothing_to_send_confirms_with_a_keepalive() {
    let mut network = Network::pair();
    let mut change = network.nodes[BOB].introduction(true);
    change.persistent_keepalive = Some(600);
    network.nodes[ALICE].apply(change, START);
    network.run_for(secs(1));
    assert_eq!(network.keepalives(ALICE).len(), 1);
    let peer = network.nodes[BOB].peer(&network.nodes[ALICE].public_key());
    assert!(network.nodes[BOB].current_session(peer).is_some(), "the responder may send");
}

#[test]
fn responder_waits_for_confirmation_before_it_sends() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    // Response out, but Alice's confirmation gets lost.
    network.run_for(millis(15));
    network.muted = vec![ALICE];
    network.run_for(secs(1));
    network.send(BOB, ALICE, 2);
    network.run_for(secs(1));
    assert!(network.seen_of(BOB, MessageType::Transport).is_empty());
    network.muted.clear();
    network.send(ALICE, BOB, 3);
    network.run_for(secs(1));
    assert_eq!(number_of(&network.nodes[ALICE].delivered[0].packet), 2, "staged packets follow confirmation");
}

#[test]
fn lost_confirmation_does_not_strand_the_responders_packet() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    network.run_for(millis(15));
    network.muted = vec![ALICE];
    network.run_for(secs(1));
    network.send(BOB, ALICE, 2);
    network.muted.clear();
    network.run_for(secs(6));
    assert_eq!(network.nodes[ALICE].delivered.len(), 1, "Bob began a handshake of his own");
}

#[test]
fn simultaneous_initiations_both_succeed_at_once() {
    let mut network = Network::pair();
    let introduction = network.nodes[ALICE].introduction(true);
    network.nodes[BOB].apply(introduction, START);
    network.send(ALICE, BOB, 1);
    network.send(BOB, ALICE, 2);
    network.run_for(millis(100));
    assert_eq!(network.nodes[ALICE].delivered.len(), 1);
    assert_eq!(network.nodes[BOB].delivered.len(), 1);
    for number in 3..10 {
        network.send(ALICE, BOB, number);
        network.send(BOB, ALICE, number);
        network.run_for(secs(1));
    }
    assert_eq!(network.nodes[ALICE].delivered.len(), 8);
    assert_eq!(network.nodes[BOB].delivered.len(), 8);
    assert_eq!(network.seen_of(ALICE, MessageType::HandshakeInitiation).len(), 1);
    assert_eq!(network.seen_of(BOB, MessageType::HandshakeInitiation).len(), 1);
}

#[test]
fn differing_preshared_keys_carry_no_data() {
    let mut network = Network::pair();
    let key = PresharedKey::from_bytes([7; 32]);
    let mut change = PeerChange::new(network.nodes[BOB].public_key());
    change.preshared_key = Some(key.clone());
    network.nodes[ALICE].apply(change, START);
    network.send(ALICE, BOB, 1);
    network.run_for(secs(20));
    assert!(network.seen.iter().all(|seen| kind(&seen.datagram) != MessageType::Transport));
    assert!(network.nodes[ALICE].drops.iter().all(|&reason| reason == DropReason::AuthenticationFailed));
    assert!(!network.nodes[ALICE].drops.is_empty());

    let mut change = PeerChange::new(network.nodes[ALICE].public_key());
    change.preshared_key = Some(key);
    let time = network.time;
    network.nodes[BOB].apply(change, time);
    network.run_for(secs(10));
    assert_eq!(network.nodes[BOB].delivered.len(), 1, "equal keys reach the next handshake");
}

#[test]
fn replayed_initiation_is_refused() {
    let mut network = Network::connected_pair();
    let mut network_before = Network::pair();
    network_before.send(ALICE, BOB, 0);
    let initiation = network_before.seen[0].datagram.clone();
    // Both networks run on the same seeds, so this is the very initiation that Bob has accepted.
    let (from, to) = (network.nodes[ALICE].address, network.nodes[BOB].address);
    network.inject(network.time + secs(1), from, to, initiation);
    network.run_for(secs(2));
    assert_eq!(network.nodes[BOB].drops, [DropReason::InitiationReplayed]);
    assert!(network.seen.is_empty(), "nobody answers");
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    assert_eq!(network.nodes[BOB].delivered.len(), 1, "the session lives on");
}

/// An initiation of Alice's key, made at `time` by another device of hers.
fn initiation_at(time: Time, bob: &Node) -> Vec<u8> {
    let mut alice = Node::new(1);
    alice.apply(bob.introduction(true), time);
    let inner = packet(alice.inner_address, bob.inner_address, 100, 0);
    alice.send(&inner, time);
    alice.outbox.remove(0).datagram
}

#[test]
fn second_initiation_within_20_milliseconds_is_refused() {
    let mut network = Network::pair();
    let bob = network.node(BOB);
    let source = Endpoint::from("192.0.2.1:51820".parse::<std::net::SocketAddr>().expect("an address"));
    let first = initiation_at(START, bob);
    let second = initiation_at(START + millis(17), bob);
    let third = initiation_at(START + millis(40), bob);
    assert_eq!(bob.device.receive_handshake(&first, source, now(START)), Ok(()));
    let soon = bob.device.receive_handshake(&second, source, now(START + millis(17)));
    assert_eq!(soon, Err(DropReason::InitiationFlood));
    assert_eq!(bob.device.receive_handshake(&third, source, now(START + millis(40))), Ok(()));
    let stale = bob.device.receive_handshake(&second, source, now(START + millis(90)));
    assert_eq!(stale, Err(DropReason::InitiationReplayed));
    assert_eq!(bob.device.counters().dropped(DropReason::InitiationFlood), 1);
}

#[test]
fn stranger_gets_no_answer() {
    let mut network = Network::pair();
    let mut mallory = Node::new(3);
    mallory.apply(network.nodes[BOB].introduction(true), START);
    let inner = packet(mallory.inner_address, network.nodes[BOB].inner_address, 100, 0);
    mallory.send(&inner, START);
    network.nodes.push(mallory);
    network.run_for(secs(1));
    assert_eq!(network.nodes[BOB].drops, [DropReason::UnknownPeer]);
    assert!(network.seen.iter().all(|seen| seen.from != BOB));
}

#[test]
fn wrong_mac1_is_refused_before_anything_else() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 0);
    let good = network.seen[0].datagram.clone();
    let source = Endpoint::from(network.nodes[ALICE].address);
    for byte in [4, 8, 40, 100, 116, 131] {
        let mut forged = good.clone();
        forged[byte] ^= 1;
        let verdict = network.nodes[BOB].device.receive_handshake(&forged, source, now(START));
        assert_eq!(verdict, Err(DropReason::InvalidMac1), "byte {byte}");
    }
    assert!(network.nodes[BOB].device.poll_output().is_none());
    assert_eq!(network.nodes[BOB].device.receive_handshake(&good, source, now(START)), Ok(()));
}

#[test]
fn malformed_and_misplaced_datagrams_are_refused() {
    let mut network = Network::connected_pair();
    let source = Endpoint::from(network.nodes[ALICE].address);
    let time = network.now();
    let device = &mut network.nodes[BOB].device;
    for len in 0..200 {
        for message_type in 0..6_u8 {
            let mut datagram = vec![0x5a; len];
            for (place, byte) in datagram.iter_mut().zip([message_type, 0, 0, 0]) {
                *place = byte;
            }
            assert!(
                device.receive_handshake(&datagram, source, time).is_err(),
                "{message_type}, {len} bytes"
            );
        }
    }
    assert!(device.poll_output().is_none());
}

#[test]
fn forged_response_leaves_the_handshake_alive() {
    let mut network = Network::pair();
    network.send(ALICE, BOB, 1);
    network.run_for(millis(10));
    let response = network.seen_of(BOB, MessageType::HandshakeResponse)[0].clone();
    // A response with an ephemeral key of somebody else, made by someone who knows Alice's public key.
    let mut forged = response.datagram.clone();
    forged[12] ^= 1;
    let mut other = Network::pair();
    let source = Endpoint::from(network.nodes[BOB].address);
    assert_eq!(
        network.nodes[ALICE].device.receive_handshake(&forged, source, now(START)),
        Err(DropReason::InvalidMac1)
    );
    other.send(ALICE, BOB, 1);
    other.nodes[BOB].receive(&other.seen[0].datagram.clone(), source.remote, START + secs(1));
    network.run_for(secs(1));
    assert_eq!(network.nodes[BOB].delivered.len(), 1);
    // The same response again finds no handshake.
    let again = network.nodes[ALICE].device.receive_handshake(&response.datagram, source, now(START));
    assert_eq!(again, Err(DropReason::UnknownIndex));
}

#[test]
fn low_order_peer_gets_no_packet() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        let bytes = std::array::from_fn(|index| {
            u8::from_str_radix(&point[2 * index..2 * index + 2], 16).expect("hexadecimal digits")
        });
        let mut alice = Node::new(1);
        let bob = Node::new(2);
        let change = PeerChange {
            public_key: PublicKey::from_bytes(bytes),
            persistent_keepalive: Some(1),
            ..bob.introduction(true)
        };
        alice.apply(change, START);
        let inner = packet(alice.inner_address, bob.inner_address, 100, 0);
        alice.send(&inner, START);
        let mut network = Network::new(vec![alice], 0);
        network.run_for(secs(60));
        assert!(network.seen.is_empty(), "{point}");
    }
}

#[test]
fn own_key_is_no_peer() {
    let mut network = Network::pair();
    let own = network.nodes[ALICE].introduction(true);
    network.nodes[ALICE].apply(own, START);
    assert_eq!(network.nodes[ALICE].device.peers().count(), 1);
    // Becoming Bob removes the peer Bob.
    let bobs = crate::node::private_key(2);
    network.nodes[ALICE].device.set_private_key(Some(bobs), now(START));
    network.nodes[ALICE].drain(network.time);
    assert_eq!(network.nodes[ALICE].device.peers().count(), 0);
    assert!(network.nodes[ALICE].device.allowed_ips().is_empty());
}

#[test]
fn new_private_key_takes_a_new_handshake_for_the_next_packet() {
    let mut network = Network::connected_pair();
    let key = PrivateKey::from_bytes([0x33; 32]);
    let time = network.time;
    let old = network.nodes[ALICE].public_key();
    network.nodes[ALICE].device.set_private_key(Some(key), now(time));
    network.nodes[ALICE].drain(network.time);
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    assert!(network.nodes[BOB].delivered.is_empty(), "nothing goes out under the old key");
    assert_eq!(network.nodes[BOB].drops, [DropReason::UnknownPeer]);

    // What Bob seals under the old session still arrives.
    network.send(BOB, ALICE, 2);
    network.run_for(millis(100));
    assert_eq!(network.nodes[ALICE].delivered.len(), 1);

    let time = network.time;
    let introduction = network.nodes[ALICE].introduction(true);
    network.nodes[BOB].apply(introduction, time);
    let removal = PeerChange { remove: true, ..PeerChange::new(old) };
    network.nodes[BOB].apply(removal, time);
    network.run_for(secs(6));
    assert_eq!(network.nodes[BOB].delivered.len(), 1, "the staged packet follows");
    assert_eq!(network.nodes[BOB].session_count(), 1);
}

#[test]
fn setting_the_same_private_key_changes_nothing() {
    let mut network = Network::connected_pair();
    let time = network.now();
    network.nodes[ALICE].device.set_private_key(Some(crate::node::private_key(1)), time);
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    assert_eq!(network.seen.len(), 1, "no handshake");
    assert_eq!(network.nodes[BOB].delivered.len(), 1);
}

#[test]
fn newest_128_staged_packets_are_sent_in_order() {
    let mut network = Network::pair();
    for number in 0..200 {
        network.send(ALICE, BOB, number);
    }
    network.run_for(secs(1));
    let numbers: Vec<u64> =
        network.nodes[BOB].delivered.iter().map(|delivered| number_of(&delivered.packet)).collect();
    assert_eq!(numbers, (200 - STAGED_PACKETS_MAX as u64..200).collect::<Vec<_>>());
    assert_eq!(network.nodes[ALICE].device.counters().staged_dropped, 72);
    assert!(!network.seen.iter().any(|seen| is_keepalive(&seen.datagram)), "data confirms the session");
}

#[test]
fn indices_on_the_wire_are_never_repeated_nor_in_sequence() {
    let mut network = Network::connected_pair();
    let mut indices = Vec::new();
    for round in 0..50 {
        network.run_for(secs(200));
        network.seen.clear();
        network.send(ALICE, BOB, round);
        network.run_for(secs(1));
        let initiation = network.seen_of(ALICE, MessageType::HandshakeInitiation)[0];
        indices.push(u32::from_le_bytes(initiation.datagram[4..8].try_into().expect("four bytes")));
    }
    let steps: Vec<u32> = indices.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.iter().all(|&step| step > 1000));
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), 50);
}

#[test]
fn each_step_of_a_handshake_is_counted_once() {
    let network = Network::connected_pair();
    let [alice, bob] = [ALICE, BOB].map(|node| network.nodes[node].device.counters());
    let initiator = (alice.initiations_sent, alice.responses_received, alice.handshakes_completed);
    let responder = (bob.initiations_received, bob.responses_sent, bob.handshakes_completed);
    assert_eq!((initiator, responder), ((1, 1, 1), (1, 1, 1)));
    assert_eq!((alice.responses_sent, bob.initiations_sent), (0, 0));
}
