//! The UDP sockets as a [`DatagramPort`], with the kernel's segmentation offloads in both directions.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use nix::errno::Errno;
use quinn_udp::{RecvMeta, UdpSockRef};
use serde::Serialize;
use wireguard::{Endpoint, LocalAddress};

use super::{SEGMENTS_MAX, UdpSockets};
use crate::io::{Datagram, DatagramPort, FramePool};

/// The longest train of segments the kernel glues together (GRO), and the longest datagram.
const TRAIN_LEN_MAX: usize = 65535;
/// Trains taken in one system call.
const TRAINS_MAX: usize = 4;

/// What the UDP sockets did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UdpStatistics {
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Datagrams the kernel took to send.
    pub tx_datagrams: u64,
    /// Received datagrams dropped because they do not fit a frame.
    pub rx_too_long: u64,
    /// Received datagrams dropped because no frame was free.
    pub rx_no_frame: u64,
    /// Datagrams the kernel did not take: no route, full buffer, prohibited.
    pub tx_refused: u64,
}

/// Shared counters behind [`UdpStatistics`].
#[derive(Debug, Default)]
pub struct UdpCounters([AtomicU64; 5]);

#[derive(Clone, Copy)]
enum Counter {
    RxDatagrams,
    TxDatagrams,
    RxTooLong,
    RxNoFrame,
    TxRefused,
}

impl UdpCounters {
    fn add(&self, counter: Counter, count: usize) {
        // All workers share these counters: an addition, not a store.
        self.0[counter as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn read(&self) -> UdpStatistics {
        let of = |counter: Counter| self.0[counter as usize].load(Ordering::Relaxed);
        UdpStatistics {
            rx_datagrams: of(Counter::RxDatagrams),
            tx_datagrams: of(Counter::TxDatagrams),
            rx_too_long: of(Counter::RxTooLong),
            rx_no_frame: of(Counter::RxNoFrame),
            tx_refused: of(Counter::TxRefused),
        }
    }
}

/// A worker's way to the UDP sockets, which control may replace at any time.
pub struct UdpPort {
    /// Where control puts new sockets.
    published: Arc<ArcSwap<UdpSockets>>,
    /// Those received from: kept so that their descriptors stay valid while they are polled. A port that only
    /// sends holds none, so that replaced sockets are closed and their port is free again.
    receiving: Option<Arc<UdpSockets>>,
    /// Which family is looked at first: they take turns, so that a flood in one does not starve the other.
    v6_first: bool,
    counters: Arc<UdpCounters>,
    trains: Box<[u8]>,
}

impl UdpPort {
    /// A port on whatever sockets are in `published`.
    pub fn new(published: Arc<ArcSwap<UdpSockets>>, counters: Arc<UdpCounters>) -> Self {
        Self {
            receiving: None,
            v6_first: false,
            published,
            counters,
            trains: vec![0; TRAIN_LEN_MAX * TRAINS_MAX].into(),
        }
    }

    /// The sockets to receive from now, followed when control replaces them.
    fn follow(&mut self) -> Arc<UdpSockets> {
        let published = self.published.load();
        match &self.receiving {
            Some(receiving) if Arc::ptr_eq(&published, receiving) => Arc::clone(receiving),
            _ => Arc::clone(self.receiving.insert(Arc::clone(&published))),
        }
    }
}

impl DatagramPort for UdpPort {
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Datagram>, limit: usize) -> usize {
        let sockets = self.follow();
        let mut families: ArrayVec<_, 2> = sockets.each().collect();
        if self.v6_first {
            families.reverse();
        }
        self.v6_first = !self.v6_first;
        let before = into.len();
        for family in families {
            // A train may be longer than what is left of the limit: it is taken whole, or not begun.
            if into.len() - before >= limit {
                break;
            }
            let mut meta = [RecvMeta::default(); TRAINS_MAX];
            let mut buffers: [IoSliceMut<'_>; TRAINS_MAX] = {
                let mut trains = self.trains.chunks_exact_mut(TRAIN_LEN_MAX);
                std::array::from_fn(|_| IoSliceMut::new(trains.next().expect("one chunk per train")))
            };
            let Ok(count) = family.state.recv(UdpSockRef::from(&family.socket), &mut buffers, &mut meta)
            else {
                continue;
            };
            for (train, meta) in buffers.iter().zip(&meta[..count]) {
                for segment in train[..meta.len].chunks(meta.stride.max(1)) {
                    into.extend(datagram(pool, segment, meta, &self.counters));
                }
                if meta.len == 0 {
                    self.counters.add(Counter::RxDatagrams, 1);
                }
            }
        }
        into.len() - before
    }

    fn transmit(&mut self, pool: &mut FramePool, datagrams: &mut Vec<Datagram>) -> usize {
        let sockets = self.published.load();
        let mut sent = 0;
        let mut rest = datagrams.as_slice();
        while let Some(first) = rest.first() {
            let count = train_count(first, rest);
            let (train, after) = rest.split_at(count);
            rest = after;
            sent += send_train(&sockets, pool, train);
        }
        self.counters.add(Counter::TxDatagrams, sent);
        self.counters.add(Counter::TxRefused, datagrams.len() - sent);
        for datagram in datagrams.drain(..) {
            pool.release(datagram.frame);
        }
        sent
    }

    fn poll_fds(&self) -> ArrayVec<BorrowedFd<'_>, 2> {
        self.receiving.iter().flat_map(|sockets| sockets.each()).map(AsFd::as_fd).collect()
    }
}

