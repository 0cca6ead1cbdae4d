//! What a hundred thousand peers with sessions weigh: alone in its process, so that the process's memory is theirs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use gateway::dataplane::publish::Publisher;
use gateway::dataplane::tables::Shared;
use ipnet::IpNet;
use wireguard::{
    AllowedIpAction, Device, DeviceChange, IndexSlot, KEY_LEN, Now, Output, PeerChange, PeerId, PublicKey,
    Session, SessionParameters, Time, UnixTime,
};

const PEER_COUNT: u32 = 100_000;
/// What the issue allows for all of it.
const MEMORY_MAX: u64 = 1 << 30;
/// The sessions a peer can have at once: the one in use, the one before, and one that is not confirmed yet.
const SESSIONS_PER_PEER: u32 = 3;

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn key(number: u32) -> PublicKey {
    let mut bytes = [0x42; KEY_LEN];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

fn peer(number: u32) -> PeerChange {
    let mut change = PeerChange::new(key(number));
    change.endpoint = Some((Ipv4Addr::from_bits(0xc612_0000 + number), 40000).into());
    let inner: [IpAddr; 2] = [
        Ipv4Addr::from_bits((10 << 24) | number).into(),
        Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(number)).into(),
    ];
    change.allowed_ips = inner.map(|ip| (IpNet::from(ip), AllowedIpAction::Add)).into();
    change
}

#[test]
fn a_hundred_thousand_peers_with_all_their_sessions_fit_into_a_gibibyte() {
    let now = Now { monotonic: Time(1_000_000_000), unix: UnixTime { secs: 1_800_000_000, nanos: 0 } };
    let mut device = Device::new([7; 32]);
    let permutation = device.index_permutation();
    let shared = Arc::new(Shared::new(permutation).unwrap());
    let mut publisher = Publisher::new(Arc::clone(&shared), BTreeSet::new());
    let empty = resident();

    let change = DeviceChange { peers: (0..PEER_COUNT).map(peer).collect(), ..DeviceChange::default() };
    device.apply(change, now).unwrap();
    while let Some(output) = device.poll_output() {
        match output {
            Output::PeerAdded { peer, activity } => publisher.add_peer(peer, activity),
            Output::EndpointChanged { peer, endpoint } => publisher.set_endpoint(peer, endpoint),
            Output::AllowedIpsChanged { changes } => publisher.change_allowed_ips(&changes),
            _ => {}
        }
    }
    let configured = resident();

    for round in 0..SESSIONS_PER_PEER {
        for number in 0..PEER_COUNT {
            let slot = IndexSlot { host: 0, slot: round * PEER_COUNT + number, generation: 0 };
            let session = Arc::new(Session::new(SessionParameters {
                peer: PeerId(number),
                activity: device.activity(PeerId(number)).unwrap(),
                local_index: permutation.index_of(slot),
                remote_index: number,
                created_at: now.monotonic,
                initiator: false,
                sending_key: [1; KEY_LEN].into(),
                receiving_key: [2; KEY_LEN].into(),
            }));
            // Traffic has gone through each: nothing is left to be allocated later.
            session.replay().accept(5000).unwrap();
            publisher.add_session(Arc::clone(&session));
            publisher.set_current_session(PeerId(number), Some(&session));
        }
        let each = (resident() - configured) / u64::from((round + 1) * PEER_COUNT);
        println!("{each} bytes a session with {} a peer", round + 1);
    }
    publisher.collect();
    let total = resident();
    let per_peer = (configured - empty) / u64::from(PEER_COUNT);
    println!("{per_peer} bytes a peer without a session, {} MiB in all", total >> 20);
    assert!(
        total < MEMORY_MAX,
        "{} MiB for {PEER_COUNT} peers with {SESSIONS_PER_PEER} sessions each",
        total >> 20
    );
    for number in (0..PEER_COUNT).step_by(997) {
        let index = permutation.index_of(IndexSlot { host: 0, slot: number, generation: 0 });
        assert_eq!(shared.tables.load().sessions.lookup(index).unwrap().receiving.peer.id, PeerId(number));
    }
}
