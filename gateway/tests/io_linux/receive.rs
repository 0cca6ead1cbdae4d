//! AF_XDP reception on veth, fed by the gateway's own XDP program in its downlink role.

use std::time::{Duration, Instant};

use gateway::io::af_xdp::{AfXdpLink, CopyMode, ring_len};
use gateway::io::{FRAME_HEADROOM, Frame, FramePool, LinkPort};
use gateway::xdp::{Role, Steering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::af_xdp::{FRAME_COUNT, open, pool, settle};
use crate::frames::{frame_of, release_all};
use crate::namespace::{ip, make_veth, within};
use crate::report;

/// An IPv4 packet in an Ethernet frame of `len` bytes from `va` to `vb`, for an address behind the tunnel.
fn inner_frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0x0b, 2, 0, 0, 0, 0, 0x0a, 0x08, 0x00, 0x45, 0];
    frame.extend((len as u16 - 14).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 5, 10, 8, 0, 2]);
    let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.resize(len, number as u8);
    frame
}

/// The program on `vb`, which steers 10.8.0.0/24 into `link`.
fn steer(link: &AfXdpLink) -> Steering {
    let mut steering = Steering::load().unwrap();
    let role = Role { uplink: false, downlink: true, mac: [2, 0, 0, 0, 0, 0x0b], mtu: 1500 };
    steering.set_tunnel_mtu(1500).unwrap();
    steering.set_allowed_ips(&["10.8.0.0/24".parse().unwrap()]).unwrap();
    steering.attach(link.interface_index(), "vb", role).unwrap();
    steering
        .register_socket(link.interface_index(), link.monitor().queue(), link.monitor().socket())
        .unwrap();
    steering
}

