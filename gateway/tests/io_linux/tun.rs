//! The TUN device: names, packets both ways, and its ends.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use gateway::io::tun::{Tun, TunError, TunPort};
use gateway::io::{Backing, Frame, FramePool, TunnelPort, Umem};

use crate::frames::{frame_of, release_all};
use crate::namespace::{ip, within};

fn pool() -> FramePool {
    let (umem, frames) = Umem::new(2048, 64, Backing::Plain).unwrap();
    FramePool::new(umem, frames)
}

fn receive(port: &mut TunPort, pool: &mut FramePool, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while packets.len() < count && Instant::now() < deadline {
        let mut frames: Vec<Frame> = Vec::new();
        port.receive(pool, &mut frames, 64);
        packets.extend(frames.iter().map(|frame| pool.data(frame).to_vec()));
        release_all(pool, &mut frames);
    }
    packets
}

/// An IPv4 UDP packet without UDP checksum.
fn udp_packet(payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len();
    let mut packet = vec![0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([10, 99, 0, 2, 10, 99, 0, 1]);
    let sum: u32 = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x10, 0, 0x20, 0, ((len - 20) >> 8) as u8, (len - 20) as u8, 0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn packets_cross_the_device_both_ways() {
    within("packets_cross_the_device_both_ways", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        assert_eq!(tun.name(), "wgtest0");
        let link = ip("-o link show wgtest0");
        assert!(
            link.starts_with(&format!("{}: wgtest0", tun.index())) && link.contains("mtu 1420"),
            "{link}"
        );
        assert!(!link.contains(",UP"), "it is created down: {link}");
        // No router solicitations among the packets.
        ip("link set wgtest0 addrgenmode none");
        ip("address add 10.99.0.1/24 dev wgtest0");
        ip("link set wgtest0 up");
        let mut pool = pool();
        let mut port = TunPort::new(tun.clone());

        let socket = UdpSocket::bind("10.99.0.1:8192").unwrap();
        for len in [0, 1, 1392] {
            socket.send_to(&vec![9; len], "10.99.0.2:4096").unwrap();
            let packets = receive(&mut port, &mut pool, 1);
            assert_eq!(packets[0].len(), 28 + len);
            assert_eq!(packets[0][12..20], [10, 99, 0, 1, 10, 99, 0, 2]);
        }

        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut frames = vec![frame_of(&mut pool, &udp_packet(b"hello"))];
        assert_eq!(port.transmit(&mut pool, &mut frames), 1);
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"hello"[..], "10.99.0.2:4096"));
        assert_eq!(pool.free_count(), 64);
        assert_eq!(tun.statistics().tx_packets, 1);
    });
}

#[test]
fn a_name_that_is_taken_or_impossible_is_refused_with_what_to_do() {
    within("a_name_that_is_taken_or_impossible_is_refused_with_what_to_do", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        for taken in ["wgtest0", "lo"] {
            let error = Tun::create(taken, 1420).unwrap_err();
            assert!(matches!(error, TunError::Exists(_)), "{error}");
            assert!(error.to_string().contains(taken));
        }
        for impossible in ["", "a-name-too-long-", "wg/0", "wg%d"] {
            assert!(Tun::create(impossible, 1420).is_err(), "{impossible}");
        }
        assert!(Tun::create("wgtest1", 10).is_err());
        assert!(!ip("-o link").contains("wgtest1"), "a half-made device stayed");
        drop(tun);
    });
}

#[test]
fn the_device_goes_with_its_last_handle() {
    within("the_device_goes_with_its_last_handle", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        let port = TunPort::new(tun.clone());
        drop(tun);
        assert!(ip("-o link").contains("wgtest0"));
        drop(port);
        assert!(!ip("-o link").contains("wgtest0"));
        drop(Tun::create("wgtest0", 1420).unwrap());
    });
}

#[test]
fn a_device_that_is_down_drops_and_counts() {
    within("a_device_that_is_down_drops_and_counts", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        let mut pool = pool();
        let mut port = TunPort::new(tun.clone());
        let mut frames = vec![frame_of(&mut pool, &udp_packet(b"x"))];
        assert_eq!(port.transmit(&mut pool, &mut frames), 0);
        assert_eq!(port.receive(&mut pool, &mut frames, 64), 0);
        assert_eq!((tun.statistics().tx_refused, pool.free_count(), tun.is_gone()), (1, 64, false));
    });
}

#[test]
fn a_deleted_device_is_gone_and_nobody_waits_for_it() {
    within("a_deleted_device_is_gone_and_nobody_waits_for_it", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        ip("link set wgtest0 up");
        let mut pool = pool();
        let mut port = TunPort::new(tun.clone());
        assert!(port.poll_fd().is_some() && !tun.is_gone());
        ip("link delete wgtest0");
        let mut frames = Vec::new();
        assert_eq!(port.receive(&mut pool, &mut frames, 64), 0);
        frames.push(frame_of(&mut pool, &udp_packet(b"x")));
        assert_eq!(port.transmit(&mut pool, &mut frames), 0);
        assert!(port.poll_fd().is_none());
        assert_eq!(pool.free_count(), 64);
    });
}

#[test]
fn the_worker_s_side_notices_the_deletion_by_itself() {
    within("the_worker_s_side_notices_the_deletion_by_itself", || {
        let tun = Tun::create("wgtest0", 1420).unwrap();
        ip("link set wgtest0 up");
        let mut pool = pool();
        let mut port = TunPort::new(tun.clone());
        ip("link delete wgtest0");
        port.receive(&mut pool, &mut Vec::new(), 64);
        assert!(port.poll_fd().is_none());
        assert!(tun.is_gone());
    });
}
