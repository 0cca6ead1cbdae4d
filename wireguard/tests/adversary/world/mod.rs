//! Nodes, the wire with its adversary, and the order of events.

mod operations;

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use wireguard::{MessageType, Time, cookie::ReceiverKeys};

use crate::{
    eavesdropper::Eavesdropper,
    injected::Fault,
    network::SplitMix,
    node::{Node, START, Sent, millis, secs},
    reference::Reference,
};

const LATENCY: Duration = millis(10);
/// Datagrams that the adversary remembers.
const RECORDED_MAX: usize = 256;
/// Bound for a packet to get through once all is well: an unanswered session is noticed after 15.3 s, and one
/// handshake may have to wait for the time between two initiations.
const RECOVERY: Duration = secs(30);

struct InFlight {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
    tos: u8,
}

/// What goes wrong on the wire, of 1000 each.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    loss: u64,
    duplicate: u64,
    corrupt: u64,
    delay_max_ms: u64,
}

/// One run.
pub struct World {
    pub nodes: Vec<Node>,
    pub random: SplitMix,
    pub eavesdropper: Eavesdropper,
    pub reference: Reference,
    pub fault: Option<Fault>,
    /// First broken rule; the run ends there.
    pub broken: Option<String>,
    time: Time,
    wire: Wire,
    in_flight: BTreeMap<(Time, u64), InFlight>,
    sequence: u64,
    release_at: Vec<Option<Time>>,
    recorded: Vec<Sent>,
    /// Datagrams that are good or have been: hashes would do, but these are few.
    genuine: HashSet<Vec<u8>>,
    /// Transport datagrams that a node has had since it was started.
    received: Vec<HashSet<Vec<u8>>>,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = SplitMix(seed);
        let count = 2 + random.below(3) as usize;
        let mut world = Self {
            nodes: (1..=count).map(|number| Node::new(number as u8)).collect(),
            random,
            eavesdropper: Eavesdropper::default(),
            reference: Reference::default(),
            fault,
            broken: None,
            time: START,
            wire: Wire::default(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            release_at: vec![None; count],
            recorded: Vec::new(),
            genuine: HashSet::new(),
            received: vec![HashSet::new(); count],
        };
        for node in 0..count {
            world.learn_key(node);
        }
        for node in 0..count {
            for peer in 0..count {
                world.introduce(node, peer, None);
            }
        }
        world
    }

    /// # Errors
    /// Says which rule was broken.
    pub fn run(mut self, operations: usize) -> Result<Self, String> {
        self.wire = self.bad_wire();
        for _ in 0..operations {
            self.operate();
            let pause = match self.random.below(40) {
                0 => self.random.below(600_000),
                1..=3 => self.random.below(30_000),
                _ => self.random.below(400),
            };
            self.run_for(millis(pause));
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
        }
        self.heal()?;
        Ok(self)
    }

    fn bad_wire(&mut self) -> Wire {
        Wire {
            loss: self.random.below(300),
            duplicate: self.random.below(300),
            corrupt: self.random.below(200),
            delay_max_ms: self.random.below(1500),
        }
    }

    fn learn_key(&mut self, node: usize) {
        let key = self.nodes[node].public_key();
        self.eavesdropper.know(key);
        self.reference.own_key(node, key);
    }

    /// The node forgets when it sent initiations; what it sent before is seen before.
    fn forget(&mut self, node: usize) {
        self.collect();
        self.eavesdropper.forget(node);
    }

    fn any_node(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    fn inject(&mut self, arrival: Time, in_flight: InFlight) {
        self.sequence += 1;
        self.in_flight.insert((arrival, self.sequence), in_flight);
    }

    fn collect(&mut self) {
        for from in 0..self.nodes.len() {
            for mut sent in std::mem::take(&mut self.nodes[from].outbox) {
                if let Some(fault) = self.fault {
                    fault.spoil_wire(&mut sent, &self.recorded);
                }
                self.put_on_wire(from, &sent);
            }
        }
    }

    fn put_on_wire(&mut self, from: usize, sent: &Sent) {
        let seen = self.eavesdropper.see(self.time, from, &sent.datagram, sent.tos);
        self.check(&seen);
        self.genuine.insert(sent.datagram.clone());
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push(sent.clone());
        } else {
            let place = self.random.below(RECORDED_MAX as u64) as usize;
            self.recorded[place] = sent.clone();
        }
        if self.random.below(1000) < self.wire.loss {
            return;
        }
        let copies = 1 + u64::from(self.random.below(1000) < self.wire.duplicate);
        for _ in 0..copies {
            let Sent { to, mut datagram, tos } = sent.clone();
            if self.random.below(1000) < self.wire.corrupt {
                let place = self.random.below(datagram.len() as u64) as usize;
                datagram[place] ^= 1 << self.random.below(8);
            }
            let arrival = self.time + LATENCY + millis(self.random.below(self.wire.delay_max_ms));
            let from = self.nodes[from].address;
            self.inject(arrival, InFlight { from, to, datagram, tos });
        }
    }

