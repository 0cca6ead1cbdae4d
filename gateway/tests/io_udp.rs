//! UDP sockets over the loopback: merged and split datagrams, ECN, sources, sizes, ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gateway::io::udp::{BindError, UdpCounters, UdpPort, UdpSockets};
use gateway::io::{Backing, Datagram, DatagramPort, Frame, FramePool, Umem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wireguard::{Endpoint, LocalAddress};

const FRAME_COUNT: u32 = 512;

/// Sockets with a port on them and frames for it.
struct Side {
    sockets: Arc<UdpSockets>,
    counters: Arc<UdpCounters>,
    port: UdpPort,
    pool: FramePool,
    frame_count: usize,
}

impl Side {
    fn new() -> Self {
        Self::with_frames(FRAME_COUNT)
    }

    fn with_frames(frame_count: u32) -> Self {
        let sockets = Arc::new(UdpSockets::bind(0, 0).unwrap());
        let counters = Arc::new(UdpCounters::default());
        let port = UdpPort::new(Arc::new(ArcSwap::new(Arc::clone(&sockets))), Arc::clone(&counters));
        let (umem, frames) = Umem::new(2048, frame_count, Backing::Plain).unwrap();
        Self {
            sockets,
            counters,
            port,
            pool: FramePool::new(umem, frames),
            frame_count: frame_count as usize,
        }
    }

    fn v4(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.sockets.port()).into()
    }

    fn v6(&self) -> SocketAddr {
        format!("[::1]:{}", self.sockets.port()).parse().unwrap()
    }

    fn send(&mut self, to: impl Into<Endpoint>, ecn: u8, payloads: &[Vec<u8>]) -> usize {
        let endpoint = to.into();
        let mut datagrams = payloads
            .iter()
            .map(|payload| Datagram { frame: frame_of(&mut self.pool, payload), endpoint, ecn })
            .collect();
        let sent = self.port.transmit(&mut self.pool, &mut datagrams);
        assert!(datagrams.is_empty());
        assert_eq!(self.pool.free_count(), self.frame_count, "a frame was lost");
        sent
    }

    /// Receives until `count` datagrams came or none came for a second.
    fn receive(&mut self, count: usize) -> Vec<(Vec<u8>, Endpoint, u8)> {
        let mut received = Vec::new();
        while received.len() < count {
            let mut datagrams = Vec::new();
            let appended = self.port.receive(&mut self.pool, &mut datagrams, 64);
            assert_eq!(appended, datagrams.len());
            // As a worker does: wait only when there was nothing.
            if appended == 0 && !self.wait() {
                break;
            }
            for Datagram { frame, endpoint, ecn } in datagrams {
                received.push((self.pool.data(&frame).to_vec(), endpoint, ecn));
                self.pool.release(frame);
            }
        }
        assert_eq!(self.pool.free_count(), self.frame_count, "a frame was lost");
        received
    }

    fn wait(&self) -> bool {
        let fds = self.port.poll_fds();
        let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap() > 0
    }
}

/// A frame that holds `bytes`.
fn frame_of(pool: &mut FramePool, bytes: &[u8]) -> Frame {
    let mut frame = pool.reserve().unwrap();
    assert!(frame.set_len(bytes.len()));
    pool.data_mut(&mut frame).copy_from_slice(bytes);
    frame
}

fn payloads(lens: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    lens.into_iter()
        .enumerate()
        .map(|(index, len)| (0..len).map(|byte| (byte ^ index) as u8).collect())
        .collect()
}

#[test]
fn datagrams_cross_both_families_in_order_with_their_lengths() {
    let (mut a, mut b) = (Side::new(), Side::new());
    // Runs of equal lengths with a shorter end, growing ones, and more than one segmented send takes.
    let lens = [1200; 150].into_iter().chain([1200, 700, 32, 32, 64, 1452, 1452, 1792, 5]);
    let sent = payloads(lens);
    for to in [b.v4(), b.v6()] {
        assert_eq!(a.send(to, 0, &sent), sent.len());
        let received = b.receive(sent.len());
        let lens: Vec<usize> = received.iter().map(|(payload, ..)| payload.len()).collect();
        assert_eq!(lens, sent.iter().map(Vec::len).collect::<Vec<_>>());
        let first_wrong = received.iter().zip(&sent).position(|((payload, ..), sent)| payload != sent);
        assert_eq!(first_wrong, None, "{to}");
        assert!(received.iter().all(|(_, endpoint, _)| endpoint.remote.port() == a.sockets.port()));
        // And back to where they came from.
        let endpoint = received[0].1;
        assert_eq!(endpoint.local.map(|local| local.ip), Some(to.ip()));
        assert_eq!(b.send(endpoint, 0, &sent), sent.len());
        assert_eq!(a.receive(sent.len()).len(), sent.len());
    }
    assert_eq!(a.counters.read().tx_datagrams, 2 * sent.len() as u64);
    assert_eq!(b.counters.read().rx_datagrams, 2 * sent.len() as u64);
}

#[test]
fn ecn_arrives_as_it_was_sent() {
    let (mut a, mut b) = (Side::new(), Side::new());
    for to in [b.v4(), b.v6()] {
        for ecn in 0..4 {
            a.send(to, ecn, &payloads([100; 3]));
            let received = b.receive(3);
            assert_eq!(received.iter().map(|(.., ecn)| *ecn).collect::<Vec<_>>(), [ecn; 3], "{to}");
        }
    }
}

