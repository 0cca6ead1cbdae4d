//! The engine: opens, checks, routes and seals batches. It owns no port; a worker feeds it what arrived and
//! sends what it leaves in [`Egress`].

use std::sync::Arc;

use aead::Aead;
use gateway_ebpf::parse::{self, Ip};
use gateway_ebpf::steer::is_forwardable;
use wireguard::{Activity, SessionEvent, Time};

use super::counters::{Tally, Verdict};
use super::fib::{NextHop, RepeatedLookup};
use super::inner::decrement_ttl;
use super::tables::{PeerEntry, Shared, Tables};
use super::unreachable::{ErrorLimit, answer};
use crate::io::{Datagram, Frame, FramePool, Unreachable};

/// Packets in one batch, at most: what one turn takes from a port (IX, OSDI 2014, finds 64 enough). Measured here, with 1
/// and with 10,000 clients, 32, 64 and 128 do not differ beyond their spread; 64 is four groups of the batch cipher.
pub const BATCH_MAX: usize = 64;

/// What the opened packets of a batch are checked and routed by.
pub(super) struct Routing<'t> {
    pub(super) tables: &'t Tables,
    pub(super) fib: RepeatedLookup<'t>,
}

/// One worker's engine.
pub struct Engine {
    pub(super) aead: Aead,
    pub(super) shared: Arc<Shared>,
    pub(super) tally: Tally,
    pub(super) egress: Egress,
    /// Of the chunk that went through the AEAD last.
    pub(super) authentic: Vec<bool>,
    /// Packets opened from one peer that go to another.
    pub(super) hairpin: Vec<Frame>,
    error_limit: ErrorLimit,
}

/// Packets on their way out, by port.
#[derive(Debug, Default)]
pub struct Egress {
    /// Whole Ethernet frames, by link.
    pub links: Vec<LinkEgress>,
    /// Sealed datagrams for the kernel's UDP socket.
    pub datagrams: Vec<Datagram>,
    /// Inner packets for the TUN device.
    pub packets: Vec<Frame>,
    /// ICMP errors to senders of what has nowhere to go.
    pub unreachable: Vec<Unreachable>,
}

/// Ethernet frames on their way out of one link.
#[derive(Debug)]
pub struct LinkEgress {
    /// The link's interface index.
    pub interface_index: u32,
    /// Whole Ethernet frames.
    pub frames: Vec<Frame>,
}

impl Egress {
    /// The frames on their way out of `interface_index`, if this worker has a socket there.
    pub(super) fn link_mut(&mut self, interface_index: u32) -> Option<&mut Vec<Frame>> {
        self.links
            .iter_mut()
            .find(|link| link.interface_index == interface_index)
            .map(|link| &mut link.frames)
    }
}

impl Engine {
    /// An engine that can send out of `links` (interface indices).
    pub fn new(aead: Aead, shared: Arc<Shared>, links: &[u32]) -> Self {
        let links = links
            .iter()
            .map(|index| LinkEgress { interface_index: *index, frames: Vec::with_capacity(BATCH_MAX) })
            .collect();
        Self {
            aead,
            shared,
            tally: Tally::default(),
            egress: Egress { links, ..Egress::default() },
            authentic: Vec::with_capacity(BATCH_MAX),
            hairpin: Vec::with_capacity(BATCH_MAX),
            error_limit: ErrorLimit::default(),
        }
    }

    /// What waits to be sent. The worker empties it once per turn.
    pub fn egress(&mut self) -> &mut Egress {
        &mut self.egress
    }

    /// What became of the packets since the worker last took it.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Drops a packet for `verdict`.
    pub(super) fn drop_frame(&mut self, pool: &mut FramePool, frame: Frame, verdict: Verdict) {
        self.tally.count(verdict);
        pool.release(frame);
    }

    /// Drops a packet that has nowhere to go for `verdict`, and tells its sender.
    pub(super) fn refuse(&mut self, pool: &mut FramePool, frame: Frame, verdict: Verdict, now: Time) {
        let packet = pool.data(&frame);
        if let Ok(ip) = parse::ip(packet) {
            self.egress.unreachable.extend(answer(&mut self.error_limit, &ip, packet, now));
        }
        self.drop_frame(pool, frame, verdict);
    }

    /// Tells control something of a session; a full mailbox is counted, never waited for. `false` when it was
    /// full.
    pub(super) fn note(&mut self, event: SessionEvent) -> bool {
        let queued = self.shared.mailbox.push_note(event);
        if !queued {
            self.tally.count(Verdict::DropMailboxFull);
        }
        queued
    }

    /// Makes control look at the marks of a peer whose traffic began. What the mailbox has no room for is taken
    /// back, so that the next batch tries again: without the note no timer of the peer would run.
    pub(super) fn note_activity(&mut self, activity: &Activity, peer: &PeerEntry) {
        if activity.note() && !self.note(SessionEvent::Activity { peer: peer.id }) {
            activity.retract_note();
        }
    }

    /// Routes an opened packet as the kernel's tables say: to another peer, out of a link, or to the kernel.
    /// What a router must answer with ICMP (TTL spent, larger than the next link) or must not forward (multicast,
    /// broadcast, loopback, link-local) is the kernel's too.
    pub(super) fn forward(
        &mut self,
        pool: &mut FramePool,
        routing: &mut Routing<'_>,
        mut frame: Frame,
        inner: &Ip,
    ) {
        let next_hop = routing.fib.next_hop(inner.destination);
        let is_forwardable = is_forwardable(&inner.source) && is_forwardable(&inner.destination);
        match next_hop {
            _ if !is_forwardable || inner.hop_limit <= 1 => self.leave_to_kernel(frame),
            NextHop::Tunnel if inner.len <= routing.tables.tunnel_mtu => {
                decrement_ttl(pool.data_mut(&mut frame));
                self.tally.count(Verdict::OpenedToPeer);
                self.hairpin.push(frame);
            }
            NextHop::Link(hop) if inner.len <= hop.mtu as usize => {
                self.forward_to_link(pool, frame, inner, hop);
            }
            _ => self.leave_to_kernel(frame),
        }
    }

    /// Gives an opened packet to the kernel through the TUN device.
    pub(super) fn leave_to_kernel(&mut self, frame: Frame) {
        self.tally.count(Verdict::OpenedToTunnel);
        self.egress.packets.push(frame);
    }
}
