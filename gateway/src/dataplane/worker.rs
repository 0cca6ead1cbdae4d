//! One worker: takes what its ports received, runs the engine to completion and sends what it left. It waits
//! for nothing but packets, and blocks only when there are none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;
use gateway_ebpf::layout::MAX_INTERFACES;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wireguard::Time;

use super::classify::Roles;
use super::counters::{Verdict, WorkerCounters};
use super::engine::{BATCH_MAX, Engine};
use crate::clock::Clock;
use crate::io::{Datagram, DatagramPort, Frame, FramePool, LinkPort, TunnelPort, UnreachablePort};

/// How long a link worker looks for packets before it blocks: longer than the gap between two packets of a
/// busy queue, short against a scheduler tick.
const IDLE_SPIN: Duration = Duration::from_micros(20);

/// How long a link worker stays awake before it blocks at the first moment without packets, spinning no more.
///
/// Whoever never sleeps is stopped by the scheduler at a tick, and for a whole tick (4 ms at 250 Hz) if something
/// else is to run; whoever sleeps at a moment of its own is back within microseconds of the next packet, as a waking
/// thread is preferred. Measured at 50 kpps with a busy kernel thread beside it: the median stays, the 90th percentile
/// becomes that of a wake-up, and the 99th falls from milliseconds to some tens of microseconds; 100 us are worse, 30 us
/// cost the median.
const STINT: Duration = Duration::from_micros(50);

/// Links of one worker: as many as the XDP program serves interfaces.
const LINKS_MAX: usize = MAX_INTERFACES as usize;
/// What a worker waits for at most: its links, [`Stop`], a UDP socket per family, the TUN device.
const POLLED_MAX: usize = LINKS_MAX + 4;

/// The longest block: frames that complete while nothing arrives are taken back at this pace.
const IDLE_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The longest block while a driver's queue was full: it is tried again at this pace.
const PENDING_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The pause after a poll that reported nothing but errors.
const ERROR_WAIT: Duration = Duration::from_millis(10);

/// A link of a worker and what the worker does with its frames.
pub struct WorkerLink {
    /// The socket of this worker's queue.
    pub port: Box<dyn LinkPort>,
    /// What arrives there.
    pub roles: Roles,
}

/// The ports of one worker.
pub struct Ports {
    /// AF_XDP sockets; none for the socket worker.
    pub links: Vec<WorkerLink>,
    /// The kernel's UDP sockets.
    pub datagrams: Box<dyn DatagramPort>,
    /// The TUN device.
    pub tunnel: Box<dyn TunnelPort>,
    /// Where ICMP errors leave; without one nobody is told what has nowhere to go.
    pub errors: Option<Box<dyn UnreachablePort>>,
    /// Receive from the UDP sockets and the TUN device too. One worker does: the socket worker.
    pub receives_from_kernel: bool,
}

/// Tells workers to stop, and wakes them to hear it.
#[derive(Debug)]
pub struct Stop {
    stopped: AtomicBool,
    eventfd: OwnedFd,
}

impl Stop {
    /// Not stopped.
    ///
    /// # Errors
    /// `eventfd2(2)` failed: the process has no file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { stopped: AtomicBool::new(false), eventfd })
    }

    /// Ends every worker's loop after its current turn.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// Whether [`Stop::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// A worker, to be run on a thread of its own.
pub struct Worker {
    engine: Engine,
    pool: FramePool,
    ports: Ports,
    counters: Arc<WorkerCounters>,
    received: Vec<Frame>,
    datagrams: Vec<Datagram>,
    packets: Vec<Frame>,
}

