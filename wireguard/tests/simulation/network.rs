//! The wire between nodes: latency, faults from a seed, and a log of all that was sent.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use wireguard::{MessageType, Time};

use crate::node::{Node, START, is_keepalive, kind, millis, now, packet};

/// One datagram as an eavesdropper sees it when it is sent, whether or not it arrives.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Time,
    /// Number of the sending node.
    pub from: usize,
    pub to: SocketAddr,
    pub datagram: Vec<u8>,
    pub tos: u8,
}

/// What goes wrong on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Datagrams lost, of 1000.
    pub loss_permille: u64,
    /// Datagrams doubled, of 1000.
    pub duplicate_permille: u64,
    /// Longest extra delay, which reorders.
    pub delay_max: Duration,
}

struct InFlight {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// A generator of test randomness (Steele et al., 2014).
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// All nodes and the time.
pub struct Network {
    pub nodes: Vec<Node>,
    pub time: Time,
    pub faults: Faults,
    /// Nodes whose datagrams are lost.
    pub muted: Vec<usize>,
    pub seen: Vec<Seen>,
    random: SplitMix,
    in_flight: BTreeMap<(Time, u64), InFlight>,
    sequence: u64,
}

/// Latency of each datagram.
pub const LATENCY: Duration = millis(10);
pub const ALICE: usize = 0;
pub const BOB: usize = 1;

impl Network {
    pub fn new(nodes: Vec<Node>, seed: u64) -> Self {
        Self {
            nodes,
            time: START,
            faults: Faults::default(),
            muted: Vec::new(),
            seen: Vec::new(),
            random: SplitMix(seed),
            in_flight: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Alice knows where Bob is; Bob knows Alice's key only.
    pub fn pair() -> Self {
        let (mut alice, mut bob) = (Node::new(1), Node::new(2));
        alice.apply(bob.introduction(true), START);
        bob.apply(alice.introduction(false), START);
        Self::new(vec![alice, bob], 0)
    }

    /// A pair with a session that Alice began, one second later.
    pub fn connected_pair() -> Self {
        let mut network = Self::pair();
        network.send(ALICE, BOB, 0);
        network.run_for(millis(1000));
        assert_eq!(network.nodes[BOB].delivered.len(), 1);
        network.seen.clear();
        network.nodes[BOB].delivered.clear();
        network
    }

    pub fn node(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    /// Sends a packet of 100 bytes with a number from node to node.
    pub fn send(&mut self, from: usize, to: usize, number: u64) {
        self.send_packet(from, to, 100, number);
    }

    pub fn send_packet(&mut self, from: usize, to: usize, len: usize, number: u64) {
        let destination: Ipv4Addr = self.nodes[to].inner_address;
        let packet = packet(self.nodes[from].inner_address, destination, len, number);
        let time = self.time;
        self.nodes[from].send(&packet, time);
        self.collect();
    }

    /// Puts what nodes have sent onto the wire.
    pub fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            for sent in std::mem::take(&mut self.nodes[from].outbox) {
                self.seen.push(Seen {
                    at: self.time,
                    from,
                    to: sent.to,
                    datagram: sent.datagram.clone(),
                    tos: sent.tos,
                });
                if self.muted.contains(&from) || self.random.below(1000) < self.faults.loss_permille {
                    continue;
                }
                let copies = 1 + u64::from(self.random.below(1000) < self.faults.duplicate_permille);
                for _ in 0..copies {
                    let delay = self.random.below(self.faults.delay_max.as_nanos() as u64);
                    let arrival = self.time + LATENCY + Duration::from_nanos(delay);
                    let from = self.nodes[from].address;
                    self.inject(arrival, from, sent.to, sent.datagram.clone());
                }
            }
        }
    }

    /// Puts a datagram onto the wire that arrives at a given time.
    pub fn inject(&mut self, arrival: Time, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.sequence += 1;
        self.in_flight.insert((arrival, self.sequence), InFlight { from, to, datagram });
    }

    /// Runs until `deadline`, jumping from event to event.
    pub fn run_until(&mut self, deadline: Time) {
        self.collect();
        let mut steps = 0;
        while let Some(time) = self.next_event().filter(|&time| time <= deadline) {
            steps += 1;
            assert!(steps < 1_000_000, "the simulation does not come to rest");
            self.time = self.time.max(time);
            self.step();
        }
        self.time = self.time.max(deadline);
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.time + duration);
    }

    fn next_event(&self) -> Option<Time> {
        let arrival = self.in_flight.first_key_value().map(|(key, _)| key.0);
        let timeouts = self.nodes.iter().filter_map(|node| node.device.next_timeout());
        timeouts.chain(arrival).min()
    }

    fn step(&mut self) {
        let time = self.time;
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= time) {
            let InFlight { from, to, datagram } = entry.remove();
            if let Some(node) = self.nodes.iter_mut().find(|node| node.address == to) {
                node.receive(&datagram, from, time);
            }
        }
        for node in &mut self.nodes {
            node.handle_timeout(time);
            let next = node.device.next_timeout();
            assert!(next.is_none_or(|next| next > time), "a timer is due right after it was handled");
        }
        self.collect();
    }

    /// What a node has sent of one type, keepalives aside.
    pub fn seen_of(&self, from: usize, message_type: MessageType) -> Vec<&Seen> {
        let fits = |seen: &&Seen| {
            seen.from == from && kind(&seen.datagram) == message_type && !is_keepalive(&seen.datagram)
        };
        self.seen.iter().filter(fits).collect()
    }

    pub fn keepalives(&self, from: usize) -> Vec<&Seen> {
        self.seen.iter().filter(|seen| seen.from == from && is_keepalive(&seen.datagram)).collect()
    }

    pub fn now(&self) -> wireguard::Now {
        now(self.time)
    }
}
