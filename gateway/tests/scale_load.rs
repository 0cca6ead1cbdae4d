//! Peers, allowed IPs and routes change without pause while packets pass: none is lost, none goes astray.

mod laboratory;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aead::Aead;
use gateway::dataplane::classify::Roles;
use gateway::dataplane::counters::{Verdict, WorkerCounters};
use gateway::dataplane::engine::Engine;
use gateway::dataplane::network::Route;
use gateway::dataplane::worker::{Ports, Worker, WorkerLink};
use gateway::io::memory::{MemoryDatagrams, MemoryLink, MemoryTunnel};
use gateway::io::{Backing, FramePool, Umem};
use ipnet::IpNet;
use laboratory::{
    CLIENT, CLIENT_MAC_HOP, DOWNLINK, Laboratory, OTHER, SERVER, UPLINK, framed, ipv4, network, opened,
    plain_frame, sealed,
};
use wireguard::{Activity, AllowedIpChange, Endpoint, PeerId};

const PACKET_COUNT: u32 = 20_000;
const BATCH_LEN: u32 = 100;
/// Peers that come and go.
const VISITORS: std::ops::Range<u32> = 2..50;
/// Longer than the whole test takes on a busy machine; it ends by its packets.
const PATIENCE: Duration = Duration::from_mins(1);

/// Changes everything that is not the flow's own, and the flow's own by way of what amounts to the same.
fn change_everything(lab: &mut Laboratory, round: u32) {
    let prefix = |text: &str| -> IpNet { text.parse().unwrap() };
    let publisher = lab.publisher();
    let visitor = VISITORS.start + round % VISITORS.len() as u32;
    let id = PeerId(visitor);
    if (round / VISITORS.len() as u32).is_multiple_of(2) {
        publisher.add_peer(id, Arc::new(Activity::default()));
        let remote = (Ipv4Addr::new(203, 0, 113, visitor as u8), 40000).into();
        publisher.set_endpoint(id, Some(Endpoint { remote, local: None }));
        // Wider than the clients' own prefixes and narrower, but never the same.
        let own = IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 8, 0, 100 + visitor as u8)));
        publisher.change_allowed_ips(&[
            AllowedIpChange { prefix: own, owner: Some(id) },
            AllowedIpChange { prefix: prefix("10.8.0.0/29"), owner: Some(id) },
            AllowedIpChange { prefix: prefix("0.0.0.0/0"), owner: Some(id) },
        ]);
    } else {
        let own = IpNet::from(IpAddr::V4(Ipv4Addr::new(10, 8, 0, 100 + visitor as u8)));
        publisher.change_allowed_ips(&[
            AllowedIpChange { prefix: own, owner: None },
            AllowedIpChange { prefix: prefix("10.8.0.0/29"), owner: None },
            AllowedIpChange { prefix: prefix("0.0.0.0/0"), owner: None },
        ]);
        publisher.remove_peer(id);
    }
    // What `replace_allowed_ips` with the same list comes to.
    let client = IpNet::from(CLIENT.inner);
    publisher.change_allowed_ips(&[
        AllowedIpChange { prefix: client, owner: None },
        AllowedIpChange { prefix: client, owner: Some(OTHER.id) },
        AllowedIpChange { prefix: client, owner: Some(CLIENT.id) },
    ]);
    let mut network = network();
    if round.is_multiple_of(2) {
        // Narrower and wider than the routes in use, and a neighbour that is not.
        let route = |text: &str, like: &Route| Route { destination: prefix(text), ..like.clone() };
        let (to_clients, to_server) = (network.routes[0].clone(), network.routes[2].clone());
        network.routes.extend([
            route("203.0.113.128/25", &to_clients),
            route("0.0.0.0/0", &to_clients),
            route("10.9.0.0/30", &Route { interface_index: Some(99), ..to_server }),
        ]);
        network.neighbours.insert((DOWNLINK, "10.9.0.77".parse().unwrap()), [2, 0, 0, 0, 0, 7]);
    }
    publisher.set_network(network);
    if round.is_multiple_of(64) {
        publisher.collect();
    }
}

