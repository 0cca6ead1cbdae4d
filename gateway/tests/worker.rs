//! The worker's loop over memory ports: what arrives leaves, what finds no room is counted, no frame is lost.

mod laboratory;

use std::sync::Arc;
use std::time::Duration;

use aead::Aead;
use gateway::clock::Clock;
use gateway::dataplane::classify::Roles;
use gateway::dataplane::counters::{Verdict, WorkerCounters};
use gateway::dataplane::engine::Engine;
use gateway::dataplane::worker::{Ports, Stop, Worker, WorkerLink};
use gateway::io::memory::{Handle, MemoryDatagrams, MemoryLink, MemoryTunnel};
use gateway::io::{Backing, FramePool, Umem};
use laboratory::{CLIENT, DOWNLINK, Laboratory, SERVER, UPLINK, framed, ipv4, opened, plain_frame, sealed};

struct Rig {
    lab: Laboratory,
    worker: Worker,
    counters: Arc<WorkerCounters>,
    uplink: Handle<Vec<u8>>,
    downlink: Handle<Vec<u8>>,
    tunnel: Handle<Vec<u8>>,
    frame_count: usize,
}

/// A worker with both links, whose ports accept `tx_max` packets each and which owns `frame_count` frames.
fn rig(tx_max: usize, frame_count: u32) -> Rig {
    let lab = Laboratory::new();
    let (uplink_port, uplink) = MemoryLink::new(UPLINK, tx_max);
    let (downlink_port, downlink) = MemoryLink::new(DOWNLINK, tx_max);
    let (tunnel_port, tunnel) = MemoryTunnel::new(tx_max);
    let (datagrams, _) = MemoryDatagrams::new(tx_max);
    let link = |port, uplink| WorkerLink { port: Box::new(port), roles: Roles { uplink, downlink: !uplink } };
    let ports = Ports {
        links: vec![link(uplink_port, true), link(downlink_port, false)],
        datagrams: Box::new(datagrams),
        tunnel: Box::new(tunnel_port),
        errors: None,
        receives_from_kernel: true,
    };
    let (umem, frames) = Umem::new(2048, frame_count, Backing::Plain).unwrap();
    let counters = Arc::new(WorkerCounters::default());
    let engine = Engine::new(Aead::detect(), lab.shared(), &[UPLINK, DOWNLINK]);
    let worker = Worker::new(engine, FramePool::new(umem, frames), ports, Arc::clone(&counters));
    Rig { lab, worker, counters, uplink, downlink, tunnel, frame_count: frame_count as usize }
}

impl Rig {
    /// Turns until nothing more is received.
    fn settle(&mut self) {
        while self.worker.turn(self.lab.now) > 0 {}
        assert_eq!(self.worker.frames_accounted(), self.frame_count, "a frame was lost");
    }
}

#[test]
fn packets_cross_between_the_links_both_ways() {
    let mut rig = rig(1000, 512);
    for counter in 0..200 {
        let arriving = sealed(&CLIENT, counter, &ipv4(CLIENT.inner, SERVER, 100 + counter as usize, 64));
        rig.uplink.inject(framed(&CLIENT, &arriving.bytes));
        rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100 + counter as usize, 64)));
    }
    rig.settle();
    let to_server = rig.downlink.take_sent();
    assert_eq!(to_server.len(), 200);
    for (counter, frame) in to_server.iter().enumerate() {
        assert_eq!(frame[14..], ipv4(CLIENT.inner, SERVER, 100 + counter, 63));
    }
    let to_client = rig.uplink.take_sent();
    assert_eq!(to_client.len(), 200);
    for (counter, frame) in to_client.iter().enumerate() {
        assert_eq!(opened(&CLIENT, frame), ipv4(SERVER, CLIENT.inner, 100 + counter, 63));
    }
}

#[test]
fn a_full_link_drops_counts_and_loses_no_frame() {
    let mut rig = rig(10, 512);
    for _ in 0..50 {
        rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100, 64)));
    }
    rig.settle();
    assert_eq!(rig.uplink.take_sent().len(), 10);
    assert_eq!(rig.counters.of(Verdict::DropLinkFull), 40);
}

#[test]
fn a_full_tunnel_device_drops_counts_and_loses_no_frame() {
    let mut rig = rig(3, 512);
    for counter in 0..8 {
        let to_the_host = ipv4(CLIENT.inner, "10.9.0.1".parse().unwrap(), 60, 64);
        rig.uplink.inject(framed(&CLIENT, &sealed(&CLIENT, counter, &to_the_host).bytes));
    }
    rig.settle();
    assert_eq!(rig.tunnel.take_sent().len(), 3);
    assert_eq!(rig.counters.of(Verdict::DropTunnelFull), 5);
}

#[test]
fn an_empty_pool_receives_less_and_recovers() {
    let mut rig = rig(1000, 4);
    for _ in 0..50 {
        rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100, 64)));
    }
    rig.settle();
    let through = rig.uplink.take_sent().len();
    assert!(through >= 4, "{through}");
    rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100, 64)));
    rig.settle();
    assert_eq!(rig.uplink.take_sent().len(), 1);
}

#[test]
fn frames_of_no_use_are_counted() {
    let mut rig = rig(1000, 64);
    rig.uplink.inject(vec![0xff; 60]);
    rig.uplink.inject(Vec::new());
    rig.uplink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100, 64)));
    rig.downlink.inject(vec![0; 14]);
    rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 100, 1)));
    rig.downlink.inject(plain_frame(&ipv4(SERVER, CLIENT.inner, 1421, 64)));
    rig.settle();
    assert_eq!(rig.counters.of(Verdict::DropUnparsed), 6);
    assert!(rig.uplink.take_sent().is_empty());
}

#[test]
fn short_frames_lose_their_ethernet_padding() {
    let mut rig = rig(1000, 64);
    let packet = ipv4(SERVER, CLIENT.inner, 28, 64);
    let mut frame = plain_frame(&packet);
    frame.resize(60, 0xee);
    rig.downlink.inject(frame);
    rig.settle();
    assert_eq!(opened(&CLIENT, &rig.uplink.take_sent()[0]), ipv4(SERVER, CLIENT.inner, 28, 63));
}

#[test]
fn a_worker_without_packets_blocks_and_stops_when_told() {
    let mut rig = rig(10, 64);
    let stop = Arc::new(Stop::new().unwrap());
    let told = Arc::clone(&stop);
    let counters = Arc::clone(&rig.counters);
    let thread = std::thread::spawn(move || rig.worker.run(&told, Clock::start(), false));
    while counters.snapshot().idle_waits == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.stop();
    thread.join().unwrap();
}
