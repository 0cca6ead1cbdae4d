//! Changes of configuration: peers, allowed IPs, limits.

use std::net::IpAddr;

use wireguard::{
    AllowedIpAction, ApplyError, Device, DeviceChange, Output, PeerChange, PeerId, PrivateKeyChange,
    PublicKey, constants::PEERS_MAX,
};

use crate::{
    network::{ALICE, BOB, Network},
    node::{START, now, packet, private_key, secs},
};

fn key(number: u32) -> PublicKey {
    let mut bytes = [0x80; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PublicKey::from_bytes(bytes)
}

fn peer_with(number: u32, allowed_ips: &[&str]) -> PeerChange {
    let add = |text: &&str| (text.parse().expect("a prefix"), AllowedIpAction::Add);
    PeerChange { allowed_ips: allowed_ips.iter().map(add).collect(), ..PeerChange::new(key(number)) }
}

fn device_with(peers: Vec<PeerChange>) -> Device {
    let mut device = Device::new([0; 32]);
    apply(&mut device, peers);
    device
}

fn apply(device: &mut Device, peers: Vec<PeerChange>) {
    device.apply(DeviceChange { peers, ..DeviceChange::default() }, now(START)).expect("the change is good");
}

fn allowed_ips(device: &Device, number: u32) -> Vec<String> {
    let id = device.peer_by_key(&key(number)).expect("the peer is known");
    device.peer(id).expect("the peer is known").allowed_ips.iter().map(ToString::to_string).collect()
}

fn owner(device: &Device, address: &str) -> Option<PeerId> {
    device.allowed_ips().lookup(address.parse::<IpAddr>().expect("an address")).copied()
}

#[test]
fn prefix_moves_to_the_peer_that_got_it_last() {
    let mut device =
        device_with(vec![peer_with(1, &["10.0.0.5/24", "fd00::/64"]), peer_with(2, &["10.0.0.0/24"])]);
    assert_eq!(allowed_ips(&device, 1), ["fd00::/64"]);
    assert_eq!(allowed_ips(&device, 2), ["10.0.0.0/24"]);
    assert_eq!(owner(&device, "10.0.0.77"), device.peer_by_key(&key(2)));

    // Taking away what is not its own does nothing.
    let mut taking = PeerChange::new(key(1));
    taking.allowed_ips = vec![("10.0.0.0/24".parse().expect("a prefix"), AllowedIpAction::Remove)];
    apply(&mut device, vec![taking]);
    assert_eq!(owner(&device, "10.0.0.77"), device.peer_by_key(&key(2)));

    let mut taking = PeerChange::new(key(2));
    taking.allowed_ips = vec![("10.0.0.0/24".parse().expect("a prefix"), AllowedIpAction::Remove)];
    apply(&mut device, vec![taking]);
    assert_eq!(owner(&device, "10.0.0.77"), None);
}

#[test]
fn replacing_allowed_ips_takes_the_old_ones_away() {
    let mut device = device_with(vec![peer_with(1, &["10.0.0.0/24", "10.0.1.0/24"])]);
    let mut replacing = peer_with(1, &["10.0.1.0/24", "::/0"]);
    replacing.replace_allowed_ips = true;
    apply(&mut device, vec![replacing]);
    assert_eq!(allowed_ips(&device, 1), ["10.0.1.0/24", "::/0"]);
    assert_eq!(owner(&device, "10.0.0.1"), None);
    assert_eq!(owner(&device, "2001:db8::1"), device.peer_by_key(&key(1)));
}

#[test]
fn removed_peer_takes_its_prefixes_and_sessions_along() {
    let mut network = Network::connected_pair();
    let change = PeerChange { remove: true, ..PeerChange::new(network.nodes[ALICE].public_key()) };
    let time = network.time;
    network.nodes[BOB].apply(change.clone(), time);
    let bob = &mut network.nodes[BOB];
    assert_eq!((bob.device.peers().count(), bob.session_count()), (0, 0));
    assert!(bob.device.allowed_ips().is_empty());
    assert_eq!(bob.device.next_timeout(), None);
    bob.apply(change, time);
    let update = PeerChange { update_only: true, ..peer_with(9, &["10.0.0.0/8"]) };
    bob.apply(update, time);
    assert_eq!(bob.device.peers().count(), 0, "removing or updating who is not there is nothing");
    network.send(ALICE, BOB, 1);
    network.run_for(secs(1));
    assert!(network.nodes[BOB].delivered.is_empty());
}

#[test]
fn replaced_peers_start_anew_in_the_order_given() {
    let mut device = device_with(vec![peer_with(3, &["10.0.0.3/32"]), peer_with(1, &[])]);
    let change = DeviceChange {
        private_key: PrivateKeyChange::Set(private_key(7)),
        replace_peers: true,
        peers: vec![peer_with(2, &[]), peer_with(1, &["10.0.0.1/32"])],
    };
    device.apply(change, now(START)).expect("the change is good");
    let keys: Vec<_> = device.peers().map(|peer| peer.public_key).collect();
    assert_eq!(keys, [key(2), key(1)]);
    assert_eq!(owner(&device, "10.0.0.3"), None);
    assert_eq!(device.private_key(), Some(&private_key(7)));
    let clear = DeviceChange { private_key: PrivateKeyChange::Clear, ..DeviceChange::default() };
    device.apply(clear, now(START)).expect("the change is good");
    assert_eq!(device.public_key(), None);
}

#[test]
fn one_change_announces_allowed_ips_once() {
    let mut device = device_with((0..50).map(|number| peer_with(number, &["10.0.0.0/8"])).collect());
    let outputs: Vec<Output> = std::iter::from_fn(|| device.poll_output()).collect();
    let count = |wanted: fn(&Output) -> bool| outputs.iter().filter(|output| wanted(output)).count();
    assert_eq!(count(|output| matches!(output, Output::AllowedIpsChanged { .. })), 1);
    assert_eq!(count(|output| matches!(output, Output::PeerAdded { .. })), 50);
}

#[test]
fn too_many_peers_are_refused_as_a_whole() {
    let mut device = device_with(vec![peer_with(1, &["10.0.0.0/8"])]);
    while device.poll_output().is_some() {}
    let peers = (2..PEERS_MAX as u32 + 2).map(|number| PeerChange::new(key(number))).collect();
    let change =
        DeviceChange { private_key: PrivateKeyChange::Set(private_key(7)), replace_peers: false, peers };
    let count = PEERS_MAX + 1;
    assert_eq!(device.apply(change, now(START)), Err(ApplyError::TooManyPeers { count }));
    assert_eq!(device.peers().count(), 1);
    assert_eq!(device.public_key(), None);
    assert!(device.poll_output().is_none(), "nothing has changed");
}

#[test]
fn packet_that_is_not_the_peers_is_not_staged() {
    let mut network = Network::pair();
    let peer = network.nodes[ALICE].peer(&network.nodes[BOB].public_key());
    let alice = &mut network.nodes[ALICE];
    let foreign = packet(alice.inner_address, [10, 0, 0, 99].into(), 100, 1);
    alice.device.stage(peer, foreign, now(START));
    alice.device.stage(PeerId(99), packet(alice.inner_address, [10, 0, 0, 2].into(), 100, 1), now(START));
    alice.device.stage(peer, vec![0x45, 0], now(START));
    alice.device.stage(peer, Vec::new(), now(START));
    assert_eq!(alice.device.counters().stage_refused, 4);
    assert!(alice.device.poll_output().is_none(), "no handshake either");
}

#[test]
fn peer_without_endpoint_is_not_called() {
    let mut network = Network::pair();
    network.send(BOB, ALICE, 1);
    network.run_for(secs(30));
    assert!(network.seen.is_empty());
    assert_eq!(network.nodes[BOB].device.counters().stage_refused, 1);
}

#[test]
fn same_seed_and_inputs_give_the_same_wire() {
    let run = || {
        let mut network = Network::pair();
        for number in 0..300 {
            network.send(ALICE, BOB, number);
            network.run_for(secs(1));
        }
        network.seen.into_iter().map(|seen| (seen.at, seen.datagram)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn endpoint_that_is_configured_anew_is_where_packets_go() {
    let mut network = Network::connected_pair();
    let elsewhere = "198.51.100.77:7".parse().expect("an address");
    let bob = network.nodes[BOB].public_key();
    let time = network.time;
    network.nodes[ALICE].apply(PeerChange { endpoint: Some(elsewhere), ..PeerChange::new(bob) }, time);
    network.send(ALICE, BOB, 1);
    assert_eq!(network.seen.last().map(|seen| seen.to), Some(elsewhere));
    // The same again changes nothing, so the sticky local address stays.
    let peer = network.nodes[ALICE].peer(&bob);
    let before = network.nodes[ALICE].endpoints[&peer];
    network.nodes[ALICE].apply(PeerChange { endpoint: Some(elsewhere), ..PeerChange::new(bob) }, time);
    assert_eq!(network.nodes[ALICE].endpoints[&peer], before);
}

#[test]
fn keepalive_that_is_switched_on_while_down_waits_for_the_interface() {
    let mut network = Network::pair();
    let time = network.time;
    network.nodes[ALICE].device.set_up(false, now(time));
    let bob = network.nodes[BOB].public_key();
    let change = PeerChange { persistent_keepalive: Some(5), ..PeerChange::new(bob) };
    network.nodes[ALICE].apply(change, time);
    network.run_for(secs(20));
    assert!(network.seen.is_empty(), "down is silent");
    let time = network.time;
    network.nodes[ALICE].device.set_up(true, now(time));
    network.nodes[ALICE].drain(time);
    network.run_for(secs(1));
    assert!(!network.keepalives(ALICE).is_empty(), "and then it starts at once");
}
