//! Where packets come from and go to: frames of memory, and the three kinds of port a worker owns.

pub mod af_xdp;
mod frame;
pub mod icmp;
pub mod memory;
pub mod tun;
pub mod udp;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

pub use af_xdp::umem::{Backing, Umem, UmemError};
use arrayvec::ArrayVec;
pub use frame::{FRAME_HEADROOM, Frame, FramePool};
use wireguard::Endpoint;

/// Ethernet frames in and out of one queue of one interface.
pub trait LinkPort: Send {
    /// The interface's index.
    fn interface_index(&self) -> u32;

    /// Appends up to `limit` received frames and returns how many. Never blocks.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize;

    /// Sends all of `frames` in one burst and leaves it empty; returns how many found room. The others go
    /// back to `pool`.
    fn transmit(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> usize;

    /// Takes back sent frames and provides new ones to receive into: called when nothing moves, too.
    fn maintain(&mut self, pool: &mut FramePool);

    /// Whether frames wait for the kernel to send them, because the driver's queue was full:
    /// [`LinkPort::maintain`] tries again.
    fn has_pending(&self) -> bool {
        false
    }

    /// Readable when frames wait; `None` when there is nothing to poll.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Frames the port holds, received or sent: with the pool's they add up to all of the worker's.
    fn in_flight(&self) -> usize;
}

/// A UDP payload and where it came from or goes to.
#[derive(Debug)]
pub struct Datagram {
    /// Holds exactly the payload.
    pub frame: Frame,
    /// The other side, and the local address it was sent to or is to be sent from.
    pub endpoint: Endpoint,
    /// ECN field of the outer header.
    pub ecn: u8,
}

/// UDP payloads through the kernel's sockets.
pub trait DatagramPort: Send {
    /// Appends up to `limit` received datagrams and returns how many. Never blocks.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Datagram>, limit: usize) -> usize;

    /// Sends all of `datagrams` and leaves it empty; returns how many the kernel took. All frames go back to
    /// `pool`.
    fn transmit(&mut self, pool: &mut FramePool, datagrams: &mut Vec<Datagram>) -> usize;

    /// Readable when datagrams wait: one socket per family at most.
    fn poll_fds(&self) -> ArrayVec<BorrowedFd<'_>, 2>;
}

/// Inner IP packets to and from the kernel.
pub trait TunnelPort: Send {
    /// Appends up to `limit` packets the kernel routed into the tunnel and returns how many. Never blocks.
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize;

    /// Gives all of `packets` to the kernel and leaves it empty; returns how many it took. All frames go back
    /// to `pool`.
    fn transmit(&mut self, pool: &mut FramePool, packets: &mut Vec<Frame>) -> usize;

    /// Readable when packets wait.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// An ICMP error on its way to whoever sent the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Source of the packet: where the error goes.
    pub to: IpAddr,
    /// Destination of the packet: what cannot be reached.
    pub about: IpAddr,
    /// The ICMP message from its type on. The checksum is in place for IPv4; for IPv6 it is left to the kernel, as
    /// it covers the source address.
    pub message: Vec<u8>,
}

/// ICMP errors to whoever sent what has nowhere to go.
pub trait UnreachablePort: Send {
    /// Sends what the kernel takes of `errors` and leaves it empty. Never blocks.
    fn transmit(&mut self, errors: &mut Vec<Unreachable>);
}
