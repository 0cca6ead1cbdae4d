//! From workers to the threads for handshakes and to control: bounded queues and one eventfd. A worker never
//! waits; what does not fit is dropped and counted by the caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, SendTimeoutError, Sender};
use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use wireguard::constants::HANDSHAKE_QUEUE_MAX;
use wireguard::{CurveResult, Endpoint, Incoming, PeerId, SessionEvent};

/// What the threads for handshakes have found and control has not taken, at most.
pub const HANDSHAKE_EVENTS_MAX: usize = 1024;
/// Packets on their way to be staged, at most.
pub const STAGES_MAX: usize = 1024;
/// Notes on sessions, at most.
pub const NOTES_MAX: usize = 8192;

/// Turns of which each kind of event has at least one.
const SHARES: usize = 8;
/// How long a thread for handshakes waits for room before it looks whether it shall stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// A datagram that is no transport packet.
#[derive(Debug)]
pub struct QueuedHandshake {
    /// The whole UDP payload.
    pub datagram: Vec<u8>,
    /// Where it came from and which local address it was sent to.
    pub source: Endpoint,
}

/// What the threads for handshakes tell control.
#[derive(Debug)]
pub enum HandshakeEvent {
    /// A message was let in.
    Incoming(Incoming),
    /// Curve arithmetic that control asked for is done.
    WorkDone(CurveResult),
}

/// What control is told.
#[derive(Debug)]
pub enum WorkerEvent {
    /// Something about a handshake.
    Handshake(Box<HandshakeEvent>),
    /// Something a session's traffic says about its peer.
    Session(SessionEvent),
    /// A packet for a peer without a usable session.
    Stage {
        /// The peer whose allowed IPs hold the destination.
        peer: PeerId,
        /// The inner IP packet, unpadded.
        inner: Vec<u8>,
    },
}

/// Bounded queues from any number of workers. Handshakes, staged packets and notes each have a queue of their own,
/// so that a storm of one kind cannot push out the others.
#[derive(Debug)]
pub struct Mailbox {
    handshakes: (Sender<QueuedHandshake>, Receiver<QueuedHandshake>),
    handshake_events: (Sender<Box<HandshakeEvent>>, Receiver<Box<HandshakeEvent>>),
    stages: ArrayQueue<(PeerId, Vec<u8>)>,
    notes: ArrayQueue<SessionEvent>,
    /// Counts what was taken, so that every queue gets its share.
    turn: AtomicUsize,
    eventfd: OwnedFd,
    /// The eventfd has been written since control last rearmed it: one system call for many events.
    rung: AtomicBool,
}

impl Mailbox {
    /// Empty queues.
    ///
    /// # Errors
    /// `eventfd2(2)` failed: the process has no file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            handshakes: channel::bounded(HANDSHAKE_QUEUE_MAX),
            handshake_events: channel::bounded(HANDSHAKE_EVENTS_MAX),
            stages: ArrayQueue::new(STAGES_MAX),
            notes: ArrayQueue::new(NOTES_MAX),
            turn: AtomicUsize::new(0),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
        })
    }

    /// Queues a handshake message; `false` when too many wait.
    pub fn push_handshake(&self, datagram: &[u8], source: Endpoint) -> bool {
        let (queue, _) = &self.handshakes;
        // Asked first: in a flood most messages go no further, and then need not be copied.
        !queue.is_full() && queue.try_send(QueuedHandshake { datagram: datagram.to_vec(), source }).is_ok()
    }

    /// Handshake messages that wait, for the threads that take them.
    pub fn handshakes(&self) -> &Receiver<QueuedHandshake> {
        &self.handshakes.1
    }

    /// Queues a note and wakes control; `false` when too many wait.
    pub fn push_note(&self, event: SessionEvent) -> bool {
        let is_queued = self.notes.push(event).is_ok();
        self.ring();
        is_queued
    }

    /// Queues a packet to be staged, an inner IP packet without padding, for the peer whose allowed IPs hold its
    /// destination, and wakes control; `false` when too many wait.
    pub fn push_stage(&self, peer: PeerId, inner: Vec<u8>) -> bool {
        let is_queued = self.stages.push((peer, inner)).is_ok();
        self.ring();
        is_queued
    }

    /// Queues what a thread for handshakes has found. Waits for room, unless `is_stopped`: then it is dropped.
    pub fn push_handshake_event(&self, event: HandshakeEvent, is_stopped: impl Fn() -> bool) {
        let mut event = Box::new(event);
        if is_stopped() {
            return;
        }
        let (queue, _) = &self.handshake_events;
        while let Err(SendTimeoutError::Timeout(refused)) = queue.send_timeout(event, PATIENCE) {
            if is_stopped() {
                return;
            }
            event = refused;
            self.ring();
        }
        self.ring();
    }

    #[cfg(test)]
    pub(crate) fn is_handshake_event_queue_full(&self) -> bool {
        self.handshake_events.0.is_full()
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: it is written once between two rearms.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Takes the oldest event: notes before staged packets before handshakes, since what authenticated peers need
    /// comes before what strangers send. Of every `SHARES` turns one is each of the others', so that no flood of
    /// one kind keeps all else waiting.
    pub fn pop(&self) -> Option<WorkerEvent> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let note = || self.notes.pop().map(WorkerEvent::Session);
        let stage = || self.stages.pop().map(|(peer, inner)| WorkerEvent::Stage { peer, inner });
        let handshake = || self.handshake_events.1.try_recv().ok().map(WorkerEvent::Handshake);
        match turn % SHARES {
            0 => handshake().or_else(note).or_else(stage),
            1 => stage().or_else(handshake).or_else(note),
            _ => note().or_else(stage).or_else(handshake),
        }
    }

    /// Readable while events wait. Call [`Mailbox::rearm`] before popping.
    pub fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Makes the next `push` ring again. To be called before the queues are drained: an event pushed while
    /// draining is then either popped or rings anew.
    pub fn rearm(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.eventfd, &mut counter);
        // A swap, not a store: it reads what the last `push` wrote, so that push's event is visible to the pops.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(peer: u32) -> SessionEvent {
        SessionEvent::Activity { peer: PeerId(peer) }
    }

    #[test]
    fn a_full_queue_refuses_and_leaves_the_others_open() {
        let mailbox = Mailbox::new().unwrap();
        for peer in 0..NOTES_MAX {
            assert!(mailbox.push_note(note(peer as u32)));
        }
        assert!(!mailbox.push_note(note(0)));
        assert!(mailbox.push_stage(PeerId(1), vec![0; 20]));
    }

    #[test]
    fn no_flood_of_notes_keeps_a_packet_from_being_staged() {
        let mailbox = Mailbox::new().unwrap();
        for peer in 0..100 {
            mailbox.push_note(note(peer));
        }
        mailbox.push_stage(PeerId(1), vec![0; 20]);
        let is_stage = |event| matches!(event, Some(WorkerEvent::Stage { .. }));
        assert!((0..SHARES).any(|_| is_stage(mailbox.pop())));
    }

    #[test]
    fn the_eventfd_rings_once_until_rearmed() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.push_note(note(1));
        mailbox.push_note(note(2));
        let mut counter = [0; 8];
        assert_eq!(rustix::io::read(mailbox.eventfd(), &mut counter), Ok(8));
        assert_eq!(u64::from_ne_bytes(counter), 1);
        mailbox.rearm();
        mailbox.push_note(note(3));
        assert_eq!(rustix::io::read(mailbox.eventfd(), &mut counter), Ok(8));
    }
}
