//! One engine with two peers, a link to each side and the kernel's sockets, all in memory.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use aead::Aead;
use gateway::dataplane::counters::{Tally, Verdict};
use gateway::dataplane::encap::OuterHeader;
use gateway::dataplane::engine::Engine;
use gateway::dataplane::fib::LinkHop;
use gateway::dataplane::inner::{fold, words_sum};
use gateway::dataplane::mailbox::{QueuedHandshake, WorkerEvent};
use gateway::dataplane::network::{Address, Link, Network, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};
use gateway::dataplane::publish::Publisher;
use gateway::dataplane::tables::Shared;
use gateway::io::{Backing, Datagram, Frame, FramePool, Umem, Unreachable};
use wireguard::{
    Activity, AllowedIps, Endpoint, IndexPermutation, IndexSlot, LocalAddress, PeerId, Session,
    SessionParameters, Time,
};

pub const UPLINK: u32 = 2;
pub const DOWNLINK: u32 = 3;
pub const TUNNEL: u32 = 9;
pub const FRAME_COUNT: u32 = 512;
pub const LISTEN_PORT: u16 = 51820;
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 5));
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 5));
pub const CLIENT_INNER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 2));
/// Destination and source MAC of what leaves towards the server.
pub const CLIENT_MAC_HOP: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 1, DOWNLINK as u8];

/// A peer as the test knows it: addresses and both keys.
pub struct Peer {
    pub id: PeerId,
    pub inner: IpAddr,
    pub outer: Ipv4Addr,
    pub to_gateway: [u8; 32],
    pub from_gateway: [u8; 32],
}

pub const CLIENT: Peer = Peer {
    id: PeerId(0),
    inner: IpAddr::V4(Ipv4Addr::new(10, 8, 0, 2)),
    outer: Ipv4Addr::new(203, 0, 113, 2),
    to_gateway: [1; 32],
    from_gateway: [2; 32],
};
pub const OTHER: Peer = Peer {
    id: PeerId(1),
    inner: IpAddr::V4(Ipv4Addr::new(10, 8, 0, 3)),
    outer: Ipv4Addr::new(203, 0, 113, 3),
    to_gateway: [3; 32],
    from_gateway: [4; 32],
};

/// Where peers are in a laboratory over IPv6.
pub const OUTER_V6: &str = "[2001:db8:7::2]:40000";

impl Peer {
    pub fn outer(&self) -> SocketAddr {
        SocketAddr::new(self.outer.into(), 40000)
    }

    /// The gateway's receiver index for this peer.
    fn local_index(&self) -> u32 {
        permutation().index_of(IndexSlot { host: 0, slot: self.id.0, generation: 0 })
    }
}

fn permutation() -> IndexPermutation {
    IndexPermutation::new(0x5eed)
}

/// A datagram on its way to the gateway.
#[derive(Clone, Debug)]
pub struct Arriving {
    pub bytes: Vec<u8>,
    pub source: SocketAddr,
    pub ecn: u8,
}

impl Arriving {
    pub fn from_client(bytes: Vec<u8>) -> Self {
        Self { bytes, source: CLIENT.outer(), ecn: 0 }
    }
}

/// What left the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Link { interface_index: u32, frame: Vec<u8> },
    Socket { remote: SocketAddr, datagram: Vec<u8> },
    Tunnel(Vec<u8>),
}

pub struct Laboratory {
    pub now: Time,
    engine: Engine,
    pool: FramePool,
    publisher: Publisher,
    shared: Arc<Shared>,
    network: Network,
    counters: [u64; Verdict::ALL.len()],
    counter: u64,
    unreachable: Vec<Unreachable>,
}

impl Laboratory {
    pub fn new() -> Self {
        Self::build(false, false)
    }

    pub fn new_as_initiator() -> Self {
        Self::build(true, false)
    }

    pub fn over_ipv6() -> Self {
        Self::build(false, true)
    }

    /// With a default route behind the uplink's router.
    pub fn with_default_route() -> Self {
        let mut lab = Self::new();
        let behind_the_router = lab.network.routes[0].clone();
        lab.network.routes.push(Route { destination: "0.0.0.0/0".parse().unwrap(), ..behind_the_router });
        lab.publisher.set_network(lab.network.clone());
        lab
    }