    fn check(&mut self, result: &Result<(), String>) {
        if let (Err(broken), None) = (result, &self.broken) {
            self.broken = Some(format!("{:?}: {broken}", self.time.saturating_since(START)));
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let deadline = self.time + duration;
        let mut steps = 0;
        while let Some(time) = self.next_event().filter(|&time| time <= deadline)
            && self.broken.is_none()
        {
            steps += 1;
            assert!(steps < 100_000, "the simulation does not come to rest");
            self.time = self.time.max(time);
            self.step();
        }
        self.time = self.time.max(deadline);
    }

    fn next_event(&self) -> Option<Time> {
        let arrival = self.in_flight.first_key_value().map(|(key, _)| key.0);
        let timeouts = self.nodes.iter().filter_map(|node| node.device.next_timeout());
        timeouts.chain(arrival).chain(self.release_at.iter().copied().flatten()).min()
    }

    fn step(&mut self) {
        let time = self.time;
        while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= time) {
            let in_flight = entry.remove();
            if let Some(node) = self.nodes.iter().position(|node| node.address == in_flight.to) {
                self.arrive(node, &in_flight);
            }
        }
        for node in 0..self.nodes.len() {
            if self.release_at[node].is_some_and(|at| at <= time) {
                self.release(node);
            }
            self.nodes[node].handle_timeout(time);
        }
        self.collect();
    }

    fn arrive(&mut self, node: usize, in_flight: &InFlight) {
        self.collect();
        let InFlight { from, datagram, tos, .. } = in_flight;
        let time = self.time;
        let is_harmless = self.is_harmless(node, datagram);
        self.nodes[node].receive(datagram, *from, time);
        if let Some(fault) = self.fault {
            fault.spoil_node(&mut self.nodes[node], is_harmless, *from);
        }
        if is_harmless && !self.nodes[node].outbox.is_empty() {
            self.check(&Err(format!("P1.3: node {node} answers noise or a replay")));
        }
        for delivered in std::mem::take(&mut self.nodes[node].delivered) {
            if is_harmless {
                self.check(&Err(format!("P4: node {node} delivers what is no new good datagram")));
            }
            let result = self.reference.delivered(node, &delivered.packet, (datagram.len(), *tos));
            self.check(&result);
        }
        self.nodes[node].drops.clear();
        self.collect();
    }

    /// Whether nothing at all may come of a datagram: it is noise, or a transport datagram that came before.
    fn is_harmless(&mut self, node: usize, datagram: &[u8]) -> bool {
        match MessageType::classify(datagram) {
            Ok(MessageType::Transport) => {
                !self.genuine.contains(datagram) || !self.received[node].insert(datagram.to_vec())
            }
            Ok(MessageType::HandshakeInitiation | MessageType::HandshakeResponse) => {
                let key = self.nodes[node].public_key();
                !ReceiverKeys::new(&key).verify_mac1(datagram)
            }
            Ok(MessageType::CookieReply) | Err(_) => true,
        }
    }

    /// All is well again: then a packet each way gets through in time.
    fn heal(&mut self) -> Result<(), String> {
        self.wire = Wire::default();
        let count = self.nodes.len();
        for node in 0..count {
            self.release(node);
            self.nodes[node].queued = 0;
            self.set_up(node, true);
        }
        for (node, peer) in pairs(count) {
            self.introduce(node, peer, Some(1));
        }
        let deadline = self.time + RECOVERY;
        let mut waiting: Vec<_> = pairs(count).map(|pair| (pair, Vec::new())).collect();
        while self.time < deadline && !waiting.is_empty() {
            for ((from, to), markers) in &mut waiting {
                markers.extend(self.send(*from, *to, self.nodes[*from].inner_address));
            }
            self.run_for(secs(1));
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            let reference = &self.reference;
            waiting.retain(|(_, markers)| !markers.iter().any(|&marker| reference.is_delivered(marker)));
        }
        match waiting.first() {
            Some(((from, to), _)) => {
                Err(format!("liveness: nothing from node {from} to {to} in {RECOVERY:?}"))
            }
            None => Ok(()),
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b)
}
