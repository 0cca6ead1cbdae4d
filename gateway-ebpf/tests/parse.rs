//! The parser and the decision on the host: any bytes, and the table that the kernel is tested with too.

mod frames;

use std::{collections::BTreeSet, net::IpAddr};

use frames::{Case, LISTEN_PORT, LOCAL, MAC, TUNNEL_MTU};
use gateway_ebpf::{
    Reason,
    layout::{Interface, ROLE_DOWNLINK, ROLE_UPLINK, Settings, counter_index, socket_index},
    parse,
    steer::{Tables, decide},
};
use proptest::prelude::*;

struct Sets {
    local: BTreeSet<IpAddr>,
    allowed: Vec<(IpAddr, u8)>,
}

impl Sets {
    fn new() -> Self {
        let prefix = |text: &&str| {
            let (address, len) = text.split_once('/').unwrap();
            (address.parse().unwrap(), len.parse().unwrap())
        };
        Self {
            local: LOCAL.iter().map(|text| text.parse().unwrap()).collect(),
            allowed: frames::ALLOWED.iter().map(prefix).collect(),
        }
    }
}

/// The address's bits, aligned left.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Tables for Sets {
    fn settings(&self) -> Settings {
        Settings { listen_port: LISTEN_PORT.to_be_bytes(), tunnel_mtu: TUNNEL_MTU }
    }

    fn is_local(&self, address: &IpAddr) -> bool {
        self.local.contains(address)
    }

    fn is_allowed(&self, address: &IpAddr) -> bool {
        self.allowed.iter().any(|&(net, len)| {
            net.is_ipv4() == address.is_ipv4() && (bits(net) ^ bits(*address)) >> (128 - u32::from(len)) == 0
        })
    }
}

fn interface(roles: u32) -> Interface {
    Interface { slot: 0, roles, mac: MAC, reserved: [0; 2] }
}

fn check(roles: u32, cases: Vec<Case>) {
    let tables = Sets::new();
    for Case { name, frame, reason } in cases {
        assert_eq!(decide(frame.as_slice(), &interface(roles), &tables), reason, "{name}");
    }
}

#[test]
fn what_cannot_be_parsed_is_never_steered() {
    for roles in [ROLE_UPLINK, ROLE_DOWNLINK, ROLE_UPLINK | ROLE_DOWNLINK] {
        check(roles, frames::unparsable());
    }
}

#[test]
fn the_uplink_steers_data_to_us_and_nothing_else() {
    check(ROLE_UPLINK, frames::uplink());
}

#[test]
fn the_downlink_steers_packets_to_allowed_ips_and_nothing_else() {
    check(ROLE_DOWNLINK, frames::downlink());
}

#[test]
fn an_interface_with_both_roles_tries_the_uplink_first() {
    check(ROLE_UPLINK | ROLE_DOWNLINK, frames::both());
}

#[test]
fn without_a_listen_port_no_datagram_is_ours() {
    struct Deaf(Sets);
    impl Tables for Deaf {
        fn settings(&self) -> Settings {
            Settings::default()
        }
        fn is_local(&self, address: &IpAddr) -> bool {
            self.0.is_local(address)
        }
        fn is_allowed(&self, address: &IpAddr) -> bool {
            self.0.is_allowed(address)
        }
    }
    let to_port_0 = frames::with(frames::data_v4(), frames::UDP[0] + 2, &[0, 0]);
    let reason = decide(to_port_0.as_slice(), &interface(ROLE_UPLINK), &Deaf(Sets::new()));
    assert_eq!(reason, Reason::OtherPort);
}

#[test]
fn a_data_packet_reads_back_as_it_was_built() {
    let frame = frames::resized(frames::with(frames::data_v4(), 15, &[0b1011_1001]), 160);
    let outer = parse::outer(&frame).unwrap();
    assert_eq!(outer.source(), "198.51.100.7:40000".parse().unwrap());
    assert_eq!(outer.destination(), "192.0.2.1:51820".parse().unwrap());
    assert_eq!((outer.ethernet.destination, outer.ethernet.source), (MAC, [2, 0, 0, 0, 0, 2]));
    assert_eq!((outer.udp.payload_offset, outer.udp.payload_len), (42, 96));
    assert_eq!((outer.ip.tos, outer.ip.ecn(), outer.ip.hop_limit), (0b1011_1001, 1, 64));

    let frame = frames::with(frames::data_v6(), 14, &[0x6b, 0x90]);
    let outer = parse::outer(&frame).unwrap();
    assert_eq!(outer.source(), "[2001:db8:ffff::7]:40000".parse().unwrap());
    assert_eq!(outer.destination(), "[2001:db8::1]:51820".parse().unwrap());
    assert_eq!((outer.udp.payload_offset, outer.udp.payload_len), (62, 96));
    assert_eq!((outer.ip.tos, outer.ip.ecn(), outer.ip.hop_limit), (0b1011_1001, 1, 64));
}