/// Copies one segment into a frame.
fn datagram(
    pool: &mut FramePool,
    segment: &[u8],
    meta: &RecvMeta,
    counters: &UdpCounters,
) -> Option<Datagram> {
    counters.add(Counter::RxDatagrams, 1);
    let Some(mut frame) = pool.reserve() else {
        counters.add(Counter::RxNoFrame, 1);
        return None;
    };
    if !frame.set_len(segment.len()) {
        counters.add(Counter::RxTooLong, 1);
        pool.release(frame);
        return None;
    }
    pool.data_mut(&mut frame).copy_from_slice(segment);
    let local = meta.dst_ip.zip(meta.interface_index);
    let local = local.map(|(ip, interface_index)| LocalAddress { ip, interface_index });
    let ecn = meta.ecn.map_or(0, |ecn| ecn as u8);
    Some(Datagram { frame, endpoint: Endpoint { remote: meta.addr, local }, ecn })
}

/// How many of `datagrams`, from the first on, can go in one system call: same way, same mark, same length but
/// for a shorter last one.
fn train_count(first: &Datagram, datagrams: &[Datagram]) -> usize {
    let segment_len = first.frame.len();
    let mut total_len = 0;
    let mut count = 0;
    for datagram in datagrams.iter().take(SEGMENTS_MAX) {
        let len = datagram.frame.len();
        let joins = datagram.endpoint == first.endpoint && datagram.ecn == first.ecn && len <= segment_len;
        if !joins || total_len + len > TRAIN_LEN_MAX - 128 {
            break;
        }
        total_len += len;
        count += 1;
        if len < segment_len {
            break;
        }
    }
    count.max(1)
}

/// Sends a train, in one system call where the kernel segments; returns how many datagrams it took.
fn send_train(sockets: &UdpSockets, pool: &FramePool, train: &[Datagram]) -> usize {
    let Some((first, family)) =
        train.first().and_then(|first| Some((first, sockets.of(first.endpoint.remote)?)))
    else {
        return 0;
    };
    if train.len() > 1 && family.has_segmentation() {
        let segments: ArrayVec<&[u8], SEGMENTS_MAX> =
            train.iter().map(|datagram| pool.data(&datagram.frame)).collect();
        match family.send(&first.endpoint, &segments, first.ecn) {
            Ok(()) => return train.len(),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return 0,
            // A segment beyond the MTU, or a device that cannot segment: one by one, then.
            Err(_) => {}
        }
    }
    let one = |datagram: &&Datagram| {
        family.send(&datagram.endpoint, &[pool.data(&datagram.frame)], datagram.ecn).is_ok()
    };
    train.iter().filter(one).count()
}
