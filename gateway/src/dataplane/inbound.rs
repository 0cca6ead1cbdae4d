//! Network to tunnel: datagrams are opened in one AEAD batch, then checked and forwarded in the order the
//! kernel does it (drivers/net/wireguard/receive.c): replay, roaming, key confirmation, inner header, ECN,
//! source address.

use std::sync::Arc;

use aead::Packet;
use arrayvec::ArrayVec;
use gateway_ebpf::parse::{self, ETHERNET_LEN, Ip};
use wireguard::message::{TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use wireguard::{Endpoint, MessageType, ReplayError, SessionEvent, Time};
use zerocopy::FromBytes;

use super::counters::Verdict;
use super::encap::write_ethernet;
use super::engine::{BATCH_MAX, Engine};
use super::fib::LinkHop;
use super::inner::{decapsulate_ecn, decrement_ttl};
use super::tables::{DataSession, Path, SealingSession};
use crate::io::{Datagram, Frame, FramePool};

/// Scratch of one batch of datagrams being opened; empty between batches.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// Transport data messages, whole; parallel to `messages`.
    frames: Vec<Frame>,
    messages: Vec<Message>,
    /// Consecutive messages of one session; their lengths add up to the number of messages.
    runs: Vec<Run>,
    /// Of the chunk that went through the AEAD last.
    authentic: Vec<bool>,
}

#[derive(Debug)]
struct Message {
    counter: u64,
    source: Endpoint,
    ecn: u8,
    /// `None` while all is well.
    refused: Option<Verdict>,
}

#[derive(Debug)]
struct Run {
    session: Arc<DataSession>,
    len: usize,
}

impl Engine {
    /// Opens and forwards `datagrams` (frames that hold exactly one UDP payload each), at most [`BATCH_MAX`],
    /// and leaves `datagrams` empty. Packets for other peers are sealed by the next [`Engine::outbound`].
    pub fn inbound(&mut self, pool: &mut FramePool, datagrams: &mut Vec<Datagram>, now: Time) {
        let mut opening = std::mem::take(&mut self.opening);
        for datagram in datagrams.drain(..) {
            self.admit(pool, &mut opening, datagram, now);
        }
        self.open(pool, &mut opening);
        self.accept(&mut opening, now);
        self.deliver(pool, &mut opening);
        self.opening = opening;
    }

    /// Sorts one datagram: data for a live session waits for the AEAD, handshakes go to their threads.
    fn admit(&mut self, pool: &mut FramePool, opening: &mut Opening, datagram: Datagram, now: Time) {
        let Datagram { frame, endpoint, ecn } = datagram;
        let bytes = pool.data(&frame);
        let (receiver, counter) = match MessageType::classify(bytes) {
            Ok(MessageType::Transport) => match TransportHeader::ref_from_prefix(bytes) {
                Ok((header, _)) => (header.receiver_index.get(), header.counter.get()),
                Err(_) => return self.drop_frame(pool, frame, Verdict::DropMalformed),
            },
            Ok(_) => {
                let is_queued = self.shared.mailbox.push_handshake(bytes, endpoint);
                let verdict = if is_queued { Verdict::HandshakePassed } else { Verdict::DropMailboxFull };
                return self.drop_frame(pool, frame, verdict);
            }
            Err(_) => return self.drop_frame(pool, frame, Verdict::DropMalformed),
        };
        match opening.runs.last_mut() {
            Some(run) if run.session.session.local_index() == receiver => run.len += 1,
            _ => match self.shared.sessions.lookup(receiver) {
                Some(session) if session.session.may_receive(now) => {
                    opening.runs.push(Run { session, len: 1 });
                }
                Some(_) => return self.drop_frame(pool, frame, Verdict::DropExpired),
                None => return self.drop_frame(pool, frame, Verdict::DropUnknownIndex),
            },
        }
        opening.frames.push(frame);
        opening.messages.push(Message { counter, source: endpoint, ecn, refused: None });
    }

