//! A gateway with clients, as its workers see it: sessions, allowed IPs, routes and neighbours, without control.
//!
//! Nothing in it is random, so that two runs execute the same instructions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use gateway::dataplane::network::{Address, Link, Mac, Network, Route, RouteKind, TABLE_MAIN};
use gateway::dataplane::publish::Publisher;
use gateway::dataplane::tables::Shared;
use ipnet::IpNet;
use wireguard::{
    Activity, AllowedIpChange, Endpoint, IndexPermutation, IndexSlot, LocalAddress, PeerId, Session,
    SessionParameters, Time,
};

/// Where sealed datagrams come in: its interface index.
pub const UPLINK: u32 = 2;
/// Where the server is: its interface index.
pub const DOWNLINK: u32 = 3;
/// The UDP port clients send to.
pub const LISTEN_PORT: u16 = 51820;
/// The server behind the downlink.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
/// The gateway's address on the uplink.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// MAC address of the server and of the router towards the clients.
pub const NEIGHBOUR_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The time of everything: no session ages.
pub const NOW: Time = Time(1_000_000_000_000);

const TUNNEL: u32 = 9;
const TUNNEL_MTU: u16 = 1420;
/// Clients' inner addresses count up from here.
const INNER_FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
/// Clients' outer addresses count up from here.
const OUTER_FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// A client with a session.
pub struct Client {
    /// Its address in the tunnel.
    pub inner: Ipv4Addr,
    /// Where its datagrams come from.
    pub outer: SocketAddr,
    /// The gateway's side of its session.
    pub session: Arc<Session>,
    /// Seals what it sends.
    pub key: aead::Key,
    /// Counter of the next datagram it sends.
    pub counter: u64,
}

/// What workers share, and the clients it was filled with.
pub struct World {
    /// The tables workers look into.
    pub shared: Arc<Shared>,
    /// In the order of their addresses.
    pub clients: Vec<Client>,
    publisher: Publisher,
}

impl World {
    /// A gateway that `client_count` clients have confirmed sessions with.
    ///
    /// # Errors
    /// No file descriptor is left for the mailbox.
    pub fn new(client_count: u32) -> Result<Self> {
        let permutation = IndexPermutation::new(0x5eed);
        let shared = Arc::new(Shared::new(permutation)?);
        let mut publisher = Publisher::new(Arc::clone(&shared), BTreeSet::from([UPLINK, DOWNLINK]));
        publisher.set_tunnel(TUNNEL, TUNNEL_MTU);
        publisher.set_listen_port(LISTEN_PORT);
        publisher.set_network(network());
        let mut world = Self { shared, clients: Vec::new(), publisher };
        for number in 0..client_count {
            let local_index = permutation.index_of(IndexSlot { host: 0, slot: number, generation: 0 });
            world.add_client(number, local_index);
        }
        let changes: Vec<AllowedIpChange> = (0..)
            .zip(&world.clients)
            .map(|(number, client)| AllowedIpChange {
                prefix: IpNet::from(IpAddr::from(client.inner)),
                owner: Some(PeerId(number)),
            })
            .collect();
        world.publisher.change_allowed_ips(&changes);
        Ok(world)
    }

    fn add_client(&mut self, number: u32, local_index: u32) {
        let id = PeerId(number);
        let activity = Arc::new(Activity::default());
        self.publisher.add_peer(id, Arc::clone(&activity));
        let session = Arc::new(Session::new(SessionParameters {
            peer: id,
            activity,
            local_index,
            remote_index: 0x1000 + number,
            created_at: NOW,
            initiator: false,
            sending_key: key(number, 1).into(),
            receiving_key: key(number, 2).into(),
        }));
        self.publisher.add_session(Arc::clone(&session));
        self.publisher.set_current_session(id, Some(&session));
        let outer = SocketAddr::new(nth(OUTER_FIRST, number).into(), 40000);
        let local = LocalAddress { ip: GATEWAY.into(), interface_index: UPLINK };
        self.publisher.set_endpoint(id, Some(Endpoint { remote: outer, local: Some(local) }));
        let inner = nth(INNER_FIRST, number);
        let key = aead::Key::new(session.receiving_key());
        self.clients.push(Client { inner, outer, session, key, counter: 0 });
    }

    /// Takes from the mailbox what workers told control, as control would.
    pub fn read_mail(&self) {
        self.shared.mailbox.rearm();
        while self.shared.mailbox.pop().is_some() {}
    }
}

fn nth(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + number)
}

fn key(number: u32, direction: u8) -> [u8; 32] {
    let mut key = [direction; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

fn network() -> Network {
    let link = |index: u32| {
        let mac = Some([2, 0, 0, 0, 1, index as u8]);
        (index, Link { index, name: format!("link{index}"), mac, mtu: 1500, up: true })
    };
    let address = |interface_index, ip: Ipv4Addr| {
        let address = IpNet::new_assert(ip.into(), 24);
        Address { interface_index, address }
    };
    let route = |ip: Ipv4Addr, len, interface_index, gateway: Option<Ipv4Addr>| Route {
        destination: IpNet::new_assert(ip.into(), len).trunc(),
        interface_index: Some(interface_index),
        gateway: gateway.map(IpAddr::from),
        preferred_source: None,
        metric: 0,
        mtu: None,
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        multipath: false,
    };
    Network {
        links: [link(UPLINK), link(DOWNLINK)].into(),
        addresses: vec![address(UPLINK, GATEWAY), address(DOWNLINK, Ipv4Addr::new(10, 9, 0, 1))],
        routes: vec![
            route(OUTER_FIRST, 10, UPLINK, Some(ROUTER)),
            route(SERVER, 24, DOWNLINK, None),
            route(INNER_FIRST, 10, TUNNEL, None),
        ],
        neighbours: [((UPLINK, ROUTER.into()), NEIGHBOUR_MAC), ((DOWNLINK, SERVER.into()), NEIGHBOUR_MAC)]
            .into(),
        plain_rules: true,
    }
}
