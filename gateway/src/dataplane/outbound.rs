//! Tunnel to network: packets are matched to peers, given nonces, padded, sealed in one AEAD batch and put
//! behind the outer headers of their path.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
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

/// Packets whose peers are known.
#[derive(Default)]
struct Routed<'t> {
    /// Parallel to the runs of `to`.
    packets: ArrayVec<InnerPacket, BATCH_MAX>,
    to: ArrayVec<Destined<'t>, BATCH_MAX>,
}

struct InnerPacket {
    frame: Frame,
    destination: IpAddr,
    ecn: u8,
}

/// Consecutive packets for one peer.
struct Destined<'t> {
    peer: &'t PeerEntry,
    len: usize,
}

/// How the packets for a peer are sealed and where they go, at this moment.
struct Way {
    path: Option<Path>,
    /// Local index of the session.
    current: Option<u32>,
}

/// Messages on their way out.
#[derive(Default)]
struct Sealing<'t> {
    /// With header and padding, ready for the AEAD; parallel to `outgoing`.
    frames: ArrayVec<Frame, BATCH_MAX>,
    outgoing: ArrayVec<Outgoing, BATCH_MAX>,
    runs: ArrayVec<Run<'t>, BATCH_MAX>,
}

struct Outgoing {
    counter: u64,
    ecn: u8,
}

