//! Tunnel to network: packets are matched to peers, given nonces, padded, sealed in one AEAD batch and put
//! behind the outer headers of their path.

use std::net::SocketAddr;
use std::sync::Arc;

use aead::{Packet, TAG_LEN};
use arrayvec::ArrayVec;
use gateway_ebpf::parse;
use wireguard::message::{TRANSPORT_HEADER_LEN, TransportHeader};
use wireguard::{SessionEvent, Time, padded_len};
use zerocopy::IntoBytes;

use super::counters::Verdict;
use super::engine::{BATCH_MAX, Engine};
use super::fib::NextHop;
use super::tables::{Path, PeerEntry, SealingSession, Tables};
use crate::io::{Datagram, Frame, FramePool};

/// Peers of one loop, at most.
const LOOP_MAX: usize = 64;

/// Scratch of one batch of packets being sealed; empty between batches.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// Inner packets as routed, with their ECN fields; parallel to the runs of `to`.
    routed: Vec<(Frame, u8)>,
    to: Vec<Destined>,
    /// Messages with header and padding, ready for the AEAD; parallel to `outgoing`.
    frames: Vec<Frame>,
    outgoing: Vec<Outgoing>,
    runs: Vec<Run>,
}

/// Consecutive packets for one peer.
#[derive(Debug)]
struct Destined {
    peer: Arc<PeerEntry>,
    len: usize,
}

#[derive(Debug)]
struct Outgoing {
    counter: u64,
    ecn: u8,
}

/// Consecutive messages sealed under one session.
#[derive(Debug)]
struct Run {
    session: Arc<SealingSession>,
    peer: Arc<PeerEntry>,
    path: Arc<Path>,
    len: usize,
}

impl Engine {
    /// Seals and encapsulates `packets` (frames that hold one inner IP packet each) together with what
    /// [`Engine::inbound`] left for other peers, and leaves `packets` empty.
    pub fn outbound(&mut self, pool: &mut FramePool, packets: &mut Vec<Frame>, now: Time) {
        packets.append(&mut self.hairpin);
        if packets.is_empty() {
            return;
        }
        let mut sealing = std::mem::take(&mut self.sealing);
        for frame in packets.drain(..) {
            self.match_peer(pool, &mut sealing, frame, now);
        }
        self.reserve(pool, &mut sealing, now);
        self.seal(pool, &mut sealing);
        self.emit(pool, &mut sealing, now);
        self.sealing = sealing;
    }

    /// Cryptokey routing: the peer whose allowed IPs hold the destination.
    fn match_peer(&mut self, pool: &mut FramePool, sealing: &mut Sealing, mut frame: Frame, now: Time) {
        let Ok(inner) = parse::ip(pool.data(&frame)) else {
            return self.drop_frame(pool, frame, Verdict::DropInnerMalformed);
        };
        // Ethernet pads short frames: what follows the packet is not part of it.
        frame.set_len(inner.len);
        let tables = self.tables.load();
        let Some(peer) = tables.allowed_ips.lookup(inner.destination) else {
            return self.refuse(pool, frame, Verdict::DropNoPeer, now);
        };
        if is_looping(tables, peer, &inner, pool.data(&frame)) {
            return self.drop_frame(pool, frame, Verdict::DropLoop);
        }
        match sealing.to.last_mut() {
            Some(run) if Arc::ptr_eq(&run.peer, peer) => run.len += 1,
            _ => sealing.to.push(Destined { peer: Arc::clone(peer), len: 1 }),
        }
        sealing.routed.push((frame, inner.ecn()));
    }

    /// Takes the nonces of each run at once. A run without a session that may send is staged.
    fn reserve(&mut self, pool: &mut FramePool, sealing: &mut Sealing, now: Time) {
        let Sealing { routed, to, frames, outgoing, runs } = sealing;
        let mut routed = routed.drain(..);
        for Destined { peer, len } in to.drain(..) {
            let packets = routed.by_ref().take(len);
            let Some(path) = peer.path.load_full() else {
                packets.for_each(|(frame, _)| self.refuse(pool, frame, Verdict::DropNoEndpoint, now));
                continue;
            };
            let session = peer.current.load_full();
            let first = session.as_ref().and_then(|data| data.session.reserve(len as u32, now));
            let (Some(session), Some(first)) = (session, first) else {
                packets.for_each(|(frame, _)| self.stage(pool, &peer, frame));
                continue;
            };
            let sealed_before = frames.len();
            for (counter, (frame, ecn)) in (first..).zip(packets) {
                if let Some(frame) = self.prepare(pool, &session, counter, frame) {
                    frames.push(frame);
                    outgoing.push(Outgoing { counter, ecn });
                }
            }
            runs.push(Run { session, peer, path, len: frames.len() - sealed_before });
        }
    }

    /// Leaves a packet to control, which initiates a handshake and sends it after.
    fn stage(&mut self, pool: &mut FramePool, peer: &PeerEntry, frame: Frame) {
        let is_queued = self.shared.mailbox.push_stage(peer.id, pool.data(&frame).to_vec());
        let verdict = if is_queued { Verdict::Staged } else { Verdict::DropMailboxFull };
        self.drop_frame(pool, frame, verdict);
    }