/// Receives until `count` frames came or none came for a second, in batches of a worker's size.
fn receive(link: &mut AfXdpLink, pool: &mut FramePool, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let before = frames.len();
        if link.receive(pool, &mut frames, 64) == 0 {
            let mut fds = [PollFd::from_borrowed_fd(link.poll_fd().unwrap(), PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap() == 0 {
                break;
            }
        }
        assert!(frames.len() - before <= 64, "more than the limit");
    }
    frames
}

#[test]
fn steered_frames_arrive_whole_with_room_before_and_after_them() {
    within("steered_frames_arrive_whole_with_room_before_and_after_them", || {
        make_veth(1);
        let (mut sending, mut receiving) = (pool(), pool());
        let mut from = open(&mut sending, "va", 0, CopyMode::WhereNeeded).unwrap();
        let mut to = open(&mut receiving, "vb", 0, CopyMode::WhereNeeded).unwrap();
        let _steering = steer(&to);
        let sent: Vec<Vec<u8>> = [60, 61, 200, 1227, 1514]
            .into_iter()
            .enumerate()
            .map(|(i, len)| inner_frame(i as u32, len))
            .collect();
        let mut frames = sent.iter().map(|bytes| frame_of(&mut sending, bytes)).collect();
        assert_eq!(from.transmit(&mut sending, &mut frames), sent.len());
        let mut received = receive(&mut to, &mut receiving, sent.len());
        assert_eq!(received.iter().map(|frame| receiving.data(frame).to_vec()).collect::<Vec<_>>(), sent);
        assert!(
            received
                .iter()
                .all(|frame| frame.headroom() == FRAME_HEADROOM && frame.capacity() - frame.len() >= 31)
        );
        assert_eq!(receiving.free_count() + to.in_flight() + received.len(), FRAME_COUNT as usize);
        release_all(&mut receiving, &mut received);
        let statistics = to.monitor().read();
        assert_eq!((statistics.rx_packets, statistics.kernel.unwrap().rx_dropped), (sent.len() as u64, 0));
    });
}

#[test]
fn a_frame_is_re_headed_and_forwarded_in_place() {
    within("a_frame_is_re_headed_and_forwarded_in_place", || {
        make_veth(1);
        ip("link add vc type veth peer name vd address 02:00:00:00:00:0d");
        for name in ["vc", "vd"] {
            ip(&format!("link set {name} addrgenmode none"));
            ip(&format!("link set {name} up"));
        }
        let wire = crate::packet::PacketSocket::open();
        let (mut sending, mut forwarding) = (pool(), pool());
        let mut from = open(&mut sending, "va", 0, CopyMode::WhereNeeded).unwrap();
        let mut uplink = open(&mut forwarding, "vb", 0, CopyMode::WhereNeeded).unwrap();
        let mut downlink = open(&mut forwarding, "vc", 0, CopyMode::WhereNeeded).unwrap();
        let _steering = steer(&uplink);
        let idle = downlink.in_flight();
        let mut expected = Vec::new();
        for number in 0..500 {
            let bytes = inner_frame(number, 100 + number as usize);
            let mut frames = vec![frame_of(&mut sending, &bytes)];
            from.transmit(&mut sending, &mut frames);
            let mut received = receive(&mut uplink, &mut forwarding, 1);
            // Off with the Ethernet header, on with a longer one, as between sealed and plain.
            let frame = &mut received[0];
            assert!(frame.trim_front(14) && frame.grow_front(60));
            let header = crate::packet::frame(number, 60);
            forwarding.data_mut(frame)[..60].copy_from_slice(&header);
            expected.push([&header, &bytes[14..]].concat());
            assert_eq!(downlink.transmit(&mut forwarding, &mut received), 1);
            uplink.maintain(&mut forwarding);
            let in_flight = uplink.in_flight() + downlink.in_flight();
            assert_eq!(forwarding.free_count() + in_flight, FRAME_COUNT as usize);
        }
        assert_eq!(wire.receive(expected.len()), expected);
        settle(&mut forwarding, &mut downlink, idle);
        assert_eq!(downlink.in_flight(), idle);
    });
}

#[test]
fn an_overrun_is_counted_by_the_kernel_and_the_link_recovers() {
    within("an_overrun_is_counted_by_the_kernel_and_the_link_recovers", || {
        make_veth(1);
        let (mut sending, mut receiving) = (pool(), pool());
        let mut from = open(&mut sending, "va", 0, CopyMode::WhereNeeded).unwrap();
        let mut to = open(&mut receiving, "vb", 0, CopyMode::WhereNeeded).unwrap();
        let _steering = steer(&to);
        let count = 2 * ring_len::RX;
        for number in 0..count / 64 {
            let mut frames =
                (0..64).map(|i| frame_of(&mut sending, &inner_frame(number * 64 + i, 100))).collect();
            from.transmit(&mut sending, &mut frames);
            // The peer's queue is 256 frames: let it drain.
            let deadline = Instant::now() + Duration::from_millis(200);
            while from.in_flight() > ring_len::RX as usize && Instant::now() < deadline {
                from.maintain(&mut sending);
            }
        }
        let mut received = receive(&mut to, &mut receiving, ring_len::RX as usize);
        assert_eq!(received.len(), ring_len::RX as usize);
        let kernel = to.monitor().read().kernel.unwrap();
        assert!(kernel.fill_ring_empty + kernel.rx_dropped + kernel.rx_ring_full > 0, "{kernel:?}");
        release_all(&mut receiving, &mut received);
        to.maintain(&mut receiving);
        assert_eq!(receiving.free_count() + to.in_flight(), FRAME_COUNT as usize);
        // And it goes on.
        let mut frames = vec![frame_of(&mut sending, &inner_frame(7, 100))];
        from.transmit(&mut sending, &mut frames);
        let mut received = receive(&mut to, &mut receiving, 1);
        assert_eq!(received.len(), 1);
        release_all(&mut receiving, &mut received);
    });
}

#[test]
fn a_small_pool_keeps_the_link_alive() {
    within("a_small_pool_keeps_the_link_alive", || {
        make_veth(1);
        let mut sending = pool();
        let (umem, frames) = gateway::io::Umem::new(2048, 256, gateway::io::Backing::Registered).unwrap();
        let mut receiving = FramePool::new(umem, frames);
        let mut from = open(&mut sending, "va", 0, CopyMode::WhereNeeded).unwrap();
        let mut to = open(&mut receiving, "vb", 0, CopyMode::WhereNeeded).unwrap();
        let _steering = steer(&to);
        for number in 0..1000 {
            let mut frames = vec![frame_of(&mut sending, &inner_frame(number, 100))];
            from.transmit(&mut sending, &mut frames);
            let mut received = receive(&mut to, &mut receiving, 1);
            assert_eq!(receiving.data(&received[0]), inner_frame(number, 100));
            release_all(&mut receiving, &mut received);
            assert_eq!(receiving.free_count() + to.in_flight(), 256);
        }
    });
}

/// Puts off the interrupts of `vb` as a driver would its own: for up to `rounds` times `timeout`, from each poll on.
fn defer_interrupts(rounds: u32, timeout: Duration) {
    // What is mounted at /sys may show another network namespace.
    let script = format!(
        "mount -t sysfs sysfs /sys && echo {rounds} > /sys/class/net/vb/napi_defer_hard_irqs && \
         echo {} > /sys/class/net/vb/gro_flush_timeout",
        timeout.as_nanos()
    );
    let status = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).status();
    assert!(status.expect("unshare").success(), "{script}");
}

