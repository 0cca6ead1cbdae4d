//! Network to tunnel: datagrams are opened in one AEAD batch, then checked and forwarded in the order the
//! kernel does it (drivers/net/wireguard/receive.c): replay, roaming, key confirmation, inner header, ECN,
//! source address.
//!
//! With many clients every packet of a batch is of another session, and what is known of it is in no cache. So a batch
//! goes through the steps together, and before each step all its packets ask for the memory it needs: waiting for one
//! is waiting for all.

use std::hint::black_box;

use aead::Packet;
use arrayvec::ArrayVec;
use gateway_ebpf::parse::{self, ETHERNET_LEN, Ip};
use wireguard::message::{TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use wireguard::{Endpoint, MessageType, ReplayError, SessionEvent, Time};
use zerocopy::FromBytes;

use super::counters::Verdict;
use super::encap::write_ethernet;
use super::engine::{BATCH_MAX, Engine, Routing};
use super::fib::{LinkHop, RepeatedLookup};
use super::heard::Heard;
use super::inner::{decapsulate_ecn, decrement_ttl};
use super::session_table::SessionEntry;
use super::tables::{DataSession, Tables};
use crate::io::{Datagram, Frame, FramePool};

/// Transport data messages on their way through the steps.
#[derive(Default)]
struct Batch<'t> {
    /// The messages, whole; parallel to `messages`.
    frames: ArrayVec<Frame, BATCH_MAX>,
    messages: ArrayVec<Message, BATCH_MAX>,
    /// Consecutive messages of one session; their lengths add up to the number of messages.
    runs: ArrayVec<Run<'t>, BATCH_MAX>,
}

struct Message {
    counter: u64,
    source: Endpoint,
    ecn: u8,
    /// `None` while all is well.
    refused: Option<Verdict>,
}

/// Messages with the same receiver index.
struct Run<'t> {
    local_index: u32,
    /// `None` where the index names no session that may receive.
    entry: Option<&'t SessionEntry>,
    len: usize,
}

impl Engine {
    /// Opens and forwards `datagrams` (frames that hold exactly one UDP payload each) and leaves `datagrams` empty.
    /// Packets for other peers are sealed by the next [`Engine::outbound`].
    pub fn inbound(&mut self, pool: &mut FramePool, datagrams: &mut Vec<Datagram>, now: Time) {
        let tables = self.shared.tables.load();
        while !datagrams.is_empty() {
            let mut batch = Batch::default();
            for datagram in datagrams.drain(..datagrams.len().min(BATCH_MAX)) {
                self.admit(pool, &mut batch, datagram);
            }
            batch.find_sessions(&tables);
            batch.refuse_unknown(now);
            self.open(pool, &mut batch);
            self.accept(&mut batch, now);
            self.deliver(pool, &tables, &mut batch);
        }
    }

    /// Sorts one datagram: data waits for the next step, handshakes go to their threads.
    fn admit(&mut self, pool: &mut FramePool, batch: &mut Batch<'_>, datagram: Datagram) {
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
        match batch.runs.last_mut() {
            Some(run) if run.local_index == receiver => run.len += 1,
            _ => batch.runs.push(Run { local_index: receiver, entry: None, len: 1 }),
        }
        batch.frames.push(frame);
        batch.messages.push(Message { counter, source: endpoint, ecn, refused: None });
    }

    /// Verifies and decrypts the whole batch in place.
    fn open(&mut self, pool: &mut FramePool, batch: &mut Batch<'_>) {
        let Batch { frames, messages, runs } = batch;
        let entries = runs.iter().flat_map(|run| std::iter::repeat_n(run.entry, run.len));
        let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = ArrayVec::new();
        let mut opened: ArrayVec<&mut Message, BATCH_MAX> = ArrayVec::new();
        for ((message, buffer), entry) in messages.iter_mut().zip(pool.data_mut_each(frames)).zip(entries) {
            let Some(entry) = entry.filter(|_| message.refused.is_none()) else { continue };
            packets.push(Packet {
                key: &entry.receiving.opening,
                counter: message.counter,
                buffer: &mut buffer[TRANSPORT_HEADER_LEN..],
            });
            opened.push(message);
        }
        self.aead.open(&mut packets, &mut self.authentic);
        for (message, is_authentic) in opened.iter_mut().zip(&self.authentic) {
            if !is_authentic {
                message.refused = Some(Verdict::DropNotAuthentic);
            }
        }
    }

    /// Replay, activity marks, roaming and key confirmation, once per run of messages of one session.
    fn accept(&mut self, batch: &mut Batch<'_>, now: Time) {
        let mut start = 0;
        for run in &batch.runs {
            let range = start..start + run.len;
            start = range.end;
            if let Some(entry) = run.entry {
                self.accept_run(entry, &mut batch.messages[range.clone()], &batch.frames[range], now);
            }
        }
    }

    fn accept_run(&mut self, entry: &SessionEntry, messages: &mut [Message], frames: &[Frame], now: Time) {
        let (data, session) = (&*entry.receiving, entry.session());
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
        let local_index = entry.local_index();
        data.activity.received(now, bytes, carries_data);
        self.follow(data, local_index, source);
        if session.confirm() {
            self.seal_under(entry, now);
            if !self.note(SessionEvent::Confirmed { local_index }) {
                // Lost, control would never let go of the session before: the next packet confirms again.
                session.retract_confirmation();
            }
        }
        if session.wants_rekey_on_receive(now) {
            self.note(SessionEvent::RekeyOnReceive { local_index });
        }
        self.note_activity(&data.activity, &data.peer);
    }