    fn build(initiator: bool, outer_v6: bool) -> Self {
        let shared = Arc::new(Shared::new(permutation()).unwrap());
        let mut publisher = Publisher::new(Arc::clone(&shared), BTreeSet::from([UPLINK, DOWNLINK]));
        let network = network();
        publisher.set_tunnel(TUNNEL, 1420);
        publisher.set_listen_port(LISTEN_PORT);
        publisher.set_network(network.clone());
        let now = Time(1_000_000_000_000);
        let mut allowed_ips = AllowedIps::new();
        for peer in [&CLIENT, &OTHER] {
            let activity = Arc::new(Activity::default());
            publisher.add_peer(peer.id, Arc::clone(&activity));
            let session = Arc::new(Session::new(SessionParameters {
                peer: peer.id,
                activity,
                local_index: peer.local_index(),
                remote_index: 0x1000 + peer.id.0,
                created_at: now,
                initiator,
                sending_key: peer.from_gateway.into(),
                receiving_key: peer.to_gateway.into(),
            }));
            publisher.add_session(Arc::clone(&session));
            publisher.set_current_session(peer.id, Some(&session));
            let remote = if outer_v6 { OUTER_V6.parse().unwrap() } else { peer.outer() };
            publisher.set_endpoint(peer.id, Some(Endpoint { remote, local: Some(local(remote)) }));
            allowed_ips.insert(peer.inner.into(), peer.id);
        }
        allowed_ips.insert(CLIENT_INNER_V6.into(), CLIENT.id);
        publisher.set_allowed_ips(&allowed_ips);

        let (umem, frames) = Umem::new(2048, FRAME_COUNT, Backing::Plain).unwrap();
        Self {
            now,
            engine: Engine::new(Aead::detect(), Arc::clone(&shared), &[UPLINK, DOWNLINK]),
            pool: FramePool::new(umem, frames),
            publisher,
            shared,
            network,
            counters: [0; Verdict::ALL.len()],
            counter: 1 << 20,
            unreachable: Vec::new(),
        }
    }

    /// What workers and control share, for a worker of the test's own.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The one that writes what the engine reads.
    pub fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// A counter no datagram of this laboratory had.
    pub fn next_counter(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Passes `arriving` through the engine, inbound and on to other peers.
    pub fn inbound(&mut self, arriving: &[Arriving]) -> Vec<Sent> {
        let mut datagrams: Vec<Datagram> = arriving
            .iter()
            .map(|arriving| Datagram {
                frame: self.frame(&arriving.bytes),
                endpoint: Endpoint { remote: arriving.source, local: Some(local(arriving.source)) },
                ecn: arriving.ecn,
            })
            .collect();
        self.engine.inbound(&mut self.pool, &mut datagrams, self.now);
        self.outbound(&[])
    }

    /// Passes `packets` through the engine, outbound.
    pub fn outbound(&mut self, packets: &[Vec<u8>]) -> Vec<Sent> {
        let mut frames: Vec<Frame> = packets.iter().map(|packet| self.frame(packet)).collect();
        self.engine.outbound(&mut self.pool, &mut frames, self.now);
        let sent = self.collect();
        assert_eq!(self.pool.free_count(), FRAME_COUNT as usize, "a frame was lost");
        sent
    }

    /// Packets that had `verdict` so far.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.counters[verdict as usize]
    }

    /// ICMP errors since the last call.
    pub fn unreachable(&mut self) -> Vec<Unreachable> {
        std::mem::take(&mut self.unreachable)
    }

    /// What the engine told control.
    pub fn events(&mut self) -> Vec<WorkerEvent> {
        self.shared.mailbox.rearm();
        std::iter::from_fn(|| self.shared.mailbox.pop()).collect()
    }

    /// Handshake messages that the engine has queued.
    pub fn handshakes(&mut self) -> Vec<QueuedHandshake> {
        self.shared.mailbox.handshakes().try_iter().collect()
    }