/// Whether a frame waits in the receive ring, or comes within `patience`.
fn is_readable(link: &AfXdpLink, patience: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(link.poll_fd().unwrap(), PollFlags::IN)];
    let patience = Timespec::try_from(patience).expect("seconds");
    poll(&mut fds, Some(&patience)).expect("poll") > 0
}

/// Sends one frame from `va` to `vb`.
fn send_one(from: &mut AfXdpLink, pool: &mut FramePool, number: u32) {
    let mut frames = vec![frame_of(pool, &inner_frame(number, 100))];
    assert_eq!(from.transmit(pool, &mut frames), 1);
}

/// `va`, and `vb` whose owner polls its queue.
fn polled_pair(sending: &mut FramePool, receiving: &mut FramePool) -> (AfXdpLink, AfXdpLink, Steering) {
    let from = open(sending, "va", 0, CopyMode::WhereNeeded).unwrap();
    let mut to = open(receiving, "vb", 0, CopyMode::WhereNeeded).unwrap();
    let steering = steer(&to);
    to.poll_napi().expect("a kernel from 5.11 on");
    (from, to, steering)
}

#[test]
fn a_link_that_polls_its_queue_needs_no_interrupts() {
    within("a_link_that_polls_its_queue_needs_no_interrupts", || {
        make_veth(1);
        // Longer than the test: nothing but a poll of the link brings a frame.
        defer_interrupts(2, Duration::from_mins(10));
        let (mut sending, mut receiving) = (pool(), pool());
        let (mut from, mut to, _steering) = polled_pair(&mut sending, &mut receiving);
        let mut frames = Vec::new();
        // The first tells the socket which instance to poll, and is the last to be brought to it.
        send_one(&mut from, &mut sending, 0);
        assert!(is_readable(&to, Duration::from_secs(5)));
        assert_eq!(to.receive(&mut receiving, &mut frames, 64), 1);
        assert_eq!(to.receive(&mut receiving, &mut frames, 64), 0);
        if to.monitor().napi_id().is_none() {
            report::skip(
                "a_link_that_polls_its_queue_needs_no_interrupts",
                "this kernel knows no NAPI instance of a copying socket: Linux from 6.13 on",
            );
            return;
        }
        for number in 1..100 {
            send_one(&mut from, &mut sending, number);
            assert!(number > 3 || !is_readable(&to, Duration::from_millis(50)), "an interrupt came");
            assert_eq!(to.receive(&mut receiving, &mut frames, 64), 1, "frame {number}");
            assert_eq!(receiving.data(&frames.pop().unwrap()), inner_frame(number, 100));
        }
        assert!(to.monitor().read().napi_polls >= 100);
    });
}

#[test]
fn the_kernel_takes_a_queue_back_that_is_polled_no_more() {
    within("the_kernel_takes_a_queue_back_that_is_polled_no_more", || {
        make_veth(1);
        defer_interrupts(2, Duration::from_millis(300));
        let (mut sending, mut receiving) = (pool(), pool());
        let (mut from, mut to, _steering) = polled_pair(&mut sending, &mut receiving);
        let mut frames = Vec::new();
        for number in 0..5 {
            send_one(&mut from, &mut sending, number);
            // Nobody polls: what brings it is the kernel's timer.
            assert!(is_readable(&to, Duration::from_secs(10)), "frame {number} was forgotten");
            assert_eq!(to.receive(&mut receiving, &mut frames, 64), 1);
            assert_eq!(to.receive(&mut receiving, &mut frames, 64), 0);
        }
        release_all(&mut receiving, &mut frames);
    });
}
