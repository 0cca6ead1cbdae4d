//! The sockets on loopback addresses.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use wireguard::LocalAddress;

use super::*;
use crate::io::{Backing, Datagram, DatagramPort, FramePool, Umem};

fn pool(frame_count: u32) -> FramePool {
    let (umem, frames) = Umem::new(2048, frame_count, Backing::Plain).unwrap();
    FramePool::new(umem, frames)
}

fn port() -> (UdpPort, SocketAddr, Arc<UdpCounters>) {
    let sockets = UdpSockets::bind(0, 0).unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
    let counters = Arc::new(UdpCounters::default());
    let port = UdpPort::new(Arc::new(ArcSwap::from_pointee(sockets)), Arc::clone(&counters));
    (port, address, counters)
}

/// Receives until `count` datagrams are there or two seconds have passed.
fn receive(port: &mut UdpPort, pool: &mut FramePool, count: usize) -> Vec<Datagram> {
    let mut received = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while received.len() < count && Instant::now() < deadline {
        port.receive(pool, &mut received, 64);
    }
    received
}

fn outgoing(pool: &mut FramePool, payload: &[u8], endpoint: Endpoint, ecn: u8) -> Datagram {
    let mut frame = pool.reserve().unwrap();
    assert!(frame.set_len(payload.len()));
    pool.data_mut(&mut frame).copy_from_slice(payload);
    Datagram { frame, endpoint, ecn }
}

#[test]
fn a_burst_arrives_whole_in_order_with_marks_and_addresses() {
    let (mut sender, _, _) = port();
    let (mut receiver, address, _) = port();
    let mut pool = pool(256);
    for remote in [address, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())] {
        let endpoint = Endpoint { remote, local: None };
        let mut burst: Vec<Datagram> =
            (0..40u8).map(|i| outgoing(&mut pool, &[i; 1000], endpoint, 0b10)).collect();
        burst.push(outgoing(&mut pool, &[99; 10], endpoint, 0b10));
        assert_eq!(sender.transmit(&mut pool, &mut burst), 41);
        let received = receive(&mut receiver, &mut pool, 41);
        assert_eq!(received.len(), 41);
        for (i, datagram) in received.into_iter().enumerate() {
            let expected: &[u8] = if i == 40 { &[99; 10] } else { &[i as u8; 1000] };
            assert_eq!(pool.data(&datagram.frame), expected);
            assert_eq!(datagram.ecn, 0b10, "{remote} datagram {i}");
            assert_eq!(datagram.endpoint.local.unwrap().ip, remote.ip());
            pool.release(datagram.frame);
        }
    }
    assert_eq!(pool.free_count(), 256);
}

#[test]
fn replies_leave_from_the_address_that_was_dialled() {
    let (mut sender, sender_address, _) = port();
    let (mut receiver, address, _) = port();
    let mut pool = pool(16);
    let dialled: IpAddr = "127.0.0.9".parse().unwrap();
    let local = Some(LocalAddress { ip: dialled, interface_index: 1 });
    let endpoint = Endpoint { remote: address, local };
    let mut burst = vec![outgoing(&mut pool, b"batch", endpoint, 0)];
    assert_eq!(sender.transmit(&mut pool, &mut burst), 1);
    let sockets = UdpSockets::bind(0, 0).unwrap();
    sockets.send(&endpoint, b"single", 0x88).unwrap();
    for datagram in receive(&mut receiver, &mut pool, 2) {
        assert_eq!(datagram.endpoint.remote.ip(), dialled);
        pool.release(datagram.frame);
    }
    assert_ne!(sender_address, address);
}

#[test]
fn a_source_this_host_lost_is_replaced() {
    let (mut receiver, address, _) = port();
    let sockets = UdpSockets::bind(0, 0).unwrap();
    let local = Some(LocalAddress { ip: "192.0.2.77".parse().unwrap(), interface_index: 1 });
    sockets.send(&Endpoint { remote: address, local }, b"hello", 0).unwrap();
    let mut pool = pool(4);
    let received = receive(&mut receiver, &mut pool, 1);
    assert_eq!(received[0].endpoint.remote.port(), sockets.port());
}

#[test]
fn datagrams_longer_than_a_frame_and_beyond_the_pool_are_counted() {
    let (mut receiver, address, counters) = port();
    let raw = UdpSocket::bind("127.0.0.1:0").unwrap();
    raw.send_to(&vec![7; 65507], address).unwrap();
    for _ in 0..3 {
        raw.send_to(&[1; 100], address).unwrap();
    }
    let mut pool = pool(2);
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut received = Vec::new();
    while counters.read().rx_datagrams < 4 && Instant::now() < deadline {
        receiver.receive(&mut pool, &mut received, 64);
    }
    assert_eq!(received.len(), 2);
    let statistics = counters.read();
    assert_eq!((statistics.rx_too_long, statistics.rx_no_frame), (1, 1));
}

#[test]
fn a_taken_port_is_named() {
    let taken = UdpSockets::bind(0, 0).unwrap();
    let error = UdpSockets::bind(taken.port(), 0).unwrap_err();
    assert!(error.to_string().contains(&taken.port().to_string()), "{error}");
}

#[test]
fn new_sockets_are_followed() {
    let published = Arc::new(ArcSwap::from_pointee(UdpSockets::bind(0, 0).unwrap()));
    let mut port = UdpPort::new(Arc::clone(&published), Arc::default());
    let mut pool = pool(4);
    let sockets = UdpSockets::bind(0, 0).unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
    published.store(Arc::new(sockets));
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
    assert_eq!(receive(&mut port, &mut pool, 1).len(), 1);
}
