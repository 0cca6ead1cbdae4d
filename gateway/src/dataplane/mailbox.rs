//! From workers to control: bounded queues and one eventfd. A worker never waits; what does not fit is
//! dropped and counted by the caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use wireguard::{Endpoint, PeerId, SessionEvent};

/// Handshake messages waiting for control, at most. As many as the kernel queues
/// (`MAX_QUEUED_INCOMING_HANDSHAKES`, drivers/net/wireguard/messages.h).
pub const HANDSHAKES_MAX: usize = 4096;
/// Packets on their way to be staged, at most.
pub const STAGES_MAX: usize = 1024;
/// Notes on sessions, at most.
pub const NOTES_MAX: usize = 8192;

/// What a worker tells control.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A message of type 1, 2 or 3.
    Handshake {
        /// The whole UDP payload.
        datagram: Vec<u8>,
        /// Where it came from and which local address it was sent to.
        source: Endpoint,
    },
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

/// Bounded queues from any number of workers to control. Handshakes, staged packets and notes each have a
/// queue of their own, so that a storm of one kind cannot push out the others.
#[derive(Debug)]
pub struct Mailbox {
    handshakes: ArrayQueue<WorkerEvent>,
    stages: ArrayQueue<WorkerEvent>,
    notes: ArrayQueue<WorkerEvent>,
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
            handshakes: ArrayQueue::new(HANDSHAKES_MAX),
            stages: ArrayQueue::new(STAGES_MAX),
            notes: ArrayQueue::new(NOTES_MAX),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
        })
    }

    /// Queues `event` and wakes control; `false` when the queue of its kind is full.
    pub fn push(&self, event: WorkerEvent) -> bool {
        let queue = match event {
            WorkerEvent::Handshake { .. } => &self.handshakes,
            WorkerEvent::Session(_) => &self.notes,
            WorkerEvent::Stage { .. } => &self.stages,
        };
        let queued = queue.push(event).is_ok();
        if !self.rung.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: it is written once between two rearms.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
        queued
    }

    /// Takes the oldest event: notes before staged packets before handshakes, since what authenticated
    /// peers need never waits for what strangers send.
    pub fn pop(&self) -> Option<WorkerEvent> {
        self.notes.pop().or_else(|| self.stages.pop()).or_else(|| self.handshakes.pop())
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

    fn note(peer: u32) -> WorkerEvent {
        WorkerEvent::Session(SessionEvent::Activity { peer: PeerId(peer) })
    }

    #[test]
    fn a_full_queue_refuses_and_leaves_the_others_open() {
        let mailbox = Mailbox::new().unwrap();
        for peer in 0..NOTES_MAX {
            assert!(mailbox.push(note(peer as u32)));
        }
        assert!(!mailbox.push(note(0)));
        assert!(mailbox.push(WorkerEvent::Stage { peer: PeerId(1), inner: vec![0; 20] }));
    }

    #[test]
    fn the_eventfd_rings_once_until_rearmed() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.push(note(1));
        mailbox.push(note(2));
        let mut counter = [0; 8];
        assert_eq!(rustix::io::read(mailbox.eventfd(), &mut counter), Ok(8));
        assert_eq!(u64::from_ne_bytes(counter), 1);
        mailbox.rearm();
        mailbox.push(note(3));
        assert_eq!(rustix::io::read(mailbox.eventfd(), &mut counter), Ok(8));
    }
}
