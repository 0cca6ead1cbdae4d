//! One interface of the load generator: an AF_XDP socket per queue, which get all UDP packets of the interface.

use anyhow::{Context as _, Result};
use gateway::io::af_xdp::{AfXdpLink, CopyMode, LINK_FRAME_COUNT, LinkMonitor};
use gateway::io::{Backing, Frame, FramePool, LinkPort as _, Umem};
use gateway::xdp::Redirect;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::namespace::within;
use crate::media::clock::now_ns;

/// Frames sent or received in one go. A veth's queue holds 256: larger bursts would overflow it.
pub const BURST: usize = 32;
/// Frames received in one go, and time-stamped as one.
pub const RECEIVE_BURST: usize = 64;

const FRAME_LEN: u32 = 2048;
const FRAME_COUNT: u32 = LINK_FRAME_COUNT + 1024;
/// Plain forwarding has one queue of an interface.
const FIRST_QUEUE: u32 = 0;

/// The interface, its queues and their frames.
pub struct Port {
    // Before the sockets: packets go back to the kernel first.
    _redirect: Redirect,
    queues: Vec<Queue>,
    /// The queue to look at first.
    next: usize,
}

/// A socket with frames of its own.
struct Queue {
    link: AfXdpLink,
    pool: FramePool,
    monitor: LinkMonitor,
    outgoing: Vec<Frame>,
    incoming: Vec<Frame>,
}

impl Port {
    /// Opens the first `queue_count` queues of an interface of a namespace.
    ///
    /// # Errors
    /// No such interface or queue, no right, or another program has it.
    pub fn open(namespace: Option<&str>, interface: &str, queue_count: u32) -> Result<Self> {
        within(namespace, || {
            let index = interface_index(interface)?;
            let open = |queue| Queue::open(interface, index, queue);
            let queues = (0..queue_count).map(open).collect::<Result<Vec<_>>>()?;
            let sockets: Vec<_> =
                (0..).zip(&queues).map(|(number, queue)| (number, queue.monitor.socket())).collect();
            let redirect = Redirect::attach(interface, index, &sockets)?;
            Ok(Self { _redirect: redirect, queues, next: 0 })
        })
    }

    /// Whether a burst can be sent by any queue: the drivers have taken the last one. Tries to hand it on if not.
    pub fn is_ready(&mut self) -> bool {
        self.queues.iter_mut().all(Queue::is_ready)
    }

    /// Adds a frame of `len` bytes to the burst of the queue that `flow` goes by, and has it written; `false` when
    /// there is no free frame.
    #[inline]
    pub fn push(&mut self, flow: u32, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let count = self.queues.len();
        self.queues[flow as usize % count].push(len, write)
    }

    /// Sends the bursts; returns how many frames the rings took.
    pub fn flush(&mut self) -> usize {
        self.queues.iter_mut().map(Queue::flush).sum()
    }

    /// Shows every frame of one burst received by one of the queues, in turn, and when that was; returns how many
    /// there were.
    #[inline]
    pub fn receive(&mut self, mut see: impl FnMut(u64, &[u8])) -> usize {
        let count = self.queues.len();
        for _ in 0..count {
            let queue = self.next;
            self.next = if queue + 1 == count { 0 } else { queue + 1 };
            let received = self.queues[queue].receive(&mut see);
            if received > 0 {
                return received;
            }
        }
        0
    }

    /// Takes back what was sent, and provides for what comes: for when there is nothing else to do.
    pub fn maintain(&mut self) {
        for queue in &mut self.queues {
            queue.link.maintain(&mut queue.pool);
        }
    }

    /// Packets so far that reached a socket and were dropped there.
    pub fn drops(&self) -> u64 {
        let drops = |queue: &Queue| {
            queue.monitor.read().kernel.map_or(0, |kernel| kernel.rx_dropped + kernel.rx_ring_full)
        };
        self.queues.iter().map(drops).sum()
    }
}

impl Queue {
    /// To be called inside the namespace: the first socket is the one that the memory is registered with.
    fn open(interface: &str, index: u32, queue: u32) -> Result<Self> {
        let (umem, frames) = Umem::new(FRAME_LEN, FRAME_COUNT, Backing::Registered)?;
        let mut pool = FramePool::new(umem, frames);
        let link = AfXdpLink::open(&mut pool, interface, index, queue, CopyMode::Always)?;
        let monitor = link.monitor();
        Ok(Self {
            link,
            pool,
            monitor,
            outgoing: Vec::with_capacity(BURST),
            incoming: Vec::with_capacity(RECEIVE_BURST),
        })
    }

    fn is_ready(&mut self) -> bool {
        if self.link.has_pending() || self.pool.free_count() < BURST {
            self.link.maintain(&mut self.pool);
        }
        !self.link.has_pending() && self.pool.free_count() >= BURST
    }

    #[inline]
    fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let Some(mut frame) = self.pool.reserve() else { return false };
        if !frame.set_len(len) {
            self.pool.release(frame);
            return false;
        }
        write(self.pool.data_mut(&mut frame));
        self.outgoing.push(frame);
        true
    }

    fn flush(&mut self) -> usize {
        if self.outgoing.is_empty() { 0 } else { self.link.transmit(&mut self.pool, &mut self.outgoing) }
    }

    #[inline]
    fn receive(&mut self, see: &mut impl FnMut(u64, &[u8])) -> usize {
        let count = self.link.receive(&mut self.pool, &mut self.incoming, RECEIVE_BURST);
        if count == 0 {
            return 0;
        }
        let at_ns = now_ns();
        for frame in self.incoming.drain(..) {
            see(at_ns, self.pool.data(&frame));
            self.pool.release(frame);
        }
        count
    }
}

/// Binds the first queue's socket of `interface`, which must be in the thread's namespace, and redirects its packets
/// there.
pub fn attach(pool: &mut FramePool, interface: &str) -> Result<(AfXdpLink, Redirect)> {
    let index = interface_index(interface)?;
    let link = AfXdpLink::open(pool, interface, index, FIRST_QUEUE, CopyMode::Always)?;
    let redirect = Redirect::attach(interface, index, &[(FIRST_QUEUE, link.monitor().socket())])?;
    Ok((link, redirect))
}

/// The index of an interface of the thread's namespace.
///
/// # Errors
/// There is none of that name.
pub fn interface_index(interface: &str) -> Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("cannot open a socket")?;
    netdevice::name_to_index(any, interface).with_context(|| format!("no interface {interface}"))
}