#[test]
fn changes_under_load_lose_no_packet() {
    let mut lab = Laboratory::new();
    let (uplink_port, uplink) = MemoryLink::new(UPLINK, usize::MAX);
    let (downlink_port, downlink) = MemoryLink::new(DOWNLINK, usize::MAX);
    let (tunnel_port, tunnel) = MemoryTunnel::new(usize::MAX);
    let (datagrams, socket) = MemoryDatagrams::new(usize::MAX);
    let link = |port, uplink| WorkerLink { port: Box::new(port), roles: Roles { uplink, downlink: !uplink } };
    let ports = Ports {
        links: vec![link(uplink_port, true), link(downlink_port, false)],
        datagrams: Box::new(datagrams),
        tunnel: Box::new(tunnel_port),
        errors: None,
        receives_from_kernel: true,
    };
    let (umem, frames) = Umem::new(2048, 1024, Backing::Plain).unwrap();
    let counters = Arc::new(WorkerCounters::default());
    let engine = Engine::new(Aead::detect(), lab.shared(), &[UPLINK, DOWNLINK]);
    let mut worker = Worker::new(engine, FramePool::new(umem, frames), ports, Arc::clone(&counters));
    let (time, done) = (lab.now, AtomicBool::new(false));

    let (rounds, rounds_under_load) = std::thread::scope(|scope| {
        let done = &done;
        let traffic = scope.spawn(move || {
            for first in (0..PACKET_COUNT).step_by(BATCH_LEN as usize) {
                for number in first..first + BATCH_LEN {
                    let len = 100 + number as usize % 1000;
                    let peer = if number % 2 == 0 { &CLIENT } else { &OTHER };
                    let arriving = sealed(peer, number.into(), &ipv4(peer.inner, SERVER, len, 64));
                    uplink.inject(framed(peer, &arriving.bytes));
                    downlink.inject(plain_frame(&ipv4(SERVER, peer.inner, len, 64)));
                }
                while worker.turn(time) > 0 {}
            }
            done.store(true, Ordering::Release);
            (uplink.take_sent(), downlink.take_sent())
        });
        let (mut rounds, started) = (0, Instant::now());
        while !done.load(Ordering::Acquire) && started.elapsed() < PATIENCE {
            change_everything(&mut lab, rounds);
            rounds += 1;
        }
        let (to_clients, to_server) = traffic.join().expect("the worker does not panic");
        check(&to_clients, &to_server);
        (rounds, counters.snapshot())
    });
    assert!(rounds > 100, "only {rounds} rounds of changes while packets passed");
    let verdicts: BTreeMap<_, _> = rounds_under_load.verdicts.into_iter().collect();
    let expected = [
        (Verdict::OpenedToLink.name(), PACKET_COUNT.into()),
        (Verdict::SealedToLink.name(), PACKET_COUNT.into()),
    ];
    assert_eq!(verdicts, expected.into(), "every packet had the one right verdict");
    assert!(tunnel.take_sent().is_empty() && socket.take_sent().is_empty());
}

/// Every packet left once, whole, in order and to whom it was for.
fn check(to_clients: &[Vec<u8>], to_server: &[Vec<u8>]) {
    assert_eq!((to_clients.len(), to_server.len()), (PACKET_COUNT as usize, PACKET_COUNT as usize));
    for (number, (sealed, plain)) in to_clients.iter().zip(to_server).enumerate() {
        let peer = if number % 2 == 0 { &CLIENT } else { &OTHER };
        let len = 100 + number % 1000;
        assert_eq!(plain[..12], CLIENT_MAC_HOP);
        assert_eq!(plain[14..], ipv4(peer.inner, SERVER, len, 63), "packet {number} to the server");
        assert_eq!(opened(peer, sealed), ipv4(SERVER, peer.inner, len, 63), "packet {number} to a client");
    }
}
