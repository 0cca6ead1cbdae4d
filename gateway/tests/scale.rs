//! A hundred thousand peers: a change costs what it changes, not what there is. Counted in nodes, look-ups and
//! messages, never in seconds.

mod laboratory;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use gateway::dataplane::network::{Network, Route};
use gateway::dataplane::publish::Publisher;
use gateway::dataplane::tables::{Shared, Tables};
use ipnet::IpNet;
use laboratory::{DOWNLINK, LISTEN_PORT, TUNNEL, UPLINK, network};
use wireguard::{
    AllowedIpAction, Device, DeviceChange, KEY_LEN, Now, Output, PeerChange, PeerId, PrivateKey,
    PrivateKeyChange, PublicKey, Time, UnixTime,
};

const PEER_COUNT: u32 = 100_000;
/// Arrays that one change of a prefix may copy: two for each six bits of the longer address.
const PATH_LEN_MAX: usize = 2 * 22;

const START: Time = Time(1_000_000_000_000);

fn now(time: Time) -> Now {
    Now { monotonic: time, unix: UnixTime { secs: 1_800_000_000 + time.0 / 1_000_000_000, nanos: 0 } }
}

fn key(number: u32) -> PublicKey {
    let mut bytes = [0x42; KEY_LEN];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

fn inner_v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits((10 << 24) | number).into()
}

fn inner_v6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(number)).into()
}

/// Endpoints are in 198.18.0.0/15, a thousand peers in each /22 or so.
fn outer(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number).into()
}

fn peer(number: u32) -> PeerChange {
    let mut change = PeerChange::new(key(number));
    change.endpoint = Some((outer(number), 40000).into());
    change.allowed_ips =
        [inner_v4(number), inner_v6(number)].map(|ip| (IpNet::from(ip), AllowedIpAction::Add)).into();
    change
}

/// Control's part, without sockets: the device, and what workers see of it.
struct Scale {
    device: Device,
    publisher: Publisher,
    shared: Arc<Shared>,
    network: Network,
    transmitted: usize,
}

impl Scale {
    /// All peers, configured by one change.
    fn new() -> Self {
        let mut device = Device::new([7; 32]);
        device.set_up(true, now(START));
        let shared = Arc::new(Shared::new(device.index_permutation()).unwrap());
        let mut publisher = Publisher::new(Arc::clone(&shared), BTreeSet::from([UPLINK, DOWNLINK]));
        publisher.set_tunnel(TUNNEL, 1420);
        publisher.set_listen_port(LISTEN_PORT);
        let mut network = network();
        let behind_the_router = network.routes[0].clone();
        network.routes.push(Route { destination: "0.0.0.0/0".parse().unwrap(), ..behind_the_router });
        publisher.set_network(network.clone());
        let mut scale = Self { device, publisher, shared, network, transmitted: 0 };
        let change = DeviceChange {
            private_key: PrivateKeyChange::Set(PrivateKey::from_bytes([9; KEY_LEN])),
            peers: (0..PEER_COUNT).map(peer).collect(),
            ..DeviceChange::default()
        };
        scale.apply(change);
        scale
    }

    fn apply(&mut self, change: DeviceChange) {
        self.device.apply(change, now(START)).expect("the change is good");
        self.carry_out();
    }

    fn apply_peer(&mut self, change: PeerChange) {
        self.apply(DeviceChange { peers: vec![change], ..DeviceChange::default() });
    }

    fn carry_out(&mut self) -> usize {
        // Its time is of no concern here: what comes of it is counted, not waited for.
        self.device.perform_work(now(START)).expect("nothing is received");
        let mut count = 0;
        while let Some(output) = self.device.poll_output() {
            count += 1;
            match output {
                Output::PeerAdded { peer, activity } => self.publisher.add_peer(peer, activity),
                Output::PeerRemoved { peer } => self.publisher.remove_peer(peer),
                Output::EndpointChanged { peer, endpoint } => self.publisher.set_endpoint(peer, endpoint),
                Output::AllowedIpsChanged { changes } => self.publisher.change_allowed_ips(&changes),
                Output::Transmit { .. } => self.transmitted += 1,
                Output::SessionAdded(_) | Output::SessionRemoved { .. } | Output::CurrentSession { .. } => {}
            }
        }
        count
    }

    fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    fn id(&self, number: u32) -> PeerId {
        self.device.peer_by_key(&key(number)).expect("the peer is there")
    }

    fn owner(&self, ip: IpAddr) -> Option<PeerId> {
        self.tables().allowed_ips.lookup(ip).map(|entry| entry.id)
    }

    /// How many paths `change` makes the publisher look up.
    fn resolutions(&mut self, change: impl FnOnce(&mut Self)) -> u64 {
        let before = self.publisher.effort().0;
        change(self);
        self.publisher.effort().0 - before
    }
}

/// Some peers from all over the range.
fn sample() -> impl Iterator<Item = u32> {
    (0..PEER_COUNT).step_by(997).chain([PEER_COUNT - 1])
}

#[test]
fn every_prefix_of_a_large_configuration_leads_to_its_peer() {
    let scale = Scale::new();
    assert_eq!(scale.tables().allowed_ips.len(), 2 * PEER_COUNT as usize);
    for number in sample() {
        assert_eq!(scale.owner(inner_v4(number)), Some(scale.id(number)));
        assert_eq!(scale.owner(inner_v6(number)), Some(scale.id(number)));
        assert!(scale.publisher.is_fast(scale.id(number)));
    }
    assert_eq!(scale.owner(inner_v4(PEER_COUNT)), None);
    let listed = scale.device.peers().count();
    assert_eq!(listed, PEER_COUNT as usize);
}