    /// Pads the packet, makes room for the tag and writes the message header. A nonce whose packet does not
    /// fit its frame is never used: gaps are what replay windows expect.
    fn prepare(
        &mut self,
        pool: &mut FramePool,
        data: &SealingSession,
        counter: u64,
        mut frame: Frame,
    ) -> Option<Frame> {
        let inner_len = frame.len();
        let tables = self.tables.load();
        // Padding must not make a packet larger than its route lets through (kernel `calculate_skb_padding`).
        let route_mtu = parse::ip(pool.data(&frame))
            .ok()
            .and_then(|inner| tables.fib.tunnel_mtu_towards(inner.destination))
            .map_or(tables.tunnel_mtu, |mtu| mtu.min(tables.tunnel_mtu));
        let padded = padded_len(inner_len, route_mtu);
        let fits = frame.set_len(padded + TAG_LEN) && frame.grow_front(TRANSPORT_HEADER_LEN);
        if !fits {
            self.drop_frame(pool, frame, Verdict::DropTooBig);
            return None;
        }
        let message = pool.data_mut(&mut frame);
        let header = TransportHeader::new(data.session.remote_index(), counter);
        message[..TRANSPORT_HEADER_LEN].copy_from_slice(header.as_bytes());
        message[TRANSPORT_HEADER_LEN + inner_len..].fill(0);
        Some(frame)
    }

    /// Seals the whole batch in place.
    fn seal(&mut self, pool: &mut FramePool, sealing: &mut Sealing) {
        let Sealing { frames, outgoing, runs, .. } = sealing;
        let mut keys = runs.iter().flat_map(|run| std::iter::repeat_n(&run.session.key, run.len));
        let mut buffers = pool.data_mut_each(frames);
        for chunk in outgoing.chunks(BATCH_MAX) {
            let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = ArrayVec::new();
            for (message, (key, buffer)) in chunk.iter().zip(keys.by_ref().zip(buffers.by_ref())) {
                packets.push(Packet {
                    key,
                    counter: message.counter,
                    buffer: &mut buffer[TRANSPORT_HEADER_LEN..],
                });
            }
            self.aead.seal(&mut packets);
        }
    }

    /// Prepends the outer headers and queues each run at its way out.
    fn emit(&mut self, pool: &mut FramePool, sealing: &mut Sealing, now: Time) {
        let Sealing { frames, outgoing, runs, .. } = sealing;
        let mut sealed = frames.drain(..).zip(outgoing.drain(..));
        for Run { session, peer, path, len } in runs.drain(..) {
            let mut bytes = 0;
            for (frame, message) in sealed.by_ref().take(len) {
                bytes += frame.len() as u64;
                self.emit_message(pool, &path, frame, &message);
            }
            if bytes > 0 {
                self.mark_sent(&session, &peer, bytes, now);
            }
        }
    }

    fn emit_message(&mut self, pool: &mut FramePool, path: &Path, mut frame: Frame, message: &Outgoing) {
        if let Some(link) = &path.link
            && link.header.packet_len(frame.len()) <= link.mtu as usize
            && let Some(frames) = self.egress.link_mut(link.interface_index)
            && frame.grow_front(link.header.len())
        {
            link.header.write(pool.data_mut(&mut frame), message.ecn, message.counter as u16);
            self.tally.count(Verdict::SealedToLink);
            frames.push(frame);
            return;
        }
        self.tally.count(Verdict::SealedToSocket);
        self.egress.datagrams.push(Datagram { frame, endpoint: path.outgoing, ecn: message.ecn });
    }

    fn mark_sent(&mut self, data: &SealingSession, peer: &PeerEntry, bytes: u64, now: Time) {
        peer.activity.sent(now, bytes, true);
        let local_index = data.session.local_index();
        if data.session.wants_rekey_on_send(now) {
            self.note(SessionEvent::RekeyOnSend { local_index });
        }
        self.note_activity(peer);
    }
}

/// Whether `packet` is a datagram of our own that, sealed for `peer`, would come back: to itself, where a peer's
/// endpoint is within its allowed IPs, or by way of other peers. Each round would put another header around it, with a
/// TTL of its own, and larger than the MTU it would go on in ever more fragments. A peer behind another peer is no loop,
/// nor is what others behind this host send from the same port.
fn is_looping(tables: &Tables, peer: &Arc<PeerEntry>, inner: &parse::Ip, packet: &[u8]) -> bool {
    let Some((source, destination)) = udp_ports(inner, packet) else { return false };
    if source != tables.listen_port || !tables.own_addresses.contains(&inner.source) {
        return false;
    }
    let to = SocketAddr::new(inner.destination, destination);
    let mut through = peer;
    for _ in 0..LOOP_MAX {
        let Some(remote) = through.path.load().as_ref().map(|path| path.endpoint.remote) else {
            return false;
        };
        if remote == to {
            return true;
        }
        // With policy rules nobody but the kernel knows: it is no loop then until it has come round.
        if tables.fib.lookup(remote.ip()) != NextHop::Tunnel {
            return false;
        }
        let Some(next) = tables.allowed_ips.lookup(remote.ip()) else { return false };
        through = next;
    }
    false
}

/// Source and destination port of a UDP datagram or of the first of its fragments.
fn udp_ports(ip: &parse::Ip, packet: &[u8]) -> Option<(u16, u16)> {
    const FRAGMENT_HEADER: u8 = 44;
    const FRAGMENT_HEADER_LEN: usize = 8;
    let payload = packet.get(ip.header_len..)?;
    let (protocol, udp, is_first) = match (ip.is_ipv6(), ip.protocol, payload) {
        (true, FRAGMENT_HEADER, [next, _, high, low, ..]) => {
            (*next, payload.get(FRAGMENT_HEADER_LEN..)?, *high == 0 && *low < 8)
        }
        (true, ..) => (ip.protocol, payload, true),
        (false, ..) => (ip.protocol, payload, packet[6] << 3 == 0 && packet[7] == 0),
    };
    match udp {
        [s0, s1, d0, d1, ..] if protocol == parse::PROTOCOL_UDP && is_first => {
            Some((u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])))
        }
        _ => None,
    }
}
