//! One interface of the load generator: an AF_XDP socket that gets all UDP packets of the interface.

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
/// The interfaces have one queue.
const QUEUE: u32 = 0;

/// The interface and its frames.
pub struct Port {
    // Before the socket: packets go back to the kernel first.
    _redirect: Redirect,
    link: AfXdpLink,
    pool: FramePool,
    monitor: LinkMonitor,
    outgoing: Vec<Frame>,
    incoming: Vec<Frame>,
}

impl Port {
    /// Opens an interface of a namespace.
    ///
    /// # Errors
    /// No such interface, no right, or another program has it.
    pub fn open(namespace: Option<&str>, interface: &str) -> Result<Self> {
        within(namespace, || {
            // Inside, too: the first socket is the one that the memory is registered with.
            let (umem, frames) = Umem::new(FRAME_LEN, FRAME_COUNT, Backing::Registered)?;
            Self::on(FramePool::new(umem, frames), interface)
        })
    }

    fn on(mut pool: FramePool, interface: &str) -> Result<Self> {
        let (link, redirect) = attach(&mut pool, interface)?;
        let monitor = link.monitor();
        Ok(Self {
            _redirect: redirect,
            link,
            pool,
            monitor,
            outgoing: Vec::with_capacity(BURST),
            incoming: Vec::with_capacity(RECEIVE_BURST),
        })
    }

    /// Whether a burst can be sent: the driver has taken the last one. Tries to hand it on if not.
    pub fn is_ready(&mut self) -> bool {
        if self.link.has_pending() || self.pool.free_count() < BURST {
            self.link.maintain(&mut self.pool);
        }
        !self.link.has_pending() && self.pool.free_count() >= BURST
    }

    /// Adds a frame of `len` bytes to the burst and has it written; `false` when there is no free frame.
    #[inline]
    pub fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        let Some(mut frame) = self.pool.reserve() else { return false };
        if !frame.set_len(len) {
            self.pool.release(frame);
            return false;
        }
        write(self.pool.data_mut(&mut frame));
        self.outgoing.push(frame);
        true
    }

    /// Sends the burst; returns how many frames the ring took.
    pub fn flush(&mut self) -> usize {
        self.link.transmit(&mut self.pool, &mut self.outgoing)
    }

    /// Shows every frame of one burst received, and when that was; returns how many there were.
    #[inline]
    pub fn receive(&mut self, mut see: impl FnMut(u64, &[u8])) -> usize {
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

    /// Takes back what was sent, and provides for what comes: for when there is nothing else to do.
    pub fn maintain(&mut self) {
        self.link.maintain(&mut self.pool);
    }

    /// Packets so far that reached the socket and were dropped there.
    pub fn drops(&self) -> u64 {
        self.monitor.read().kernel.map_or(0, |kernel| kernel.rx_dropped + kernel.rx_ring_full)
    }
}

/// Binds the socket of `interface`, which must be in the thread's namespace, and redirects its packets there.
pub fn attach(pool: &mut FramePool, interface: &str) -> Result<(AfXdpLink, Redirect)> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("cannot open a socket")?;
    let index =
        netdevice::name_to_index(any, interface).with_context(|| format!("no interface {interface}"))?;
    let link = AfXdpLink::open(pool, interface, index, QUEUE, CopyMode::Always)?;
    let redirect = Redirect::attach(interface, index, QUEUE, link.monitor().socket())?;
    Ok((link, redirect))
}
