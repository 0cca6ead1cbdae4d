//! The runs.

use wireguard::{DropReason, HandshakeCounters};

use crate::world::World;

/// Runs without `WGX_SIM_SEEDS`.
const SEEDS: u64 = 2000;
/// Operations of such a run; what is between them is up to minutes of virtual time.
const OPERATIONS: usize = 30;
const OPERATIONS_HARD: usize = 60;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn run(seed: u64, operations: usize) -> World {
    World::new(seed, None).run(operations).unwrap_or_else(|broken| {
        panic!("WGX_SIM_SEED={seed} ({operations} operations) breaks a rule: {broken}")
    })
}

#[test]
fn no_rule_is_broken_whatever_happens() {
    let first = number("WGX_SIM_SEED");
    let seeds = match first {
        Some(seed) => seed..seed + 1,
        None => 0..number("WGX_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut datagrams, mut delivered) = (0, 0);
    for seed in seeds.clone() {
        let world = run(seed, OPERATIONS);
        datagrams += world.eavesdropper.datagrams;
        delivered += world.reference.delivered_count();
    }
    println!("seeds {seeds:?}: {datagrams} datagrams seen, {delivered} packets delivered");
    assert!(
        delivered as u64 >= seeds.end - seeds.start,
        "packets must get through for rules to mean something"
    );
}

type Count = fn(&HandshakeCounters) -> u64;

/// What the devices of a run have counted since they were last started.
fn total(world: &World, count: Count) -> u64 {
    world.nodes.iter().map(|node| count(&node.device.counters())).sum()
}

/// Runs of the first few thousand that do most of one thing.
const HARD_SEEDS: [(&str, u64, Count); 10] = [
    ("handshakes that are given up", 908, |counters| counters.handshakes_given_up),
    ("cookies that are taken", 1083, |counters| counters.cookies_received),
    ("cookies that are handed out", 1083, |counters| counters.cookies_sent),
    ("initiations that are replayed", 673, |counters| counters.dropped(DropReason::InitiationReplayed)),
    ("initiations that come too fast", 576, |counters| counters.dropped(DropReason::InitiationFlood)),
    ("messages from strangers", 1468, |counters| counters.dropped(DropReason::UnknownPeer)),
    ("messages while down or without key", 173, |counters| counters.dropped(DropReason::NotReady)),
    ("messages that do not authenticate", 673, |counters| counters.dropped(DropReason::AuthenticationFailed)),
    ("packets that wait in vain", 1110, |counters| counters.staged_dropped),
    ("handshakes", 1253, |counters| counters.handshakes_completed),
];

#[test]
fn hard_seeds_still_do_what_they_are_kept_for() {
    for (what, seed, count) in HARD_SEEDS {
        assert!(
            total(&run(seed, OPERATIONS_HARD), count) > 0,
            "seed {seed} shows no more {what}: choose another"
        );
    }
}
