//! UDP sockets where it takes a network of one's own: small MTUs, addresses that go, marks.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway::io::udp::{UdpCounters, UdpPort, UdpSockets};
use gateway::io::{Backing, Datagram, DatagramPort, FramePool, Umem};
use wireguard::{Endpoint, LocalAddress};

use crate::frames::frame_of;
use crate::namespace::{ip, within};

fn port() -> (Arc<UdpSockets>, Arc<UdpCounters>, UdpPort, FramePool) {
    let sockets = Arc::new(UdpSockets::bind(0, 0).unwrap());
    let counters = Arc::new(UdpCounters::default());
    let port = UdpPort::new(Arc::new(ArcSwap::new(Arc::clone(&sockets))), Arc::clone(&counters));
    let (umem, frames) = Umem::new(2048, 64, Backing::Plain).unwrap();
    (sockets, counters, port, FramePool::new(umem, frames))
}

fn receiver(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

#[test]
fn datagrams_larger_than_the_mtu_are_fragmented_one_by_one() {
    within("datagrams_larger_than_the_mtu_are_fragmented_one_by_one", || {
        ip("link set lo mtu 1300");
        let (other_sockets, _, mut other, mut other_pool) = port();
        let (_sockets, counters, mut port, mut pool) = port();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = receiver(address);
            let endpoint = Endpoint::from(receiver.local_addr().unwrap());
            let mut datagrams = (0..5)
                .map(|mark| Datagram { frame: frame_of(&mut pool, &[mark; 1452]), endpoint, ecn: 1 })
                .collect();
            assert_eq!(port.transmit(&mut pool, &mut datagrams), 5, "{address}");
            for mark in 0..5 {
                let mut buffer = [0; 2000];
                assert_eq!(receiver.recv(&mut buffer).unwrap(), 1452);
                assert_eq!(buffer[..1452], [mark; 1452]);
            }
        }
        // It costs the datagrams after them neither their ECN mark nor anything else.
        for address in ["127.0.0.1", "::1"] {
            let remote = std::net::SocketAddr::new(address.parse().unwrap(), other_sockets.port());
            let endpoint = Endpoint::from(remote);
            let mut datagrams = vec![Datagram { frame: frame_of(&mut pool, &[9; 100]), endpoint, ecn: 3 }];
            assert_eq!(port.transmit(&mut pool, &mut datagrams), 1);
            let mut received = Vec::new();
            other.receive(&mut other_pool, &mut received, 64);
            assert_eq!(received.iter().map(|datagram| datagram.ecn).collect::<Vec<_>>(), [3], "{address}");
        }
        assert_eq!((counters.read().tx_datagrams, counters.read().tx_refused), (12, 0));
    });
}

#[test]
fn a_source_address_that_was_removed_is_left_out() {
    within("a_source_address_that_was_removed_is_left_out", || {
        ip("address add 192.0.2.7/32 dev lo");
        let (sockets, ..) = port();
        let receiver = receiver("127.0.0.1:0");
        let local = Some(LocalAddress { ip: "192.0.2.7".parse().unwrap(), interface_index: 1 });
        let endpoint = Endpoint { remote: receiver.local_addr().unwrap(), local };
        for (lost, source) in [(0, "192.0.2.7"), (1, "127.0.0.1")] {
            sockets.send(&endpoint, b"x", 0x88).unwrap();
            let (_, from) = receiver.recv_from(&mut [0; 10]).unwrap();
            assert_eq!(from.ip().to_string(), source);
            if lost == 0 {
                ip("address delete 192.0.2.7/32 dev lo");
            }
        }
    });
}

#[test]
fn a_mark_routes_what_is_sent() {
    within("a_mark_routes_what_is_sent", || {
        ip("rule add fwmark 0x77 prohibit");
        let (sockets, ..) = port();
        // A local destination is found before any rule: take one that is not.
        ip("route add 198.51.100.0/24 dev lo");
        let endpoint = Endpoint::from("198.51.100.1:9".parse::<std::net::SocketAddr>().unwrap());
        sockets.send(&endpoint, b"x", 0).unwrap();
        sockets.set_fwmark(0x77).unwrap();
        assert!(sockets.send(&endpoint, b"x", 0).is_err());
        sockets.set_fwmark(0).unwrap();
        sockets.send(&endpoint, b"x", 0).unwrap();
        let marked = UdpSockets::bind(0, 0x77).unwrap();
        assert!(marked.send(&endpoint, b"x", 0).is_err());
    });
}

#[test]
fn a_host_without_routes_is_an_error_and_a_count() {
    within("a_host_without_routes_is_an_error_and_a_count", || {
        ip("address delete 127.0.0.1/8 dev lo");
        let (sockets, ..) = port();
        let endpoint = Endpoint::from("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap());
        ip("link set lo down");
        assert!(sockets.send(&endpoint, b"x", 0).is_err());
        assert!(
            sockets
                .send(&Endpoint::from("[::1]:9".parse::<std::net::SocketAddr>().unwrap()), b"x", 0)
                .is_err()
        );
    });
}