    /// Verifies and decrypts the whole batch in place.
    fn open(&mut self, pool: &mut FramePool, opening: &mut Opening) {
        let Opening { frames, messages, runs, authentic } = opening;
        let mut keys = runs.iter().flat_map(|run| std::iter::repeat_n(&run.session.opening, run.len));
        let mut buffers = pool.data_mut_each(frames);
        for chunk in messages.chunks_mut(BATCH_MAX) {
            let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = ArrayVec::new();
            for (message, (key, buffer)) in chunk.iter().zip(keys.by_ref().zip(buffers.by_ref())) {
                packets.push(Packet {
                    key,
                    counter: message.counter,
                    buffer: &mut buffer[TRANSPORT_HEADER_LEN..],
                });
            }
            self.aead.open(&mut packets, authentic);
            for (message, is_authentic) in chunk.iter_mut().zip(&*authentic) {
                if !is_authentic {
                    message.refused = Some(Verdict::DropNotAuthentic);
                }
            }
        }
    }

    /// Replay, activity marks, roaming and key confirmation, once per run of messages of one session.
    fn accept(&mut self, opening: &mut Opening, now: Time) {
        let mut start = 0;
        for run in &opening.runs {
            let range = start..start + run.len;
            start = range.end;
            self.accept_run(&run.session, &mut opening.messages[range.clone()], &opening.frames[range], now);
        }
    }

    fn accept_run(&mut self, data: &Arc<DataSession>, messages: &mut [Message], frames: &[Frame], now: Time) {
        let session = &data.session;
        let (mut bytes, mut carries_data, mut last) = (0, false, None);
        let mut replay = session.replay();
        for (message, frame) in messages.iter_mut().zip(frames) {
            if message.refused.is_some() {
                continue;
            }
            match replay.accept(message.counter) {
                Ok(()) => {
                    bytes += frame.len() as u64;
                    carries_data |= frame.len() > TRANSPORT_OVERHEAD;
                    last = Some(message.source);
                }
                Err(ReplayError::Seen) => message.refused = Some(Verdict::DropReplayed),
                Err(ReplayError::TooOld) => message.refused = Some(Verdict::DropTooOld),
                Err(ReplayError::Limit) => message.refused = Some(Verdict::DropCounterLimit),
            }
        }
        drop(replay);
        let Some(source) = last else { return };
        let local_index = session.local_index();
        data.peer.activity.received(now, bytes, carries_data);
        self.follow(data, source);
        if session.confirm() {
            self.seal_under(data, now);
            if !self.note(SessionEvent::Confirmed { local_index }) {
                // Lost, control would never let go of the session before: the next packet confirms again.
                session.retract_confirmation();
            }
        }
        if session.wants_rekey_on_receive(now) {
            self.note(SessionEvent::RekeyOnReceive { local_index });
        }
        self.note_activity(&data.peer);
    }

    /// Roaming. Replies to these very packets must go where they came from, so what control will find out is not
    /// waited for: until then they leave through the socket. Without the note control would never find out.
    fn follow(&mut self, data: &DataSession, source: Endpoint) {
        let (peer, local_index) = (&data.peer, data.session.local_index());
        let known = peer.path.load();
        if known.as_ref().is_some_and(|path| path.endpoint == source) {
            return;
        }
        if self.note(SessionEvent::Roamed { local_index, endpoint: source }) {
            // Unless control, or another worker, was faster.
            let path = Arc::new(Path { endpoint: source, outgoing: source, link: None });
            peer.path.compare_and_swap(&known, Some(Arc::clone(&path)));
            let held = self.shared.sessions.lookup(local_index);
            if !held.is_some_and(|held| Arc::ptr_eq(&held.session, &data.session)) {
                // Removed meanwhile: control will not heed the note.
                peer.path.compare_and_swap(&path, known.as_ref().map(Arc::clone));
            }
        }
    }

