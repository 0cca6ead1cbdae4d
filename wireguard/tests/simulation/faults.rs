//! Traffic over a wire that loses, doubles and reorders, for many seeds.

use std::collections::BTreeSet;

use wireguard::DropReason;

use crate::{
    network::{ALICE, BOB, Faults, Network, SplitMix},
    node::{Node, START, millis, number_of, secs},
};

const SEEDS: u64 = 24;

fn pair(seed: u64) -> Network {
    let (mut alice, mut bob) = (Node::new(1), Node::new(2));
    alice.apply(bob.introduction(true), START);
    bob.apply(alice.introduction(seed.is_multiple_of(2)), START);
    Network::new(vec![alice, bob], seed)
}

/// No packet comes twice, and none that was not sent; returns how many came.
fn check_delivered(node: &Node, sent: &BTreeSet<u64>, seed: u64) -> usize {
    let mut numbers = BTreeSet::new();
    for delivered in &node.delivered {
        let number = number_of(&delivered.packet);
        assert!(sent.contains(&number), "seed {seed}: {number} was never sent");
        assert!(numbers.insert(number), "seed {seed}: {number} came twice");
    }
    numbers.len()
}

#[test]
fn nothing_comes_twice_and_the_tunnel_always_recovers() {
    for seed in 0..SEEDS {
        let mut network = pair(seed);
        let mut random = SplitMix(!seed);
        network.faults = Faults {
            loss_permille: random.below(400),
            duplicate_permille: random.below(300),
            delay_max: millis(random.below(1500)),
        };
        let mut sent = BTreeSet::new();
        for number in 0..1500 {
            let from = if random.below(3) == 0 { BOB } else { ALICE };
            network.send(from, 1 - from, number);
            sent.insert(number);
            // Mostly dense traffic, sometimes pauses that outlive a key.
            let pause = if random.below(100) == 0 { random.below(400_000) } else { random.below(1000) };
            network.run_for(millis(pause));
        }
        network.run_for(secs(5));
        let delivered = check_delivered(&network.nodes[ALICE], &sent, seed)
            + check_delivered(&network.nodes[BOB], &sent, seed);
        assert!(delivered > 500, "seed {seed}: only {delivered} of 1500 came through {:?}", network.faults);
        for node in &network.nodes {
            assert!(node.session_count() <= 3, "seed {seed}: sessions pile up");
            assert!(
                !node.drops.contains(&DropReason::AuthenticationFailed),
                "seed {seed}: honest packets always authenticate"
            );
        }

        // On a good wire again, a packet each way comes through within the handshake's retry time.
        network.faults = Faults::default();
        network.run_for(secs(10));
        let before = network.nodes[BOB].delivered.len();
        network.send(ALICE, BOB, 10_000);
        network.run_for(secs(6));
        assert_eq!(network.nodes[BOB].delivered.len(), before + 1, "seed {seed}");
        let before = network.nodes[ALICE].delivered.len();
        network.send(BOB, ALICE, 10_001);
        network.run_for(secs(6));
        assert_eq!(network.nodes[ALICE].delivered.len(), before + 1, "seed {seed}");
    }
}

#[test]
fn corrupted_datagrams_change_nothing() {
    for seed in 0..SEEDS {
        let mut network = pair(seed);
        let mut random = SplitMix(seed);
        for number in 0..200 {
            network.send(ALICE, BOB, number);
            let forgeries: Vec<_> = network.seen.drain(..).collect();
            for seen in forgeries {
                let mut datagram = seen.datagram;
                let place = random.below(datagram.len() as u64) as usize;
                datagram[place] ^= 1 << random.below(8);
                let from = network.nodes[seen.from].address;
                network.inject(network.time + millis(1), from, seen.to, datagram);
            }
            network.run_for(millis(random.below(3000)));
        }
        network.run_for(secs(6));
        let numbers = (0..200).collect();
        assert_eq!(check_delivered(&network.nodes[BOB], &numbers, seed), 200, "seed {seed}");
    }
}
