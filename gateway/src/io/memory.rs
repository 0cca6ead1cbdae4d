//! Ports without a kernel: what a test injects is received, what is sent can be taken out.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use wireguard::Endpoint;

use super::{Datagram, DatagramPort, Frame, FramePool, LinkPort, TunnelPort};

/// Both ends of a queue of bytes with a bound on what is accepted for sending.
#[derive(Debug)]
struct Wire<T> {
    incoming: Mutex<VecDeque<T>>,
    outgoing: Mutex<Vec<T>>,
    outgoing_max: usize,
}

impl<T> Wire<T> {
    fn new(outgoing_max: usize) -> Arc<Self> {
        Arc::new(Self { incoming: Mutex::default(), outgoing: Mutex::default(), outgoing_max })
    }

    fn incoming(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self) -> MutexGuard<'_, Vec<T>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `sent` if there is room.
    fn send(&self, sent: T) -> bool {
        let mut outgoing = self.outgoing();
        let has_room = outgoing.len() < self.outgoing_max;
        if has_room {
            outgoing.push(sent);
        }
        has_room
    }
}

/// The test's side of a memory port.
#[derive(Debug)]
pub struct Handle<T>(Arc<Wire<T>>);

impl<T> Handle<T> {
    /// Lets the port receive `item`.
    pub fn inject(&self, item: T) {
        self.0.incoming().push_back(item);
    }

    /// Everything sent since the last call, which makes room again.
    pub fn take_sent(&self) -> Vec<T> {
        std::mem::take(&mut self.0.outgoing())
    }
}

fn frame_with(pool: &mut FramePool, bytes: &[u8]) -> Option<Frame> {
    let mut frame = pool.reserve()?;
    if !frame.set_len(bytes.len()) {
        pool.release(frame);
        return None;
    }
    pool.data_mut(&mut frame).copy_from_slice(bytes);
    Some(frame)
}

/// Takes up to `limit` items while frames are free; items that fit no frame are dropped.
fn receive_from<T>(wire: &Wire<T>, limit: usize, mut into: impl FnMut(&T) -> bool) -> usize {
    let mut count = 0;
    let mut incoming = wire.incoming();
    while count < limit {
        let Some(item) = incoming.pop_front() else { break };
        count += usize::from(into(&item));
    }
    count
}

/// Ethernet frames in memory.
#[derive(Debug)]
pub struct MemoryLink {
    interface_index: u32,
    wire: Arc<Wire<Vec<u8>>>,
}

impl MemoryLink {
    /// A link that accepts `tx_max` frames until the test takes them.
    pub fn new(interface_index: u32, tx_max: usize) -> (Self, Handle<Vec<u8>>) {
        let wire = Wire::new(tx_max);
        (Self { interface_index, wire: Arc::clone(&wire) }, Handle(wire))
    }
}

impl LinkPort for MemoryLink {
    fn interface_index(&self) -> u32 {
        self.interface_index
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize {
        receive_from(&self.wire, limit, |bytes| {
            let frame = frame_with(pool, bytes);
            let is_received = frame.is_some();
            into.extend(frame);
            is_received
        })
    }

    fn transmit(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> usize {
        let mut sent = 0;
        for frame in frames.drain(..) {
            sent += usize::from(self.wire.send(pool.data(&frame).to_vec()));
            pool.release(frame);
        }
        sent
    }

    fn maintain(&mut self, _pool: &mut FramePool) {}

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

/// A datagram in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDatagram {
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// The other side.
    pub endpoint: Endpoint,
    /// ECN field of the outer header.
    pub ecn: u8,
}

/// UDP payloads in memory.
#[derive(Debug)]
pub struct MemoryDatagrams(Arc<Wire<MemoryDatagram>>);

impl MemoryDatagrams {
    /// A port that accepts `tx_max` datagrams until the test takes them.
    pub fn new(tx_max: usize) -> (Self, Handle<MemoryDatagram>) {
        let wire = Wire::new(tx_max);
        (Self(Arc::clone(&wire)), Handle(wire))
    }
}

impl DatagramPort for MemoryDatagrams {
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Datagram>, limit: usize) -> usize {
        receive_from(&self.0, limit, |datagram| {
            let frame = frame_with(pool, &datagram.payload);
            let is_received = frame.is_some();
            into.extend(frame.map(|frame| Datagram {
                frame,
                endpoint: datagram.endpoint,
                ecn: datagram.ecn,
            }));
            is_received
        })
    }

    fn transmit(&mut self, pool: &mut FramePool, datagrams: &mut Vec<Datagram>) -> usize {
        let mut sent = 0;
        for Datagram { frame, endpoint, ecn } in datagrams.drain(..) {
            let payload = pool.data(&frame).to_vec();
            sent += usize::from(self.0.send(MemoryDatagram { payload, endpoint, ecn }));
            pool.release(frame);
        }
        sent
    }

    fn poll_fds(&self) -> ArrayVec<BorrowedFd<'_>, 2> {
        ArrayVec::new()
    }
}

/// Inner packets in memory.
#[derive(Debug)]
pub struct MemoryTunnel(Arc<Wire<Vec<u8>>>);

impl MemoryTunnel {
    /// A port that accepts `tx_max` packets until the test takes them.
    pub fn new(tx_max: usize) -> (Self, Handle<Vec<u8>>) {
        let wire = Wire::new(tx_max);
        (Self(Arc::clone(&wire)), Handle(wire))
    }
}

impl TunnelPort for MemoryTunnel {
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize {
        receive_from(&self.0, limit, |bytes| {
            let frame = frame_with(pool, bytes);
            let is_received = frame.is_some();
            into.extend(frame);
            is_received
        })
    }

    fn transmit(&mut self, pool: &mut FramePool, packets: &mut Vec<Frame>) -> usize {
        let mut sent = 0;
        for frame in packets.drain(..) {
            sent += usize::from(self.0.send(pool.data(&frame).to_vec()));
            pool.release(frame);
        }
        sent
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