    /// Roaming. Replies to these very packets must go where they came from, so what control will find out is not
    /// waited for: until then they leave through the socket. Without the note control would never find out.
    fn follow(&mut self, data: &DataSession, local_index: u32, source: Endpoint) {
        let peer = &data.peer;
        let known = peer.heard();
        if known.is_at(&source) {
            return;
        }
        if self.note(SessionEvent::Roamed { local_index, endpoint: source }) {
            // Unless control, or another worker, was faster.
            let heard = Heard::at(&source);
            peer.replace_heard(known, heard);
            if !self.is_live(data) {
                // Removed meanwhile: control will not heed the note.
                peer.replace_heard(heard, known);
            }
        }
    }

    /// Lets a session that was just confirmed take over from the one that sends: the answer to its first packet
    /// must not go under keys that a restarted peer no longer has. Control does the same when it hears of it.
    fn seal_under(&self, confirmed: &SessionEntry, now: Time) {
        let (data, session) = (&*confirmed.receiving, confirmed.session());
        let Some(held_index) = data.peer.current() else { return };
        let tables = self.shared.tables.load();
        // A newer one is ours, of a handshake that crossed: then the confirmed session only receives. Without one
        // that may send, packets wait at control, which lets them go in their order.
        let gives_way = |held: &SessionEntry| {
            held.session().created_at() <= session.created_at() && held.session().may_send(now)
        };
        if !tables.sessions.lookup(held_index).is_some_and(gives_way) {
            return;
        }
        let local_index = session.local_index();
        data.peer.replace_current(held_index, Some(local_index));
        if !self.is_live(data) {
            // Control removed it meanwhile, perhaps before it could see that it is current.
            data.peer.replace_current(local_index, None);
        }
    }

    /// Whether `data` is still in the table: not in the batch's, in the one that counts now.
    fn is_live(&self, data: &DataSession) -> bool {
        let tables = self.shared.tables.load();
        let held = tables.sessions.lookup(data.session.local_index());
        held.is_some_and(|held| std::ptr::eq(&raw const *held.receiving, data))
    }

    /// Inner checks, then on to where the packet goes.
    fn deliver(&mut self, pool: &mut FramePool, tables: &Tables, batch: &mut Batch<'_>) {
        let mut routing = Routing { tables, fib: RepeatedLookup::new(&tables.fib) };
        let mut messages = batch.frames.drain(..).zip(batch.messages.drain(..));
        for run in batch.runs.drain(..) {
            for (frame, message) in messages.by_ref().take(run.len) {
                match (message.refused, run.entry) {
                    (None, Some(entry)) => {
                        self.deliver_message(pool, &mut routing, &entry.receiving, frame, message.ecn);
                    }
                    (refused, _) => {
                        self.drop_frame(pool, frame, refused.unwrap_or(Verdict::DropUnknownIndex));
                    }
                }
            }
        }
    }

    fn deliver_message(
        &mut self,
        pool: &mut FramePool,
        routing: &mut Routing<'_>,
        data: &DataSession,
        mut frame: Frame,
        outer_ecn: u8,
    ) {
        let opened_len = frame.len() - TRANSPORT_OVERHEAD;
        frame.trim_front(TRANSPORT_HEADER_LEN);
        frame.set_len(opened_len);
        if opened_len == 0 {
            return self.drop_frame(pool, frame, Verdict::KeepaliveReceived);
        }
        match check_inner(routing.tables, data, pool.data_mut(&mut frame), outer_ecn) {
            Ok(inner) => {
                frame.set_len(inner.len);
                self.forward(pool, routing, frame, &inner);
            }
            Err(verdict) => self.drop_frame(pool, frame, verdict),
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

impl<'t> Batch<'t> {
    /// Looks up the session of each run, and asks for the memory that the next steps need.
    fn find_sessions(&mut self, tables: &'t Tables) {
        let mut slots: ArrayVec<u32, BATCH_MAX> = self.runs.iter().map(|run| run.local_index).collect();
        tables.sessions.slots_of(&mut slots);
        for (run, slot) in self.runs.iter_mut().zip(slots) {
            run.entry = tables.sessions.at(slot, run.local_index);
        }
        if self.runs.len() > 1 {
            self.touch();
        }
    }

    /// Marks what has no session to be opened with.
    fn refuse_unknown(&mut self, now: Time) {
        let mut messages = self.messages.iter_mut();
        for run in &mut self.runs {
            let refused = match run.entry {
                None => Some(Verdict::DropUnknownIndex),
                Some(entry) if entry.session().may_receive(now) => None,
                Some(_) => Some(Verdict::DropExpired),
            };
            for message in messages.by_ref().take(run.len) {
                message.refused = refused;
            }
        }
    }

    /// Each pass follows the pointers that the one before brought.
    fn touch(&self) {
        let found = || self.runs.iter().filter_map(|run| run.entry).map(|entry| &*entry.receiving);
        black_box(found().map(DataSession::touch).fold(0, |all, one| all ^ one));
        let (mut first, mut all) = (0, 0);
        for run in &self.runs {
            if let Some(entry) = run.entry {
                all ^= entry.receiving.touch_rest(self.messages[first].counter);
            }
            first += run.len;
        }
        black_box(all);
    }
}

/// Header, ECN and source of an opened packet.
fn check_inner(tables: &Tables, data: &DataSession, packet: &mut [u8], outer_ecn: u8) -> Result<Ip, Verdict> {
    let inner = parse::ip(packet).map_err(|_| Verdict::DropInnerMalformed)?;
    if !decapsulate_ecn(outer_ecn, &inner, packet) {
        return Err(Verdict::DropEcn);
    }
    if !data.is_source_allowed(inner.source, tables) {
        return Err(Verdict::DropSourceNotAllowed);
    }
    Ok(inner)
}