impl Worker {
    /// A worker over `ports`, whose frames all come from `pool`.
    pub fn new(engine: Engine, pool: FramePool, ports: Ports, counters: Arc<WorkerCounters>) -> Self {
        Self {
            engine,
            pool,
            ports,
            counters,
            received: Vec::with_capacity(BATCH_MAX),
            datagrams: Vec::with_capacity(BATCH_MAX),
            packets: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Runs until `stop`. With `busy_poll` it never blocks and never yields its core.
    pub fn run(&mut self, stop: &Stop, clock: Clock, busy_poll: bool) {
        let mut idle_since = None;
        let mut awake_since = clock.monotonic();
        while !stop.is_stopped() {
            let now = clock.monotonic();
            if self.turn(now) > 0 {
                idle_since = None;
                continue;
            }
            if busy_poll {
                std::hint::spin_loop();
                continue;
            }
            let since = *idle_since.get_or_insert(now);
            if self.ports.receives_from_kernel
                || now.saturating_since(since) >= IDLE_SPIN
                || now.saturating_since(awake_since) >= STINT
            {
                self.wait(stop);
                idle_since = None;
                awake_since = clock.monotonic();
            }
        }
    }

    /// One pass over all ports; the number of packets received.
    pub fn turn(&mut self, now: Time) -> usize {
        let mut received = 0;
        for index in 0..self.ports.links.len() {
            received += self.take_from_link(index, now);
        }
        if self.ports.receives_from_kernel {
            received += self.take_from_kernel(now);
        }
        if received > 0 {
            self.flush();
            self.counters.add(self.engine.tally());
        }
        received
    }

    /// Frames this worker's pool and links account for: constant for the life of the worker.
    pub fn frames_accounted(&self) -> usize {
        self.pool.free_count() + self.ports.links.iter().map(|link| link.port.in_flight()).sum::<usize>()
    }

    fn take_from_link(&mut self, index: usize, now: Time) -> usize {
        let link = &mut self.ports.links[index];
        let count = link.port.receive(&mut self.pool, &mut self.received, BATCH_MAX);
        if count == 0 {
            // A silent link needs its sent frames taken back and its rings served all the same.
            link.port.maintain(&mut self.pool);
            return 0;
        }
        let interface_index = link.port.interface_index();
        let roles = link.roles;
        self.engine.classify(
            &mut self.pool,
            &mut self.received,
            interface_index,
            roles,
            &mut self.datagrams,
            &mut self.packets,
        );
        self.process(now);
        count
    }

    fn take_from_kernel(&mut self, now: Time) -> usize {
        let datagrams = self.ports.datagrams.receive(&mut self.pool, &mut self.datagrams, BATCH_MAX);
        let packets = self.ports.tunnel.receive(&mut self.pool, &mut self.packets, BATCH_MAX);
        if datagrams + packets > 0 {
            self.process(now);
        }
        datagrams + packets
    }

    fn process(&mut self, now: Time) {
        self.engine.inbound(&mut self.pool, &mut self.datagrams, now);
        self.engine.outbound(&mut self.pool, &mut self.packets, now);
    }

    /// Sends everything the engine left: one burst per port.
    fn flush(&mut self) {
        let egress = self.engine.egress();
        let mut refused =
            [(Verdict::DropLinkFull, 0), (Verdict::DropSocketFull, 0), (Verdict::DropTunnelFull, 0)];
        for (link, egress) in self.ports.links.iter_mut().zip(&mut egress.links) {
            if egress.frames.is_empty() {
                continue;
            }
            let queued = egress.frames.len();
            refused[0].1 += queued - link.port.transmit(&mut self.pool, &mut egress.frames);
        }
        if !egress.datagrams.is_empty() {
            let queued = egress.datagrams.len();
            refused[1].1 += queued - self.ports.datagrams.transmit(&mut self.pool, &mut egress.datagrams);
        }
        if !egress.packets.is_empty() {
            let queued = egress.packets.len();
            refused[2].1 += queued - self.ports.tunnel.transmit(&mut self.pool, &mut egress.packets);
        }
        match &mut self.ports.errors {
            Some(port) => port.transmit(&mut egress.unreachable),
            None => egress.unreachable.clear(),
        }
        for (verdict, count) in refused {
            self.engine.tally().add(verdict, count);
        }
    }

    /// Blocks until a port is readable, `stop` is called or [`IDLE_WAIT`] has passed.
    fn wait(&self, stop: &Stop) {
        self.counters.count_idle_wait();
        let mut fds: ArrayVec<PollFd<'_>, POLLED_MAX> = ArrayVec::new();
        fds.push(awaited(stop.eventfd.as_fd()));
        fds.extend(
            self.ports.links.iter().take(LINKS_MAX).filter_map(|link| link.port.poll_fd()).map(awaited),
        );
        if self.ports.receives_from_kernel {
            fds.extend(
                self.ports.datagrams.poll_fds().into_iter().chain(self.ports.tunnel.poll_fd()).map(awaited),
            );
        }
        // An interrupted or failed poll only means that the next turn finds nothing.
        let is_pending = self.ports.links.iter().any(|link| link.port.has_pending());
        let ready = poll(&mut fds, Some(if is_pending { &PENDING_WAIT } else { &IDLE_WAIT })).unwrap_or(0);
        let readable = fds.iter().any(|fd| fd.revents().contains(PollFlags::IN));
        if ready > 0 && !readable {
            // A link that went down or a deleted TUN device reports an error for ever: no reason to spin.
            std::thread::sleep(ERROR_WAIT);
        }
    }
}

/// A descriptor to become readable.
fn awaited(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