    pub fn forget_neighbours(&mut self) {
        self.network.neighbours.clear();
        self.publisher.set_network(self.network.clone());
    }

    /// Tells workers where a peer is, as control does.
    pub fn set_endpoint(&mut self, peer: &Peer, remote: SocketAddr) {
        self.publisher.set_endpoint(peer.id, Some(Endpoint { remote, local: Some(local(remote)) }));
    }

    pub fn forget_endpoints(&mut self) {
        self.publisher.set_endpoint(CLIENT.id, None);
        self.publisher.set_endpoint(OTHER.id, None);
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.pool.reserve().expect("frames are not exhausted");
        assert!(frame.set_len(bytes.len()));
        self.pool.data_mut(&mut frame).copy_from_slice(bytes);
        frame
    }

    fn collect(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut frames = Vec::new();
        let egress = self.engine.egress();
        for link in &mut egress.links {
            for frame in link.frames.drain(..) {
                let bytes = self.pool.data(&frame).to_vec();
                sent.push(Sent::Link { interface_index: link.interface_index, frame: bytes });
                frames.push(frame);
            }
        }
        for Datagram { frame, endpoint, .. } in egress.datagrams.drain(..) {
            sent.push(Sent::Socket { remote: endpoint.remote, datagram: self.pool.data(&frame).to_vec() });
            frames.push(frame);
        }
        for frame in egress.packets.drain(..) {
            sent.push(Sent::Tunnel(self.pool.data(&frame).to_vec()));
            frames.push(frame);
        }
        self.unreachable.append(&mut egress.unreachable);
        for frame in frames {
            self.pool.release(frame);
        }
        for verdict in Verdict::ALL {
            self.counters[*verdict as usize] += self.engine.tally().of(*verdict);
        }
        *self.engine.tally() = Tally::default();
        sent
    }
}

/// `inner`, padded and sealed by `peer` for the gateway.
pub fn sealed(peer: &Peer, counter: u64, inner: &[u8]) -> Arriving {
    let mut bytes = vec![4, 0, 0, 0];
    bytes.extend(peer.local_index().to_le_bytes());
    bytes.extend(counter.to_le_bytes());
    bytes.extend(inner);
    bytes.resize(16 + inner.len().next_multiple_of(16) + aead::TAG_LEN, 0);
    let key = aead::Key::new(&peer.to_gateway);
    let packet = aead::Packet { key: &key, counter, buffer: &mut bytes[16..] };
    Aead::detect().seal(&mut [packet]);
    Arriving { bytes, source: peer.outer(), ecn: 0 }
}

/// The address of the gateway that `remote` sends to.
fn local(remote: SocketAddr) -> LocalAddress {
    let ip = if remote.is_ipv6() { "2001:db8:1::1" } else { "192.0.2.1" };
    LocalAddress { ip: ip.parse().unwrap(), interface_index: UPLINK }
}

/// Two links with their routes, as the laboratory begins.
pub fn network() -> Network {
    let link = |index: u32| {
        let mac = Some([2, 0, 0, 0, 1, index as u8]);
        (index, Link { index, name: format!("link{index}"), mac, mtu: 1500, up: true })
    };
    let address = |interface_index, text: &str| Address { interface_index, address: text.parse().unwrap() };
    let route = |destination: &str, interface_index, gateway: Option<&str>| Route {
        destination: destination.parse().unwrap(),
        interface_index: Some(interface_index),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        preferred_source: None,
        metric: 0,
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        mtu: None,
        multipath: false,
    };
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    Network {
        links: [link(UPLINK), link(DOWNLINK)].into(),
        addresses: vec![
            address(UPLINK, "192.0.2.1/24"),
            address(UPLINK, "2001:db8:1::1/64"),
            address(DOWNLINK, "10.9.0.1/24"),
            address(DOWNLINK, "2001:db8:9::1/64"),
        ],
        routes: vec![
            route("203.0.113.0/24", UPLINK, Some("192.0.2.254")),
            route("2001:db8:7::/64", UPLINK, Some("2001:db8:1::fe")),
            route("10.9.0.0/24", DOWNLINK, None),
            route("2001:db8:9::/64", DOWNLINK, None),
            route("10.8.0.0/24", TUNNEL, None),
            Route { table: TABLE_LOCAL, kind: RouteKind::Local, ..route("10.9.0.1/32", DOWNLINK, None) },
        ],
        neighbours: [
            ((UPLINK, ip("192.0.2.254")), [2, 0, 0, 0, 0, 1]),
            ((UPLINK, ip("2001:db8:1::fe")), [2, 0, 0, 0, 0, 1]),
            ((DOWNLINK, SERVER), [2, 0, 0, 0, 0, 2]),
            ((DOWNLINK, SERVER_V6), [2, 0, 0, 0, 0, 2]),
        ]
        .into(),
        plain_rules: true,
    }
}