/// Consecutive messages sealed under one session.
struct Run<'t> {
    session: &'t SealingSession,
    peer: &'t PeerEntry,
    path: &'t Path,
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
        let routing = self.shared.tables.load();
        while !packets.is_empty() {
            let mut routed = Routed::default();
            for frame in packets.drain(..packets.len().min(BATCH_MAX)) {
                self.match_peer(pool, &routing, &mut routed, frame, now);
            }
            let mut ways = Ways::new();
            routed.ask_ways(&mut ways);
            // Loaded after the sessions' indices were read, so that it has these sessions.
            let tables = self.shared.tables.load();
            let mut sealing = Sealing::default();
            self.reserve(pool, &tables, &mut routed, &ways, &mut sealing, now);
            self.seal(pool, &mut sealing);
            self.emit(pool, &mut sealing, now);
        }
    }

    /// Cryptokey routing: the peer whose allowed IPs hold the destination.
    fn match_peer<'t>(
        &mut self,
        pool: &mut FramePool,
        tables: &'t Tables,
        routed: &mut Routed<'t>,
        mut frame: Frame,
        now: Time,
    ) {
        let Ok(inner) = parse::ip(pool.data(&frame)) else {
            return self.drop_frame(pool, frame, Verdict::DropInnerMalformed);
        };
        // Ethernet pads short frames: what follows the packet is not part of it.
        frame.set_len(inner.len);
        let Some(peer) = tables.allowed_ips.lookup(inner.destination) else {
            return self.refuse(pool, frame, Verdict::DropNoPeer, now);
        };
        if is_looping(tables, peer, &inner, pool.data(&frame)) {
            return self.drop_frame(pool, frame, Verdict::DropLoop);
        }
        match routed.to.last_mut() {
            Some(run) if std::ptr::eq(run.peer, Arc::as_ptr(peer)) => run.len += 1,
            _ => routed.to.push(Destined { peer, len: 1 }),
        }
        routed.packets.push(InnerPacket { frame, destination: inner.destination, ecn: inner.ecn() });
    }

    /// Takes the nonces of each run at once. A run without a session that may send is staged.
    fn reserve<'t, 'r: 't>(
        &mut self,
        pool: &mut FramePool,
        tables: &'t Tables,
        routed: &mut Routed<'r>,
        ways: &'t Ways,
        sealing: &mut Sealing<'t>,
        now: Time,
    ) {
        let sessions = sessions_of(tables, routed, ways);
        let mut packets = routed.packets.drain(..);
        for ((Destined { peer, len }, Way { path, .. }), session) in
            routed.to.drain(..).zip(ways).zip(&sessions)
        {
            let run = packets.by_ref().take(len);
            let Some(path) = path else {
                run.for_each(|packet| self.refuse(pool, packet.frame, Verdict::DropNoEndpoint, now));
                continue;
            };
            let first = session.and_then(|sending| sending.session.reserve(len as u32, now));
            let (&Some(session), Some(first)) = (session, first) else {
                run.for_each(|packet| self.stage(pool, peer, packet.frame));
                continue;
            };
            let sealed_before = sealing.frames.len();
            for (counter, packet) in (first..).zip(run) {
                let ecn = packet.ecn;
                if let Some(frame) = self.prepare(pool, tables, session, counter, packet) {
                    sealing.frames.push(frame);
                    sealing.outgoing.push(Outgoing { counter, ecn });
                }
            }
            sealing.runs.push(Run { session, peer, path, len: sealing.frames.len() - sealed_before });
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
        tables: &Tables,
        data: &SealingSession,
        counter: u64,
        packet: InnerPacket,
    ) -> Option<Frame> {
        let InnerPacket { mut frame, destination, .. } = packet;
        let inner_len = frame.len();
        // Padding must not make a packet larger than its route lets through (kernel `calculate_skb_padding`).
        let route_mtu = tables.fib.tunnel_mtu_towards(destination);
        let padded =
            padded_len(inner_len, route_mtu.map_or(tables.tunnel_mtu, |mtu| mtu.min(tables.tunnel_mtu)));
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
    fn seal(&mut self, pool: &mut FramePool, sealing: &mut Sealing<'_>) {
        let Sealing { frames, outgoing, runs } = sealing;
        let keys = runs.iter().flat_map(|run| std::iter::repeat_n(&run.session.key, run.len));
        let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = outgoing
            .iter()
            .zip(keys)
            .zip(pool.data_mut_each(frames))
            .map(|((message, key), buffer)| Packet {
                key,
                counter: message.counter,
                buffer: &mut buffer[TRANSPORT_HEADER_LEN..],
            })
            .collect();
        self.aead.seal(&mut packets);
    }

    /// Prepends the outer headers and queues each run at its way out.
    fn emit(&mut self, pool: &mut FramePool, sealing: &mut Sealing<'_>, now: Time) {
        let mut sealed = sealing.frames.drain(..).zip(sealing.outgoing.drain(..));
        for Run { session, peer, path, len } in sealing.runs.drain(..) {
            let mut bytes = 0;
            for (frame, message) in sealed.by_ref().take(len) {
                bytes += frame.len() as u64;
                self.emit_message(pool, path, frame, &message);
            }
            if bytes > 0 {
                self.mark_sent(session, peer, bytes, now);
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
        self.egress.datagrams.push(Datagram { frame, endpoint: path.outgoing(), ecn: message.ecn });
    }

    fn mark_sent(&mut self, data: &SealingSession, peer: &PeerEntry, bytes: u64, now: Time) {
        peer.activity.sent(now, bytes, true);
        if data.session.wants_rekey_on_send(now) {
            self.note(SessionEvent::RekeyOnSend { local_index: data.session.local_index() });
        }
        self.note_activity(&peer.activity, peer);
    }
}

type Ways = ArrayVec<Way, BATCH_MAX>;

impl Routed<'_> {
    /// Reads what the peers say of themselves: one after the other, so that none is waited for alone.
    fn ask_ways(&self, ways: &mut Ways) {
        black_box(self.to.iter().map(|destined| destined.peer.touch()).fold(0, |all, one| all ^ one));
        for Destined { peer, .. } in &self.to {
            ways.push(Way { path: peer.path(), current: peer.current() });
        }
    }
}

/// The session each run is sealed under, parallel to `routed.to`; the memory they need next is asked for.
///
/// `None` where there is none yet, or where control put another in its place between the two reads: control gets the
/// packets, and sends them.
fn sessions_of<'t>(
    tables: &'t Tables,
    routed: &Routed<'_>,
    ways: &Ways,
) -> ArrayVec<Option<&'t SealingSession>, BATCH_MAX> {
    let mut slots: ArrayVec<u32, BATCH_MAX> =
        ways.iter().map(|way| way.current.unwrap_or_default()).collect();
    tables.sessions.slots_of(&mut slots);
    let sessions: ArrayVec<_, BATCH_MAX> = ways
        .iter()
        .zip(slots)
        .map(|(way, slot)| tables.sessions.at(slot, way.current?)?.sending.as_deref())
        .collect();
    if sessions.len() > 1 {
        let found = || sessions.iter().flatten();
        black_box(found().map(|sending| sending.touch()).fold(0, |all, one| all ^ one));
        black_box(found().map(|sending| sending.touch_rest()).fold(0, |all, one| all ^ one));
        let last_sent = |destined: &Destined<'_>| destined.peer.activity.last_sent();
        black_box(routed.to.iter().filter_map(last_sent).fold(0, |all, time| all ^ time.0));
    }
    sessions
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
        let Some(remote) = through.path().map(|path| path.endpoint.remote) else {
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
