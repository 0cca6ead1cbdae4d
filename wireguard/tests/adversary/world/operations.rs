//! What may happen to nodes and on the wire, at random.

use std::net::{Ipv4Addr, SocketAddr};

use wireguard::{Device, PeerChange, PresharedKey, PrivateKey, PublicKey};

use super::{InFlight, World};
use crate::{
    injected::Fault,
    node::{Node, Sent, millis, now, packet},
};

impl World {
    pub(super) fn operate(&mut self) {
        let node = self.any_node();
        let peer = (node + 1 + self.random.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        match self.random.below(64) {
            0..=35 => {
                for _ in 0..=self.random.below(4) {
                    self.send(node, peer, self.nodes[node].inner_address);
                }
            }
            36..=38 => {
                let pretended = self.any_node();
                self.send(node, peer, self.nodes[pretended].inner_address);
            }
            39..=43 => self.replay(),
            44..=47 => self.garbage(node),
            48 => self.change_peer(node, |key| PeerChange { remove: true, ..PeerChange::new(key) }, peer),
            49..=51 => self.introduce(node, peer, None),
            52 => {
                let psk = self.random.below(2) as u8;
                self.introduce(node, peer, Some(psk));
                self.introduce(peer, node, Some(psk));
            }
            53 => self.introduce(node, peer, Some(7)),
            54 => self.change_key(node),
            55 | 56 => self.flip_up(node),
            57 | 58 => self.roam(node),
            59 => self.restart(node),
            60 | 61 => self.hold(node),
            62 => self.nodes[node].queued = if self.nodes[node].queued == 0 { 512 } else { 0 },
            _ => self.wire = self.bad_wire(),
        }
        self.collect();
    }

    /// Tells a node all about another one.
    pub(super) fn introduce(&mut self, node: usize, peer: usize, psk: Option<u8>) {
        if node == peer {
            return;
        }
        let introduction = self.nodes[peer].introduction(true);
        let keepalive = [None, Some(0), Some(25)][self.random.below(3) as usize];
        let change = PeerChange {
            preshared_key: psk.map(|byte| PresharedKey::from_bytes([byte; 32])),
            persistent_keepalive: keepalive,
            ..introduction
        };
        let key = change.public_key;
        let known = self.nodes[node].device.peer_by_key(&key).is_some();
        if !known {
            self.forget(node);
        }
        // The injected fault is a device that takes more than it is configured to.
        if node != 0 || self.fault != Some(Fault::ForeignSource) {
            self.reference.allow(node, self.nodes[peer].inner_address, key);
        }
        let time = self.time;
        self.nodes[node].apply(change, time);
    }

    pub(super) fn change_peer(&mut self, node: usize, change: impl Fn(PublicKey) -> PeerChange, peer: usize) {
        let key = self.nodes[peer].public_key();
        let change = change(key);
        if change.remove {
            self.reference.disallow(node, key);
            self.forget(node);
        }
        let time = self.time;
        self.nodes[node].apply(change, time);
    }

    pub(super) fn change_key(&mut self, node: usize) {
        let time = self.time;
        let key = PrivateKey::from_bytes(std::array::from_fn(|_| self.random.next() as u8));
        self.forget(node);
        self.nodes[node].device.set_private_key(Some(key), now(time));
        self.learn_key(node);
        self.nodes[node].drain(time);
    }

    pub(super) fn flip_up(&mut self, node: usize) {
        let up = !self.nodes[node].device.is_up();
        self.set_up(node, up);
    }

    pub(super) fn set_up(&mut self, node: usize, up: bool) {
        let time = self.time;
        self.forget(node);
        self.nodes[node].device.set_up(up, now(time));
        self.nodes[node].drain(time);
    }

    pub(super) fn roam(&mut self, node: usize) {
        let number = self.nodes[node].address.ip();
        let port = 1024 + self.random.below(60_000) as u16;
        self.nodes[node].address = SocketAddr::new(number, port);
    }

    /// A node loses all but its key and address; it gets its peers again, or only some.
    pub(super) fn restart(&mut self, node: usize) {
        let time = self.time;
        self.forget(node);
        let key = self.nodes[node].device.private_key().cloned();
        let address = self.nodes[node].address;
        let mut fresh = Node::new(node as u8 + 1);
        fresh.device = Device::new(std::array::from_fn(|_| self.random.next() as u8));
        fresh.device.set_private_key(key, now(time));
        fresh.device.set_up(true, now(time));
        fresh.address = address;
        self.nodes[node] = fresh;
        self.received[node].clear();
        self.release_at[node] = None;
        self.reference.disallow_all(node);
        for peer in 0..self.nodes.len() {
            if self.random.below(4) != 0 {
                self.introduce(node, peer, None);
            }
        }
    }

    pub(super) fn hold(&mut self, node: usize) {
        if self.nodes[node].held_work.is_none() {
            self.nodes[node].held_work = Some(Vec::new());
            self.release_at[node] = Some(self.time + millis(self.random.below(9000)));
        }
    }

    /// Held work is done, in any order; some of it is lost.
    pub(super) fn release(&mut self, node: usize) {
        let time = self.time;
        self.release_at[node] = None;
        for work in self.nodes[node].held_work.take().into_iter().flatten() {
            if self.random.below(10) != 0 {
                // What comes to light is counted by the device.
                let _ = self.nodes[node].device.work_done(work.perform(), now(time));
                self.nodes[node].drain(time);
            }
        }
        self.collect();
        // The time of an initiation is when it was begun.
        self.forget(node);
    }

    /// Sends a packet with `source` from node to node and returns its marker, if there is a peer to send it to.
    pub(super) fn send(&mut self, from: usize, to: usize, source: Ipv4Addr) -> Option<u64> {
        let destination = self.nodes[to].inner_address;
        let len = match self.random.below(8) {
            0 => 1420,
            1 => 1400 + self.random.below(21),
            _ => 28 + self.random.below(200),
        };
        self.nodes[from].device.allowed_ips().lookup(destination.into())?;
        let recipient = self.reference.owner(from, destination)?;
        let marker = self.reference.marker(self.random.next() as u32);
        let mut inner = packet(source, destination, len as usize, marker);
        inner[1] = self.random.next() as u8;
        self.reference.sent(&inner, from, recipient);
        let time = self.time;
        self.nodes[from].send(&inner, time);
        self.collect();
        Some(marker)
    }

    pub(super) fn replay(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let number = self.random.below(self.recorded.len() as u64) as usize;
        let Sent { to, datagram, tos } = self.recorded[number].clone();
        let to = if self.random.below(4) == 0 {
            let node = self.any_node();
            self.nodes[node].address
        } else {
            to
        };
        let node = self.any_node();
        let from = match self.random.below(2) {
            0 => self.nodes[node].address,
            _ => SocketAddr::from(([203, 0, 113, 1], 1)),
        };
        self.inject(self.time, InFlight { from, to, datagram, tos });
    }

    pub(super) fn garbage(&mut self, node: usize) {
        let len = [148, 92, 64, 32, 128, self.random.below(1500) as usize][self.random.below(6) as usize];
        let mut datagram: Vec<u8> = (0..len).map(|_| self.random.next() as u8).collect();
        if len >= 8 && self.random.below(8) != 0 {
            let message_type = match len {
                148 => 1,
                92 => 2,
                64 => 3,
                _ => 4,
            };
            datagram[..4].copy_from_slice(&u32::to_le_bytes(message_type));
        }
        let to = self.nodes[node].address;
        self.inject(
            self.time,
            InFlight { from: SocketAddr::from(([203, 0, 113, 2], 2)), to, datagram, tos: 0 },
        );
    }
}