#[test]
fn an_inner_packet_ends_where_its_length_says_and_not_with_the_padding() {
    let frame = frames::resized(frames::packet("203.0.113.9", "10.7.0.44", 6, &[1; 7]), 60);
    let inner = parse::inner(&frame).unwrap();
    assert_eq!((inner.ip.offset, inner.ip.header_len, inner.ip.len), (14, 20, 27));
    assert_eq!(parse::ip(&frame[14..]).map(|ip| (ip.offset, ip.len)), Ok((0, 27)));
}

#[test]
fn a_frame_cut_off_anywhere_is_not_ours() {
    for frame in [frames::data_v4(), frames::data_v6(), frames::inner_v4(), frames::inner_v6()] {
        for len in 0..frame.len() {
            assert!(parse::inner(&frame[..len]).is_err(), "cut to {len} bytes");
            assert!(parse::outer(&frame[..len]).is_err(), "cut to {len} bytes");
            let both = interface(ROLE_UPLINK | ROLE_DOWNLINK);
            assert!(!decide(&frame[..len], &both, &Sets::new()).is_steered(), "cut to {len} bytes");
        }
    }
}

#[test]
fn reasons_have_distinct_names_and_counters() {
    let names: BTreeSet<_> = Reason::NAMES.iter().collect();
    assert_eq!(names.len(), Reason::COUNT);
    for (index, &reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(reason as usize, index);
        assert_eq!(counter_index(3, reason) as usize, 3 * Reason::COUNT + index);
    }
    assert_eq!(socket_index(2, 63), Some(191));
    assert_eq!(socket_index(2, 64), None);
}

#[test]
fn map_values_have_the_bytes_of_their_structs() {
    let settings = Settings { listen_port: [1, 2], tunnel_mtu: 0x0304 };
    assert_eq!(settings.to_bytes(), [[1, 2], 0x0304_u16.to_ne_bytes()].concat().as_slice());
    let interface = Interface { slot: 5, roles: 3, mac: [1, 2, 3, 4, 5, 6], reserved: [0; 2] };
    let expected = [&5_u32.to_ne_bytes()[..], &3_u32.to_ne_bytes(), &[1, 2, 3, 4, 5, 6, 0, 0]].concat();
    assert_eq!(interface.to_bytes(), expected.as_slice());
}

/// Frames close to good ones: mutated, cut and extended, so that the deep branches are reached.
fn near_frames() -> impl Strategy<Value = Vec<u8>> {
    let base = prop::sample::select(vec![
        frames::data_v4(),
        frames::data_v6(),
        frames::inner_v4(),
        frames::inner_v6(),
    ]);
    let edits = prop::collection::vec((0_usize..80, any::<u8>()), 0..4);
    (base, edits, 0_usize..200).prop_map(|(mut frame, edits, len)| {
        for (offset, byte) in edits {
            frame[offset] = byte;
        }
        if len < 180 {
            frame.resize(len, 0xaa);
        }
        frame
    })
}

fn never_reads_outside(frame: &[u8]) {
    if let Ok(outer) = parse::outer(frame) {
        let end = outer.udp.payload_offset + outer.udp.payload_len;
        assert_eq!(end, outer.ip.offset + outer.ip.len);
        assert!(end <= frame.len());
        let _ = parse::message(frame, &outer.udp);
    }
    if let Ok(inner) = parse::inner(frame) {
        assert!(inner.ip.offset + inner.ip.len <= frame.len());
        assert!(inner.ip.header_len <= inner.ip.len);
    }
    if let Ok(ip) = parse::ip(frame) {
        assert!(ip.header_len <= ip.len && ip.len <= frame.len());
    }
    for roles in 0..4 {
        let reason = decide(frame, &interface(roles), &Sets::new());
        assert!(!reason.is_steered() || parse::inner(frame).is_ok());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        never_reads_outside(&frame);
    }

    #[test]
    fn damaged_frames_are_read_within_bounds(frame in near_frames()) {
        never_reads_outside(&frame);
    }

    #[test]
    fn ports_and_lengths_read_back(source in any::<u16>(), port in any::<u16>(), len in 0_usize..1400) {
        let frame = frames::datagram("198.51.100.7", "192.0.2.1", &vec![7; len]);
        let frame = frames::with(frame, frames::UDP[0], &source.to_be_bytes());
        let frame = frames::with(frame, frames::UDP[0] + 2, &port.to_be_bytes());
        let outer = parse::outer(&frame).unwrap();
        prop_assert_eq!((outer.udp.source_port, outer.udp.destination_port), (source, port));
        prop_assert_eq!(outer.udp.payload_len, len);
    }
}
