//! The runs.

use crate::world::World;

/// Runs without `WGX_SIM_SEEDS`.
const SEEDS: u64 = 2000;
const OPERATIONS: usize = 60;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn run(seed: u64) -> World {
    World::new(seed, None)
        .run(OPERATIONS)
        .unwrap_or_else(|broken| panic!("WGX_SIM_SEED={seed} breaks a rule: {broken}"))
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
        let world = run(seed);
        datagrams += world.eavesdropper.datagrams;
        delivered += world.reference.delivered_count();
    }
    println!("seeds {seeds:?}: {datagrams} datagrams seen, {delivered} packets delivered");
    assert!(
        delivered as u64 >= seeds.end - seeds.start,
        "packets must get through for rules to mean something"
    );
}