#[test]
fn a_datagram_larger_than_a_frame_is_counted_and_dropped() {
    let mut b = Side::new();
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [1793, 2048, 9000, 65_507] {
        plain.send_to(&vec![1; len], b.v4()).unwrap();
    }
    plain.send_to(&[2; 1792], b.v4()).unwrap();
    let received = b.receive(1);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].0, [2; 1792]);
    assert_eq!(b.counters.read().rx_too_long, 4);
}

#[test]
fn datagrams_that_find_no_frame_are_counted_and_dropped() {
    let (mut a, mut b) = (Side::new(), Side::with_frames(4));
    a.send(b.v4(), 0, &payloads([100; 10]));
    let mut held = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while b.counters.read().rx_no_frame < 6 && Instant::now() < deadline {
        b.port.receive(&mut b.pool, &mut held, 64);
    }
    assert_eq!((held.len(), b.counters.read().rx_no_frame), (4, 6));
    for datagram in held {
        b.pool.release(datagram.frame);
    }
    a.send(b.v4(), 0, &payloads([100; 2]));
    assert_eq!(b.receive(2).len(), 2);
}

#[test]
fn the_local_address_of_an_endpoint_is_the_source() {
    let (mut a, mut b) = (Side::new(), Side::new());
    for source in ["127.0.0.1", "127.0.0.2", "127.7.7.7"] {
        let ip: IpAddr = source.parse().unwrap();
        let endpoint = Endpoint { remote: b.v4(), local: Some(LocalAddress { ip, interface_index: 1 }) };
        a.send(endpoint, 0, &payloads([80; 3]));
        a.sockets.send(&endpoint, b"handshake", 0x88).unwrap();
        let received = b.receive(4);
        assert_eq!(received.len(), 4);
        assert!(received.iter().all(|(_, endpoint, _)| endpoint.remote.ip() == ip), "{received:?}");
    }
}

#[test]
fn a_source_that_is_no_longer_ours_is_left_out() {
    let (mut a, mut b) = (Side::new(), Side::new());
    for (to, lost) in [(b.v4(), "192.0.2.77"), (b.v6(), "2001:db8::77"), (b.v6(), "fe80::77")] {
        let local = Some(LocalAddress { ip: lost.parse().unwrap(), interface_index: 4_000 });
        let endpoint = Endpoint { remote: to, local };
        a.sockets.send(&endpoint, b"alone", 0).unwrap();
        assert_eq!(a.send(endpoint, 0, &payloads([80; 3])), 3);
        let received = b.receive(4);
        assert_eq!(received.len(), 4, "{lost}");
        assert!(received.iter().all(|(_, endpoint, _)| endpoint.remote.ip().is_loopback()));
    }
    // One lost source spoils nothing for the other peers.
    for to in [b.v4(), b.v6()] {
        a.send(to, 3, &payloads([100; 3]));
        assert_eq!(b.receive(3).iter().map(|(.., ecn)| *ecn).collect::<Vec<_>>(), [3; 3], "ECN of {to}");
    }
}

#[test]
fn the_whole_traffic_class_is_sent() {
    let (a, mut b) = (Side::new(), Side::new());
    for to in [b.v4(), b.v6()] {
        a.sockets.send(&to.into(), b"handshake", 0x88 | 0b10).unwrap();
        // DSCP is not reported with a datagram, its other two bits are.
        assert_eq!(b.receive(1)[0].2, 0b10);
    }
}

#[test]
fn a_port_in_use_is_refused_by_its_number() {
    let taken = UdpSockets::bind(0, 0).unwrap();
    let error = UdpSockets::bind(taken.port(), 0).unwrap_err();
    assert!(matches!(error, BindError::InUse(port) if port == taken.port()));
    let text = error.to_string();
    assert!(text.contains(&taken.port().to_string()) && text.contains("ListenPort"), "{text}");
    // A port that only one family has is not ours either.
    let half = UdpSocket::bind("[::1]:0").unwrap();
    let port = half.local_addr().unwrap().port();
    assert!(matches!(UdpSockets::bind(port, 0), Err(BindError::InUse(_))));
}

#[test]
fn an_endpoint_without_route_is_an_error_and_a_count_not_a_panic() {
    let mut a = Side::new();
    // Port 0 is nowhere.
    let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert!(a.sockets.send(&nowhere.into(), b"x", 0).is_err());
    assert_eq!(a.send(nowhere, 0, &payloads([80; 5])), 0);
    assert_eq!(a.counters.read().tx_refused, 5);
}

#[test]
fn a_port_follows_when_the_sockets_are_replaced() {
    let (mut a, first, second) =
        (Side::new(), UdpSockets::bind(0, 0).unwrap(), UdpSockets::bind(0, 0).unwrap());
    let (first_port, second_port) = (first.port(), second.port());
    let published = Arc::new(ArcSwap::from_pointee(first));
    let (umem, frames) = Umem::new(2048, 64, Backing::Plain).unwrap();
    let mut b = Side {
        sockets: published.load_full(),
        counters: Arc::default(),
        port: UdpPort::new(Arc::clone(&published), Arc::default()),
        pool: FramePool::new(umem, frames),
        frame_count: 64,
    };
    a.send(SocketAddr::from((Ipv4Addr::LOCALHOST, first_port)), 0, &payloads([10]));
    assert_eq!(b.receive(1).len(), 1);
    published.store(Arc::new(second));
    b.sockets = published.load_full();
    b.port.receive(&mut b.pool, &mut Vec::new(), 64);
    // The old sockets are closed with the last that used them.
    UdpSockets::bind(first_port, 0).expect("the port given up is free");
    a.send(SocketAddr::from((Ipv4Addr::LOCALHOST, second_port)), 0, &payloads([10]));
    assert_eq!(b.receive(1).len(), 1);
}
