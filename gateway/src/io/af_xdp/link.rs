//! One AF_XDP socket as a [`LinkPort`].

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use xsk_rs::FrameDesc;

pub use super::bind::CopyMode;
use super::bind::{BindError, Rings, bind};
use super::monitor::{LinkCounters, LinkMonitor};
use super::options::{prefer_busy_poll, set_transmit_budget};
use super::tx_ring::{Descriptor, TxRing};
use super::umem::Umem;
use super::{BURST, ring_len};
use crate::io::{Frame, FramePool, LinkPort};

/// Send buffer of the socket. In copy mode a packet counts against it until its receiver frees it, with what the
/// kernel adds to each; the default holds about 90.
const SEND_BUFFER_LEN: usize = ring_len::TX as usize * 4096;

/// Packets one call sends in copy mode, where the kernel lets us say: every burst of a worker's turn.
pub(super) const TRANSMIT_BUDGET: u32 = 512;

/// The socket of one (interface, queue).
///
/// Frames it holds belong to the kernel: those in flight when it is dropped are lost to their pool, so a link
/// lives as long as its worker.
pub struct AfXdpLink {
    umem: Arc<Umem>,
    interface_index: u32,
    rings: Rings,
    tx_ring: TxRing,
    descriptors: [FrameDesc; BURST],
    /// Frames given to the fill ring and not yet received.
    filled: usize,
    /// Frames given to the transmit ring and not yet completed.
    transmitting: usize,
    /// Whether a system call on the socket polls the queue, and so has to be made when nothing is there.
    polls_napi: bool,
    counters: Arc<LinkCounters>,
    monitor: LinkMonitor,
}

impl AfXdpLink {
    /// Opens the socket of queue `queue` of `interface` on `umem` and fills its fill ring from `pool`.
    ///
    /// # Errors
    /// [`BindError`]: the queue is taken, the process may not, or driver or kernel refuse.
    pub fn open(
        pool: &mut FramePool,
        interface: &str,
        interface_index: u32,
        queue: u32,
        copy: CopyMode,
    ) -> Result<Self, BindError> {
        let umem = Arc::clone(pool.umem());
        let rings = bind(&umem, interface, queue, copy)?;
        // SAFETY: the descriptor is open as long as `rings`, which outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(rings.tx.fd().as_raw_fd()) };
        let counters = Arc::new(LinkCounters::default());
        let refused = |mode| {
            move |error: std::io::Error| BindError::Refused {
                interface: interface.into(),
                queue,
                mode,
                reason: error.to_string(),
            }
        };
        if sockopt::set_socket_send_buffer_size_force(fd, SEND_BUFFER_LEN).is_err() {
            // Without CAP_NET_ADMIN as much as net.core.wmem_max allows.
            let _ = sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_LEN);
        }
        // Before Linux 6.17 it stays at 32: `wake_tx` calls as often as it takes.
        let _ = set_transmit_budget(fd, TRANSMIT_BUDGET);
        let tx_ring = TxRing::map(fd, ring_len::TX)
            .map_err(refused("mapping the transmit ring, which takes Linux 6.4"))?;
        let monitor = LinkMonitor::new(interface, queue, fd, Arc::clone(&counters))
            .map_err(refused("reading socket options"))?;
        let mut link = Self {
            umem,
            interface_index,
            rings,
            tx_ring,
            descriptors: [FrameDesc::default(); BURST],
            filled: 0,
            transmitting: 0,
            polls_napi: false,
            counters,
            monitor,
        };
        link.refill(pool);
        Ok(link)
    }

    /// From now on the link polls the driver itself, in the system calls of its owner, who therefore must not sleep:
    /// while it receives and transmits, the queue needs no interrupts.
    ///
    /// What the kernel polls is [`LinkMonitor::napi_id`]; while that is unknown, packets arrive by interrupts.
    ///
    /// # Errors
    /// [`BindError::BusyPoll`]: the kernel is too old, or the process may not.
    pub fn poll_napi(&mut self) -> Result<(), BindError> {
        prefer_busy_poll(self.monitor.socket()).map_err(|refused| BindError::BusyPoll {
            interface: self.monitor.interface().into(),
            queue: self.monitor.queue(),
            option: refused.option,
            value: refused.value,
            reason: refused.source.to_string(),
        })?;
        // Before Linux 6.13 a call to send tells a zero-copy socket its NAPI instance; others it does no harm.
        let _ = rustix::net::send(self.monitor.socket(), &[], SendFlags::DONTWAIT);
        self.polls_napi = true;
        Ok(())
    }

    /// A handle on the counters and the socket.
    pub fn monitor(&self) -> LinkMonitor {
        self.monitor.clone()
    }

    /// Gives free frames to the kernel until the fill ring is full or the pool is empty.
    fn refill(&mut self, pool: &mut FramePool) {
        while self.filled < ring_len::FILL as usize {
            // In copy mode the kernel shows received packets before it shows that it has consumed their fill entries
            // (`xsk_flush`, net/xdp/xsk.c): the ring may have less room than `filled` says.
            let room = self.rings.fill.nb_free(BURST as u32) as usize;
            let want = BURST.min(ring_len::FILL as usize - self.filled).min(room);
            if want == 0 {
                return;
            }
            let mut count = 0;
            while count < want {
                let Some(frame) = pool.reserve() else { break };
                self.descriptors[count] = self.umem.descriptor(&frame);
                count += 1;
            }
            if count == 0 {
                self.counters.fill_starved();
                return;
            }
            // SAFETY: the frames are of this UMEM, and their tokens were consumed above: nothing in user space
            // can reach them until the receive ring gives them back.
            let given = unsafe { self.rings.fill.produce(&self.descriptors[..count]) };
            self.filled += given;
            if given < count {
                for descriptor in &self.descriptors[given..count] {
                    // Taken from the pool above, and refused: the tokens go back.
                    self.umem
                        .returned(descriptor.addr(), 0)
                        .into_iter()
                        .for_each(|frame| pool.release(frame));
                }
                return;
            }
        }
    }

    /// Puts descriptors of received frames into `descriptors` and returns how many.
    fn take_received(&mut self, limit: usize) -> usize {
        // SAFETY: the ring is of this UMEM, so are the descriptors it writes.
        unsafe { self.rings.rx.consume(&mut self.descriptors[..limit.min(BURST)]) }
    }

    /// Takes sent frames back.
    fn complete(&mut self, pool: &mut FramePool) {
        while self.transmitting > 0 {
            // SAFETY: the ring is of this UMEM, so are the descriptors it writes.
            let count = unsafe { self.rings.completion.consume(&mut self.descriptors) };
            for descriptor in &self.descriptors[..count] {
                if let Some(frame) = self.umem.returned(descriptor.addr(), 0) {
                    pool.release(frame);
                }
            }
            self.transmitting -= count.min(self.transmitting);
            if count < BURST {
                return;
            }
        }
    }

    /// Makes the kernel send what the transmit ring holds.
    fn wake_tx(&mut self) {
        let mut queued = self.tx_ring.queued();
        // In copy mode a call sends so many descriptors at most (`max_tx_budget`, net/xdp/xsk.c; 32 unless told
        // otherwise). A call that takes none ends the loop, so there are never more calls than packets.
        while queued > 0 && self.tx_ring.needs_wakeup() {
            match rustix::net::send(self.monitor.socket(), &[], SendFlags::DONTWAIT) {
                // AGAIN: more to send, or the driver's queue or the send buffer is full. BUSY: the driver dropped one.
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {}
                // The link is down or gone: the next burst tries again.
                Err(_) => return self.counters.wakeup_failed(),
            }
            let left = self.tx_ring.queued();
            if left == queued {
                return;
            }
            queued = left;
        }
    }
}