#[test]
fn a_change_of_one_peer_copies_one_path_of_the_snapshot() {
    let mut scale = Scale::new();
    let before = scale.tables();
    let mut moved = PeerChange::new(key(7));
    moved.allowed_ips = vec![(IpNet::from(inner_v4(50_000)), AllowedIpAction::Add)];
    let resolutions = scale.resolutions(|scale| scale.apply_peer(moved));
    let after = scale.tables();
    assert_eq!(scale.owner(inner_v4(50_000)), Some(scale.id(7)));
    assert_eq!(
        before.allowed_ips.lookup(inner_v4(50_000)).unwrap().id,
        scale.id(50_000),
        "the old one stays"
    );
    let copied = after.allowed_ips.unshared_count(&before.allowed_ips);
    assert!((1..=PATH_LEN_MAX).contains(&copied), "{copied} arrays were copied");
    assert!(Arc::ptr_eq(&before.fib, &after.fib), "routes have nothing to do with it");
    assert_eq!(resolutions, 0, "no path depends on allowed IPs");
    drop(before);
    scale.publisher.collect();
    assert_eq!(scale.publisher.effort().1, 0, "nothing waits to be freed");
}

#[test]
fn removing_a_peer_costs_its_own_prefixes() {
    let mut scale = Scale::new();
    let before = scale.tables();
    let mut removal = PeerChange::new(key(31_337));
    removal.remove = true;
    let resolutions = scale.resolutions(|scale| scale.apply_peer(removal));
    assert_eq!((scale.owner(inner_v4(31_337)), scale.owner(inner_v6(31_337))), (None, None));
    let copied = scale.tables().allowed_ips.unshared_count(&before.allowed_ips);
    assert!(copied <= 2 * PATH_LEN_MAX, "{copied} arrays were copied");
    assert!(resolutions <= 1, "{resolutions} paths were looked up");
}

#[test]
fn a_roaming_peer_costs_one_path_and_no_snapshot() {
    let mut scale = Scale::new();
    let before = scale.tables();
    let mut roamed = PeerChange::new(key(5));
    roamed.endpoint = Some("203.0.113.5:1".parse().unwrap());
    let resolutions = scale.resolutions(|scale| scale.apply_peer(roamed));
    assert_eq!(resolutions, 1);
    assert!(Arc::ptr_eq(&before, &scale.tables()), "workers keep their snapshot");
    assert!(scale.publisher.is_fast(scale.id(5)));
}

#[test]
fn a_route_concerns_the_peers_behind_it() {
    let mut scale = Scale::new();
    let wide = scale.network.routes.last().unwrap().clone();
    // 198.18.4.0/22 holds the endpoints of peers 1024 to 2047.
    let narrow = Route { destination: "198.18.4.0/22".parse().unwrap(), interface_index: Some(99), ..wide };
    scale.network.routes.push(narrow);
    let resolutions = scale.resolutions(|scale| scale.publisher.set_network(scale.network.clone()));
    assert_eq!(resolutions, 1024);
    let fast = |scale: &Scale, number| scale.publisher.is_fast(scale.id(number));
    assert_eq!([1023, 1024, 2047, 2048].map(|number| fast(&scale, number)), [true, false, false, true]);
    scale.network.routes.pop();
    let resolutions = scale.resolutions(|scale| scale.publisher.set_network(scale.network.clone()));
    assert_eq!(resolutions, 1024);
    assert!(fast(&scale, 1500));

    let gateway: IpAddr = "192.0.2.254".parse().unwrap();
    let mac = scale.network.neighbours.remove(&(UPLINK, gateway)).unwrap();
    scale.publisher.set_network(scale.network.clone());
    assert!(!fast(&scale, 77_777), "all depend on the router");
    let awaited = scale.publisher.next_hops_in_use();
    assert!(
        awaited.contains(&(UPLINK, gateway)),
        "one neighbour is asked for, however many wait: {awaited:?}"
    );
    assert!(awaited.len() < 10, "{awaited:?}");
    scale.network.neighbours.insert((UPLINK, gateway), mac);
    scale.publisher.set_network(scale.network.clone());
    assert!(fast(&scale, 77_777));
    let other = scale.resolutions(|scale| {
        scale.network.neighbours.insert((DOWNLINK, "10.9.0.77".parse().unwrap()), [2, 0, 0, 0, 0, 9]);
        scale.publisher.set_network(scale.network.clone());
    });
    assert_eq!(other, 0, "a server's neighbour entry is no peer's business");
}

#[test]
fn keepalives_of_all_peers_begin_one_after_the_other() {
    let mut scale = Scale::new();
    let peers = (0..PEER_COUNT).map(|number| {
        let mut change = PeerChange::new(key(number));
        change.persistent_keepalive = Some(25);
        change
    });
    let change = DeviceChange { peers: peers.collect(), ..DeviceChange::default() };
    scale.device.apply(change, now(START)).expect("the change is good");
    scale.carry_out();
    let at_once = scale.device.counters().initiations_sent;
    assert!((1..=64).contains(&at_once), "{at_once} handshakes began within the change");

    // A second later, if nothing was done meanwhile: still only so many in one go.
    let later = now(Time(START.0 + 1_000_000_000));
    scale.device.handle_timeout(later);
    scale.carry_out();
    let in_one_turn = scale.device.counters().initiations_sent - at_once;
    assert!((1..=256).contains(&in_one_turn), "{in_one_turn} handshakes began in one turn");
    assert!(scale.device.next_timeout().unwrap() <= later.monotonic, "the rest is due");
    while scale.device.next_timeout().unwrap() <= later.monotonic {
        scale.device.handle_timeout(later);
        scale.carry_out();
    }
    let within_a_second = scale.device.counters().initiations_sent;
    assert!((1000..10_000).contains(&within_a_second), "{within_a_second} handshakes in a second");
}