/// `datagram` as `peer` sends it to the gateway: a whole Ethernet frame.
pub fn framed(peer: &Peer, datagram: &[u8]) -> Vec<u8> {
    let hop = LinkHop {
        interface_index: 0,
        destination_mac: [2, 0, 0, 0, 1, UPLINK as u8],
        source_mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        source: None,
    };
    let gateway = SocketAddr::new(local(peer.outer()).ip, LISTEN_PORT);
    let header = OuterHeader::new(&hop, peer.outer(), gateway).unwrap();
    let mut frame = vec![0; header.len()];
    frame.extend(datagram);
    header.write(&mut frame, 0, 0);
    frame
}

/// An IPv4 packet as the server sends it to the gateway: a whole Ethernet frame.
pub fn plain_frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 1, DOWNLINK as u8, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend(packet);
    frame
}

/// An IPv4 packet of `len` bytes with a right header checksum.
pub fn ipv4(source: IpAddr, destination: IpAddr, len: usize, ttl: u8) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { panic!("not IPv4") };
    let mut packet = vec![0x45, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0x12, 0x34, 0, 0, ttl, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend((20..len).map(|i| i as u8));
    write_checksum(&mut packet);
    packet
}

/// An IPv6 packet of `len` bytes.
pub fn ipv6(source: IpAddr, destination: IpAddr, len: usize, hop_limit: u8) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { panic!("not IPv6") };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((len - 40) as u16).to_be_bytes());
    packet.extend([17, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend((40..len).map(|i| i as u8));
    packet
}

/// Sets the TOS of an IPv4 packet.
pub fn set_tos(packet: &mut [u8], tos: u8) {
    packet[1] = tos;
    write_checksum(packet);
}

fn write_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !fold(words_sum(&packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The inner packet of an Ethernet frame the gateway sealed for `peer`.
pub fn opened(peer: &Peer, frame: &[u8]) -> Vec<u8> {
    let outer = gateway_ebpf::parse::outer(frame).expect("a whole UDP frame");
    assert_eq!(outer.udp.source_port, LISTEN_PORT);
    assert_eq!(outer.udp.payload_offset + outer.udp.payload_len, frame.len());
    opened_datagram(peer, &frame[outer.udp.payload_offset..])
}

/// The inner packet of a transport data message the gateway sealed for `peer`.
pub fn opened_datagram(peer: &Peer, datagram: &[u8]) -> Vec<u8> {
    assert_eq!(datagram[..4], [4, 0, 0, 0]);
    assert_eq!(datagram[4..8], (0x1000 + peer.id.0).to_le_bytes());
    let counter = u64::from_le_bytes(datagram[8..16].try_into().unwrap());
    let mut buffer = datagram[16..].to_vec();
    let key = aead::Key::new(&peer.from_gateway);
    let mut authentic = Vec::new();
    Aead::detect().open(&mut [aead::Packet { key: &key, counter, buffer: &mut buffer }], &mut authentic);
    assert_eq!(authentic, [true], "the peer cannot open what the gateway sealed");
    let inner = gateway_ebpf::parse::ip(&buffer[..buffer.len() - aead::TAG_LEN]).expect("an IP packet");
    assert!(buffer[inner.len..buffer.len() - aead::TAG_LEN].iter().all(|byte| *byte == 0), "padding is zero");
    buffer.truncate(inner.len);
    buffer
}
