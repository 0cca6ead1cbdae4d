//! AF_XDP sockets on veth, without an XDP program: binding and transmission.

use std::time::{Duration, Instant};

use gateway::io::af_xdp::{AfXdpLink, BindError, CopyMode, ring_len};
use gateway::io::{Backing, Frame, FramePool, LinkPort, Umem};

use crate::frames::frame_of;
use crate::namespace::{ip, make_veth, within};
use crate::packet::{PacketSocket, frame};
use crate::report;

pub const FRAME_COUNT: u32 = 8192;

pub fn pool() -> FramePool {
    let (umem, frames) = Umem::new(2048, FRAME_COUNT, Backing::Registered).unwrap();
    FramePool::new(umem, frames)
}

/// Opens the link on `queue` of `interface`.
pub fn open(
    pool: &mut FramePool,
    interface: &str,
    queue: u32,
    copy: CopyMode,
) -> Result<AfXdpLink, BindError> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    let index = rustix::net::netdevice::name_to_index(socket.unwrap(), interface).unwrap_or(0);
    AfXdpLink::open(pool, interface, index, queue, copy)
}

/// Waits until everything sent came back.
pub fn settle(pool: &mut FramePool, link: &mut AfXdpLink, sending_before: usize) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while link.in_flight() > sending_before && Instant::now() < deadline {
        link.maintain(pool);
    }
}

#[test]
fn the_ladder_ends_at_copy_on_veth_and_says_so() {
    within("the_ladder_ends_at_copy_on_veth_and_says_so", || {
        make_veth(1);
        let mut pool = pool();
        let link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        assert!(!link.monitor().is_zero_copy());
        assert_eq!(link.monitor().read().mode, "copy");
        assert_eq!(link.in_flight(), ring_len::FILL as usize);
        assert_eq!(pool.free_count() + link.in_flight(), FRAME_COUNT as usize);
    });
}

#[test]
fn the_send_buffer_holds_a_full_transmit_ring() {
    within("the_send_buffer_holds_a_full_transmit_ring", || {
        make_veth(1);
        let mut pool = pool();
        let link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        let len = rustix::net::sockopt::socket_send_buffer_size(link.poll_fd().unwrap()).unwrap();
        // A packet of a frame's length, and what the kernel adds to one; twice, as the kernel keeps it (socket(7)).
        assert!(len >= 2 * ring_len::TX as usize * 4096, "{len} bytes");
    });
}

/// Packets that `va` sent.
fn sent_count() -> u64 {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = interfaces.lines().find_map(|line| line.trim_start().strip_prefix("va:")).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn one_call_sends_a_burst_of_every_worker_s_turn() {
    const WAITING: usize = 200;
    let test = "one_call_sends_a_burst_of_every_worker_s_turn";
    within(test, || {
        make_veth(1);
        let mut pool = pool();
        let mut link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        // While the link is down calls send nothing, and the ring keeps what it has.
        ip("link set va down");
        let mut frames: Vec<_> = (0..WAITING).map(|_| frame_of(&mut pool, &frame(0, 100))).collect();
        assert_eq!(link.transmit(&mut pool, &mut frames), WAITING);
        ip("link set va up");
        let before = sent_count();
        let _ = rustix::net::send(link.poll_fd().unwrap(), &[], rustix::net::SendFlags::DONTWAIT);
        match sent_count() - before {
            // What the kernel sends where it is not told otherwise.
            32 if !tells_of_the_transmit_budget() => report::skip(test, "needs Linux 6.17"),
            sent => assert_eq!(sent, WAITING as u64),
        }
    });
}

/// Whether the kernel has `XDP_MAX_TX_SKB_BUDGET`, as from Linux 6.17 on.
fn tells_of_the_transmit_budget() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(17))
}

#[test]
fn frames_of_every_length_are_sent_from_where_their_data_begins() {
    within("frames_of_every_length_are_sent_from_where_their_data_begins", || {
        make_veth(1);
        let wire = PacketSocket::open();
        let mut pool = pool();
        let mut link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        let idle = link.in_flight();
        let mut sent = Vec::new();
        let mut frames = Vec::new();
        for (number, len) in [18, 60, 61, 1000, 1513, 1514].into_iter().enumerate() {
            for headroom in [0, 14, 76, 256] {
                let bytes = frame(number as u32 * 1000 + headroom as u32, len);
                // As after an encapsulation: part of it grown into the headroom.
                let (grown, kept) = bytes.split_at(headroom.min(len));
                let mut frame = frame_of(&mut pool, kept);
                assert!(frame.grow_front(grown.len()));
                pool.data_mut(&mut frame)[..grown.len()].copy_from_slice(grown);
                frames.push(frame);
                sent.push(bytes);
            }
        }
        assert_eq!(link.transmit(&mut pool, &mut frames), sent.len());
        assert!(frames.is_empty());
        assert_eq!(wire.receive(sent.len()), sent);
        settle(&mut pool, &mut link, idle);
        assert_eq!((link.in_flight(), pool.free_count()), (idle, FRAME_COUNT as usize - idle));
        let statistics = link.monitor().read();
        assert_eq!(statistics.tx_packets, sent.len() as u64);
        assert_eq!(statistics.kernel.unwrap().tx_invalid_descriptors, 0);
    });
}

