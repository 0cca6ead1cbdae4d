//! Two devices and a network between them that does what it likes, under any sequence of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wireguard::{
    AllowedIpAction, DeviceChange, Output, PeerChange, PeerId, PresharedKey, PrivateKeyChange, Time,
};

use crate::{
    input::Input,
    simulation::{Node, START, Sent, now, packet, private_key},
};

/// Keys there are: those of the two devices and of peers that never answer.
const KEY_COUNT: usize = 5;

/// The nodes and what is under way between them.
struct World {
    nodes: [Node; 2],
    under_way: Vec<Sent>,
    time: Time,
}

/// Changes, traffic, time and faults; checks after each step that what a device says of itself fits together.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World { nodes: [Node::new(1), Node::new(2)], under_way: Vec::new(), time: START };
    let [alice, bob] = &mut world.nodes;
    let (of_alice, of_bob) = (alice.introduction(true), bob.introduction(true));
    alice.apply(of_bob, START);
    bob.apply(of_alice, START);
    while input.has_step() {
        step(&mut input, &mut world);
        for node in &mut world.nodes {
            world.under_way.append(&mut node.outbox);
            check(node);
        }
        world.under_way.truncate(64);
    }
}

fn step(input: &mut Input, world: &mut World) {
    let time = world.time;
    let which = input.below(2);
    let node = &mut world.nodes[which];
    match input.below(12) {
        0 => {
            let changes = change(input);
            let _ = node.device.apply(changes, now(time));
            node.drain(time);
        }
        1 => {
            let up = input.below(4) > 0;
            node.device.set_up(up, now(time));
            node.drain(time);
        }
        2 => {
            let key = (input.below(4) > 0).then(|| private_key(1 + input.below(KEY_COUNT) as u8));
            node.device.set_private_key(key, now(time));
            node.drain(time);
        }
        3 | 4 => {
            let to = node.device.allowed_ips().lookup([10, 0, 0, 2 - which as u8].into()).copied();
            if to.is_some_and(|peer| node.endpoints.contains_key(&peer)) {
                let destination = [10, 0, 0, 2 - which as u8].into();
                node.send(&packet(node.inner_address, destination, 60 + input.below(100), 1), time);
            }
        }
        5 | 6 => {
            let millis = [1, 100, 5_400, 10_000, 26_000, 121_000, 181_000, 600_000][input.below(8)];
            world.time = time + Duration::from_millis(millis + u64::from(input.value::<u8>()));
            for node in &mut world.nodes {
                node.handle_timeout(world.time);
            }
        }
        7 => {
            let garbage = input.bytes(200).to_vec();
            node.receive(&garbage, ([203, 0, 113, 9], 9).into(), time);
        }
        _ => deliver(input, world),
    }
}

/// Takes one datagram off the network, or a copy of it, whole or damaged, to either node.
fn deliver(input: &mut Input, world: &mut World) {
    if world.under_way.is_empty() {
        return;
    }
    let place = input.below(world.under_way.len());
    let mut sent =
        if input.below(4) > 0 { world.under_way.remove(place) } else { world.under_way[place].clone() };
    if input.below(4) == 3 {
        input.corrupt(&mut sent.datagram);
    }
    let [alice, bob] = &mut world.nodes;
    let (from, to) = if sent.to == bob.address { (alice.address, bob) } else { (bob.address, alice) };
    to.queued = input.below(2) * 600;
    to.receive(&sent.datagram, from, world.time);
}

fn change(input: &mut Input) -> DeviceChange {
    let private_key = match input.below(8) {
        0 => PrivateKeyChange::Clear,
        1 => PrivateKeyChange::Set(private_key(1 + input.below(KEY_COUNT) as u8)),
        _ => PrivateKeyChange::Keep,
    };
    let replace_peers = input.below(8) == 7;
    let peers = (0..input.below(4)).map(|_| peer_change(input)).collect();
    DeviceChange { private_key, replace_peers, peers }
}

fn peer_change(input: &mut Input) -> PeerChange {
    let public_key = match input.below(KEY_COUNT + 1) {
        // A point of low order, with which nobody can agree on anything.
        KEY_COUNT => wireguard::PublicKey::from_bytes([0; 32]),
        number => private_key(1 + number as u8).public_key(),
    };
    let flags: u8 = input.value();
    let set = |bit: u8| flags & (1 << bit) != 0;
    let allowed_ips = (0..input.below(4)).map(|_| {
        let prefix = format!("10.0.0.{}/{}", input.below(4), 24 + input.below(9)).parse().expect("a prefix");
        let action = if input.below(4) > 0 { AllowedIpAction::Add } else { AllowedIpAction::Remove };
        (prefix, action)
    });
    let allowed_ips = allowed_ips.collect();
    PeerChange {
        public_key,
        update_only: set(0),
        remove: set(1) && set(2),
        preshared_key: set(3).then(|| PresharedKey::from_bytes([input.value::<u8>() % 2; 32])),
        endpoint: set(4).then(|| ([192, 0, 2, 1 + input.below(3) as u8], 51820).into()),
        persistent_keepalive: set(5).then(|| input.value::<u16>() % 30),
        replace_allowed_ips: set(6),
        allowed_ips,
    }
}

/// What must be so after any step. [`Node::drain`] has checked that the outputs came in an order that makes sense.
fn check(node: &mut Node) {
    assert!(!matches!(node.device.poll_output(), Some(Output::Transmit { .. })), "drained");
    let owners: BTreeMap<_, PeerId> =
        node.device.allowed_ips().iter().map(|(prefix, peer)| (prefix, *peer)).collect();
    let mut listed = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for peer in node.device.peers() {
        assert!(keys.insert(peer.public_key), "two peers have one key");
        assert_ne!(Some(peer.public_key), node.device.public_key(), "a peer of its own");
        assert_eq!(node.device.peer_by_key(&peer.public_key), Some(peer.id));
        assert_eq!(node.endpoints.get(&peer.id), peer.endpoint.as_ref(), "an endpoint was not announced");
        for prefix in peer.allowed_ips {
            assert_eq!(listed.insert(prefix, peer.id), None, "{prefix} has two owners");
        }
        if let Some(session) = node.current_session(peer.id) {
            assert_eq!(session.peer(), peer.id);
        }
    }
    assert_eq!(listed, owners);
    // Current, previous and next, and one that waits to be retired.
    assert!(node.session_count() <= 3 * keys.len(), "sessions without a peer");
    if !node.device.is_up() || node.device.public_key().is_none() {
        assert!(node.outbox.is_empty(), "it sends without being able to");
    }
}
