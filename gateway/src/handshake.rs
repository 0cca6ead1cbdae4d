//! Threads for handshakes: they sort what strangers send and do the curve arithmetic, so that neither a packet nor
//! an operator ever waits for it.
//!
//! Workers queue handshake messages, at most [`HANDSHAKE_QUEUE_MAX`](wireguard::constants::HANDSHAKE_QUEUE_MAX) of
//! them; what is let in goes on to control, which owns the device. Control's own work comes first: it belongs to
//! handshakes that are under way.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, select_biased, unbounded};
use wireguard::{Admission, Admitted, CurveWork, Endpoint};

use crate::clock::Clock;
use crate::dataplane::mailbox::{HandshakeEvent, Mailbox, QueuedHandshake};

/// A thread for every so many processors.
const PROCESSORS_PER_THREAD: usize = 4;
/// More threads than this make the device, which is one thread's, the limit.
const THREADS_MAX: usize = 4;
/// Handshakes give way to packets where they share a core.
const NICENESS: i32 = 10;

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub struct HandshakeThreads {
    /// At most one initiation per peer, and one piece of work per message let in: the device bounds it.
    work: Option<Sender<CurveWork>>,
    /// What no message waits for.
    ahead: Option<Sender<CurveWork>>,
    threads: Vec<JoinHandle<()>>,
    is_stopped: Arc<AtomicBool>,
}

/// What each thread has.
#[derive(Clone)]
struct Place<Reply> {
    admission: Arc<Admission>,
    mailbox: Arc<Mailbox>,
    work: Receiver<CurveWork>,
    ahead: Receiver<CurveWork>,
    clock: Clock,
    reply: Reply,
    is_stopped: Arc<AtomicBool>,
}

impl HandshakeThreads {
    /// Starts as many threads as suit the machine. `reply` sends a datagram to where a message came from, from
    /// where it was sent to.
    ///
    /// # Errors
    /// The process may not have another thread.
    pub fn start(
        admission: Arc<Admission>,
        mailbox: Arc<Mailbox>,
        clock: Clock,
        reply: impl Fn(&Endpoint, &[u8]) + Clone + Send + 'static,
    ) -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let count = (processors / PROCESSORS_PER_THREAD).clamp(1, THREADS_MAX);
        let (work_sender, work) = unbounded();
        let (ahead_sender, ahead) = unbounded();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let place =
            Place { admission, mailbox, work, ahead, clock, reply, is_stopped: Arc::clone(&is_stopped) };
        let mut threads =
            Self { work: Some(work_sender), ahead: Some(ahead_sender), threads: Vec::new(), is_stopped };
        for number in 0..count {
            let place = place.clone();
            let thread = std::thread::Builder::new()
                .name(format!("wgx-hands-{number}"))
                .spawn(move || place.run())
                .context("cannot start a thread for handshakes")?;
            threads.threads.push(thread);
        }
        Ok(threads)
    }

    /// Has `work` done; what comes of it arrives in the mailbox.
    pub fn perform(&self, work: CurveWork) {
        let queue = if work.is_ahead() { &self.ahead } else { &self.work };
        if let Some(sender) = queue {
            // The threads hold the other end for as long as this lives.
            let _ = sender.send(work);
        }
    }
}

impl Drop for HandshakeThreads {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.work = None;
        self.ahead = None;
        for thread in self.threads.drain(..) {
            // A panic has ended the process before.
            let _ = thread.join();
        }
    }
}