    /// Lets a session that was just confirmed take over from the one that sends: the answer to its first packet
    /// must not go under keys that a restarted peer no longer has. Control does the same when it hears of it.
    fn seal_under(&self, data: &DataSession, now: Time) {
        let current = data.peer.current.load();
        // A newer one is ours, of a handshake that crossed: then the confirmed session only receives. Without one
        // that may send, packets wait at control, which lets them go in their order.
        let gives_way = |held: &Arc<SealingSession>| {
            held.session.created_at() <= data.session.created_at() && held.session.may_send(now)
        };
        if !current.as_ref().is_some_and(gives_way) {
            return;
        }
        let sealing = Arc::new(SealingSession::new(Arc::clone(&data.session)));
        data.peer.current.compare_and_swap(&current, Some(Arc::clone(&sealing)));
        let held = self.shared.sessions.lookup(data.session.local_index());
        if !held.is_some_and(|held| Arc::ptr_eq(&held.session, &data.session)) {
            // Control removed it meanwhile, perhaps before it could see that it is current.
            data.peer.current.compare_and_swap(&sealing, None);
        }
    }

    /// Inner checks, then on to where the packet goes.
    fn deliver(&mut self, pool: &mut FramePool, opening: &mut Opening) {
        let mut messages = opening.frames.drain(..).zip(opening.messages.drain(..));
        for run in opening.runs.drain(..) {
            for (frame, message) in messages.by_ref().take(run.len) {
                match message.refused {
                    Some(verdict) => self.drop_frame(pool, frame, verdict),
                    None => self.deliver_message(pool, &run.session, frame, message.ecn),
                }
            }
        }
    }

    fn deliver_message(&mut self, pool: &mut FramePool, data: &DataSession, mut frame: Frame, outer_ecn: u8) {
        let opened_len = frame.len() - TRANSPORT_OVERHEAD;
        frame.trim_front(TRANSPORT_HEADER_LEN);
        frame.set_len(opened_len);
        if opened_len == 0 {
            return self.drop_frame(pool, frame, Verdict::KeepaliveReceived);
        }
        match self.check_inner(data, pool.data_mut(&mut frame), outer_ecn) {
            Ok(inner) => {
                frame.set_len(inner.len);
                self.forward(pool, frame, &inner);
            }
            Err(verdict) => self.drop_frame(pool, frame, verdict),
        }
    }

    /// Header, ECN and source of an opened packet. The source must belong to the peer by a device-wide
    /// longest-prefix match: a prefix of its own is not enough where another peer has a longer one.
    fn check_inner(&mut self, data: &DataSession, packet: &mut [u8], outer_ecn: u8) -> Result<Ip, Verdict> {
        let inner = parse::ip(packet).map_err(|_| Verdict::DropInnerMalformed)?;
        if !decapsulate_ecn(outer_ecn, &inner, packet) {
            return Err(Verdict::DropEcn);
        }
        match self.tables.load().allowed_ips.lookup(inner.source) {
            Some(owner) if Arc::ptr_eq(owner, &data.peer) => Ok(inner),
            _ => Err(Verdict::DropSourceNotAllowed),
        }
    }

    /// Puts an Ethernet header before an opened packet and queues it for `hop`'s link.
    pub(super) fn forward_to_link(
        &mut self,
        pool: &mut FramePool,
        mut frame: Frame,
        inner: &Ip,
        hop: &LinkHop,
    ) {
        let Some(frames) = self.egress.link_mut(hop.interface_index) else {
            return self.leave_to_kernel(frame);
        };
        decrement_ttl(pool.data_mut(&mut frame));
        frame.grow_front(ETHERNET_LEN);
        write_ethernet(pool.data_mut(&mut frame), hop, inner.destination.is_ipv6());
        self.tally.count(Verdict::OpenedToLink);
        frames.push(frame);
    }
}