#[test]
fn many_bursts_arrive_whole_and_no_frame_is_lost() {
    within("many_bursts_arrive_whole_and_no_frame_is_lost", || {
        make_veth(1);
        let wire = PacketSocket::open();
        let mut pool = pool();
        let mut link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        let idle = link.in_flight();
        let mut number = 0;
        // More than the kernel sends per call, and more than the tx ring holds over all.
        for burst in (0..100).map(|round| 1 + round * 7 % 200) {
            let mut frames: Vec<Frame> =
                (0..burst).map(|i| frame_of(&mut pool, &frame(number + i, 200))).collect();
            assert_eq!(link.transmit(&mut pool, &mut frames), burst as usize);
            number += burst;
            assert_eq!(wire.receive(burst as usize).len(), burst as usize);
            assert_eq!(pool.free_count() + link.in_flight(), FRAME_COUNT as usize);
        }
        settle(&mut pool, &mut link, idle);
        assert_eq!(link.in_flight(), idle);
        assert_eq!(link.monitor().read().tx_full, 0);
    });
}

#[test]
fn what_the_ring_cannot_take_is_given_back_and_counted() {
    within("what_the_ring_cannot_take_is_given_back_and_counted", || {
        make_veth(1);
        let mut pool = pool();
        let mut link = open(&mut pool, "va", 0, CopyMode::WhereNeeded).unwrap();
        ip("link set va down");
        let mut queued = 0;
        for _ in 0..40 {
            let mut frames: Vec<Frame> = (0..64).map(|i| frame_of(&mut pool, &frame(i, 100))).collect();
            queued += link.transmit(&mut pool, &mut frames);
            assert_eq!(pool.free_count() + link.in_flight(), FRAME_COUNT as usize);
        }
        let statistics = link.monitor().read();
        assert_eq!(queued, ring_len::TX as usize);
        assert_eq!(statistics.tx_full, 40 * 64 - u64::from(ring_len::TX));
        // Empty frames would be lost in the kernel.
        let mut empty = vec![pool.reserve().unwrap()];
        assert_eq!(link.transmit(&mut pool, &mut empty), 0);
        assert_eq!(pool.free_count() + link.in_flight(), FRAME_COUNT as usize);
        assert!(statistics.wakeup_errors > 0, "an interface that is down is noticed");
    });
}

#[test]
fn a_busy_queue_is_named_in_the_error() {
    within("a_busy_queue_is_named_in_the_error", || {
        make_veth(1);
        let (mut first, mut second) = (pool(), pool());
        let link = open(&mut first, "va", 0, CopyMode::WhereNeeded).unwrap();
        let error = open(&mut second, "va", 0, CopyMode::WhereNeeded).err().unwrap().to_string();
        for part in ["va", "queue 0", "stop the program"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(second.free_count(), FRAME_COUNT as usize);
        let error = open(&mut first, "va", 0, CopyMode::WhereNeeded).err().unwrap();
        assert!(matches!(error, BindError::Busy { .. }), "{error}");
        drop(link);
        drop(first);
        // The kernel lets go of the queue some time later: open waits for it.
        open(&mut second, "va", 0, CopyMode::WhereNeeded).expect("the queue is free again");
    });
}

#[test]
fn what_cannot_be_opened_is_named_in_the_error() {
    within("what_cannot_be_opened_is_named_in_the_error", || {
        make_veth(1);
        let mut pool = pool();
        let error = open(&mut pool, "nothere", 0, CopyMode::WhereNeeded).err().unwrap().to_string();
        assert!(error.contains("nothere"), "{error}");
        let error = open(&mut pool, "va", 7, CopyMode::WhereNeeded).err().unwrap().to_string();
        assert!(error.contains("va") && error.contains("queue 7"), "{error}");
        let (umem, frames) = Umem::new(2048, 8, Backing::Plain).unwrap();
        assert!(open(&mut FramePool::new(umem, frames), "va", 0, CopyMode::WhereNeeded).is_err());
        assert_eq!(pool.free_count(), FRAME_COUNT as usize);
    });
}

#[test]
fn queues_of_one_umem_work_in_threads_of_their_own() {
    within("queues_of_one_umem_work_in_threads_of_their_own", || {
        make_veth(2);
        let wire = PacketSocket::open();
        let (umem, mut frames) = Umem::new(2048, 2 * FRAME_COUNT, Backing::Registered).unwrap();
        let workers: Vec<_> = (0..2)
            .map(|queue| {
                let share = frames.split_off(frames.len() - FRAME_COUNT as usize);
                let mut pool = FramePool::new(umem.clone(), share);
                let link = open(&mut pool, "va", queue, CopyMode::WhereNeeded).unwrap();
                (pool, link)
            })
            .collect();
        std::thread::scope(|scope| {
            for (worker, (mut pool, mut link)) in workers.into_iter().enumerate() {
                scope.spawn(move || {
                    let idle = link.in_flight();
                    for round in 0..50 {
                        let number = worker as u32 * 100_000 + round;
                        let mut frames = vec![frame_of(&mut pool, &frame(number, 100))];
                        assert_eq!(link.transmit(&mut pool, &mut frames), 1);
                    }
                    settle(&mut pool, &mut link, idle);
                    assert_eq!((link.in_flight(), pool.free_count() + idle), (idle, FRAME_COUNT as usize));
                });
            }
        });
        assert_eq!(wire.receive(100).len(), 100);
    });
}