impl LinkPort for AfXdpLink {
    fn interface_index(&self) -> u32 {
        self.interface_index
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize {
        let mut count = self.take_received(limit);
        if count == 0 && self.polls_napi {
            // One call per empty look, none per packet. It receives nothing but lets the driver fill the ring
            // (`__xsk_recvmsg`, net/xdp/xsk.c). That of a link that is down fails: then there is nothing to take.
            let nothing: &mut [u8] = &mut [];
            let _ = rustix::net::recv(self.monitor.socket(), nothing, RecvFlags::DONTWAIT);
            self.counters.napi_polled();
            count = self.take_received(limit);
        }
        if count == 0 {
            return 0;
        }
        for descriptor in &self.descriptors[..count] {
            // A frame the kernel places outside the UMEM does not exist.
            into.extend(self.umem.returned(descriptor.addr(), descriptor.lengths().data()));
        }
        self.filled -= count.min(self.filled);
        self.counters.received(count);
        self.maintain(pool);
        count
    }

    fn transmit(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> usize {
        self.complete(pool);
        let (mut sent, mut refused) = (0, 0);
        for frame in frames.drain(..) {
            // No more under way than the completion ring can give back.
            let has_room = self.transmitting < ring_len::COMPLETION as usize;
            let descriptor =
                Descriptor { address: self.umem.address(&frame), len: frame.len() as u32, options: 0 };
            // The kernel refuses an empty descriptor and never gives it back.
            if has_room && !frame.is_empty() && self.tx_ring.push(descriptor) {
                // The token ends here: the frame is the kernel's until the completion ring gives it back.
                self.transmitting += 1;
                sent += 1;
            } else {
                pool.release(frame);
                refused += 1;
            }
        }
        self.tx_ring.publish();
        self.wake_tx();
        self.complete(pool);
        self.counters.sent(sent, refused);
        sent
    }

    fn maintain(&mut self, pool: &mut FramePool) {
        self.complete(pool);
        if self.filled + BURST <= ring_len::FILL as usize {
            self.refill(pool);
        }
        if self.rings.fill.needs_wakeup() {
            // In zero-copy the driver sleeps until it is told of new frames; an error is the next poll's.
            let _ = self.rings.rx.poll(0);
        }
        if self.tx_ring.queued() > 0 {
            self.wake_tx();
        }
    }

    fn has_pending(&self) -> bool {
        self.tx_ring.queued() > 0
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.monitor.socket())
    }

    fn in_flight(&self) -> usize {
        self.filled + self.transmitting
    }
}