impl<Reply: Fn(&Endpoint, &[u8])> Place<Reply> {
    fn run(self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::warn!(%error, "handshakes run at the priority of packets");
        }
        while !self.is_stopped.load(Ordering::Relaxed) {
            select_biased! {
                recv(self.work) -> work => match work {
                    Ok(work) => self.tell(HandshakeEvent::WorkDone(work.perform())),
                    Err(_) => return,
                },
                recv(self.mailbox.handshakes()) -> queued => match queued {
                    Ok(queued) => self.admit(&queued),
                    Err(_) => return,
                },
                recv(self.ahead) -> work => match work {
                    Ok(work) => self.tell(HandshakeEvent::WorkDone(work.perform())),
                    Err(_) => return,
                },
            }
        }
    }

    fn admit(&self, queued: &QueuedHandshake) {
        let QueuedHandshake { datagram, source } = queued;
        let waiting = self.mailbox.handshakes().len();
        match self.admission.admit(datagram, *source, waiting, self.clock.monotonic()) {
            Ok(Admitted::Message(incoming)) => self.tell(HandshakeEvent::Incoming(incoming)),
            Ok(Admitted::Reply(cookie)) => (self.reply)(source, &cookie),
            // Counted there; strangers write no log lines.
            Err(_) => {}
        }
    }

    /// Control takes what it can; until then this thread waits and its queue fills, which is what load is.
    fn tell(&self, event: HandshakeEvent) {
        self.mailbox.push_handshake_event(event, || self.is_stopped.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use wireguard::{
        Device, DeviceChange, DropReason, Output, PeerChange, PrivateKey, PrivateKeyChange,
        constants::HANDSHAKE_QUEUE_MAX,
    };

    use super::*;
    use crate::dataplane::mailbox::WorkerEvent;

    type Replies = Arc<Mutex<Vec<(Endpoint, Vec<u8>)>>>;

    fn key(byte: u8) -> PrivateKey {
        PrivateKey::from_bytes([byte; 32])
    }

    fn device(byte: u8, peer: u8, endpoint: Option<SocketAddr>, clock: Clock) -> Device {
        let mut device = Device::new([byte; 32]);
        let mut change = PeerChange::new(key(peer).public_key());
        change.endpoint = endpoint;
        change.persistent_keepalive = endpoint.map(|_| 1);
        let change = DeviceChange {
            private_key: PrivateKeyChange::Set(key(byte)),
            peers: vec![change],
            ..DeviceChange::default()
        };
        device.apply(change, clock.now()).unwrap();
        device.set_up(true, clock.now());
        device
    }

    /// An initiation of the owner of `key(2)` to the owner of `key(1)`.
    fn initiation(clock: Clock) -> Vec<u8> {
        let mut client = device(2, 1, Some(([192, 0, 2, 1], 51820).into()), clock);
        client.perform_work(clock.now()).unwrap();
        std::iter::from_fn(|| client.poll_output())
            .find_map(|output| match output {
                Output::Transmit { datagram, .. } => Some(datagram),
                _ => None,
            })
            .expect("a persistent keepalive makes the client initiate")
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn start(device: &Device, mailbox: &Arc<Mailbox>, clock: Clock) -> (HandshakeThreads, Replies) {
        let replies = Replies::default();
        let kept = Arc::clone(&replies);
        let reply = move |to: &Endpoint, datagram: &[u8]| kept.lock().unwrap().push((*to, datagram.to_vec()));
        let admission = Arc::clone(device.admission());
        (HandshakeThreads::start(admission, Arc::clone(mailbox), clock, reply).unwrap(), replies)
    }

    #[test]
    fn an_initiation_becomes_a_response_without_control_computing() {
        let (clock, mailbox) = (Clock::start(), Arc::new(Mailbox::new().unwrap()));
        let mut server = device(1, 2, None, clock);
        let (threads, _) = start(&server, &mailbox, clock);
        let source = Endpoint::from(SocketAddr::from(([198, 51, 100, 7], 999)));
        assert!(mailbox.push_handshake(&initiation(clock), source));
        wait_until("no response was made", || {
            while let Some(event) = mailbox.pop() {
                let WorkerEvent::Handshake(event) = event else { panic!("{event:?}") };
                let done = match *event {
                    HandshakeEvent::Incoming(incoming) => server.receive(incoming, clock.now()),
                    HandshakeEvent::WorkDone(result) => server.work_done(result, clock.now()),
                };
                done.unwrap();
            }
            while let Some(work) = server.poll_work() {
                threads.perform(work);
            }
            let is_response =
                |output| matches!(output, Output::Transmit { datagram, .. } if datagram[0] == 2);
            std::iter::from_fn(|| server.poll_output()).any(is_response)
        });
    }

    #[test]
    fn a_long_queue_is_answered_with_cookies() {
        let (clock, mailbox) = (Clock::start(), Arc::new(Mailbox::new().unwrap()));
        let server = device(1, 2, None, clock);
        let message = initiation(clock);
        let source = Endpoint::from(SocketAddr::from(([198, 51, 100, 7], 999)));
        for _ in 0..HANDSHAKE_QUEUE_MAX {
            assert!(mailbox.push_handshake(&message, source));
        }
        assert!(!mailbox.push_handshake(&message, source), "the queue is bounded");
        let (_threads, replies) = start(&server, &mailbox, clock);
        wait_until("no cookie was sent", || !replies.lock().unwrap().is_empty());
        let (to, cookie) = replies.lock().unwrap()[0].clone();
        assert_eq!((to, cookie.len(), cookie[0]), (source, 64, 3));
        wait_until("the queue is not worked off", || mailbox.handshakes().is_empty());
    }

    #[test]
    fn garbage_is_counted_and_nobody_hears_of_it() {
        let (clock, mailbox) = (Clock::start(), Arc::new(Mailbox::new().unwrap()));
        let server = device(1, 2, None, clock);
        let (_threads, replies) = start(&server, &mailbox, clock);
        let source = Endpoint::from(SocketAddr::from(([198, 51, 100, 7], 999)));
        let mut garbage = vec![0x5a; 148];
        garbage[..4].copy_from_slice(&[1, 0, 0, 0]);
        for _ in 0..100 {
            assert!(mailbox.push_handshake(&garbage, source));
        }
        wait_until("garbage is not counted", || server.counters().dropped(DropReason::InvalidMac1) == 100);
        assert!(mailbox.pop().is_none());
        assert!(replies.lock().unwrap().is_empty());
    }

    #[test]
    fn threads_end_also_while_control_takes_nothing() {
        let (clock, mailbox) = (Clock::start(), Arc::new(Mailbox::new().unwrap()));
        let server = device(1, 2, None, clock);
        let (threads, _) = start(&server, &mailbox, clock);
        let message = initiation(clock);
        let source = Endpoint::from(SocketAddr::from(([198, 51, 100, 7], 999)));
        // Below the mark of load, so that all of them are for control, and more than its queue takes.
        let mut pushed = 0;
        while pushed < 3000 {
            if mailbox.handshakes().len() < 256 {
                pushed += usize::from(mailbox.push_handshake(&message, source));
            } else if mailbox.is_handshake_event_queue_full() {
                break;
            }
        }
        drop(threads);
    }
}
