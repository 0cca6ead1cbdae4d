//! The program frame by frame: verdict and counter (`BPF_PROG_TEST_RUN`).

use std::os::fd::{AsFd as _, OwnedFd};

use gateway::xdp::{Error, Reason, Role, Steering};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket, socket_with};

use crate::{
    frames::{self, Case},
    report,
};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The verifier gives up at a million; this leaves room for older kernels that prune less well.
const INSTRUCTION_BUDGET: u32 = 20_000;

const UPLINK: Role = Role { uplink: true, downlink: false, mac: frames::MAC, mtu: 1500 };
const DOWNLINK: Role = Role { uplink: false, downlink: true, mac: frames::MAC, mtu: 1500 };
const BOTH: Role = Role { uplink: true, downlink: true, mac: frames::MAC, mtu: 1500 };

/// A program that serves the loopback interface, which is where test runs say that their frames come from.
struct Bench {
    steering: Steering,
    interface_index: u32,
}

impl Bench {
    fn new(role: Role) -> Self {
        Self::over(Steering::load().unwrap(), role)
    }

    fn over(mut steering: Steering, role: Role) -> Self {
        steering.set_listen_port(frames::LISTEN_PORT).unwrap();
        steering.set_tunnel_mtu(frames::TUNNEL_MTU).unwrap();
        steering.set_local_addresses(&frames::LOCAL.map(|text| text.parse().unwrap())).unwrap();
        steering.set_allowed_ips(&frames::ALLOWED.map(|text| text.parse().unwrap())).unwrap();
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let interface_index = name_to_index(&any, "lo").unwrap();
        steering.enrol(interface_index, "lo", role).unwrap();
        Self { steering, interface_index }
    }

    /// As [`new`](Self::new), with a socket for queue 0. The map takes a socket that is not bound.
    fn with_socket(role: Role) -> (Self, OwnedFd) {
        let mut bench = Self::new(role);
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
        bench.steering.register_socket(bench.interface_index, 0, socket.as_fd()).unwrap();
        (bench, socket)
    }

    fn counters(&self) -> [u64; Reason::COUNT] {
        let counters = self.steering.counters().unwrap();
        assert_eq!(counters.len(), 1);
        assert_eq!(counters[0].0, self.interface_index);
        counters[0].1
    }

    /// The verdict and the reasons whose counters moved, as often as they did.
    fn run(&self, frame: &[u8]) -> (u32, Vec<Reason>) {
        let before = self.counters();
        let (verdict, _) = self.steering.test_run(frame, 1).unwrap();
        let after = self.counters();
        let moved = Reason::ALL
            .iter()
            .flat_map(|&reason| (before[reason as usize]..after[reason as usize]).map(move |_| reason));
        (verdict, moved.collect())
    }

    fn check(&self, cases: Vec<Case>) {
        for Case { name, frame, reason } in cases {
            let verdict = if reason.is_steered() { XDP_REDIRECT } else { XDP_PASS };
            assert_eq!(self.run(&frame), (verdict, vec![reason]), "{name}");
        }
    }
}

#[test]
fn program_passes_the_verifier_within_its_budget() {
    if !report::unless_root("program_passes_the_verifier_within_its_budget") {
        return;
    }
    let verification = gateway::xdp::verify().unwrap();
    let count = verification.instruction_count.unwrap_or(0);
    let bench = Bench::with_socket(BOTH).0;
    let time = |frame: &[u8]| bench.steering.test_run(frame, 200_000).unwrap().1.as_nanos();
    report::note(
        "XDP program",
        &format!(
            "verifier walked {count} instructions, translated {} bytes; ns per frame: data v4 {}, v6 {}; inner v4 {}, v6 {}; ARP {}",
            verification.translated_len.unwrap_or(0),
            time(&frames::data_v4()),
            time(&frames::data_v6()),
            time(&frames::inner_v4()),
            time(&frames::inner_v6()),
            time(&frames::with(frames::data_v4(), 12, &[8, 6])),
        ),
    );
    assert!(count <= INSTRUCTION_BUDGET, "{count} instructions");
}

#[test]
fn what_cannot_be_parsed_is_passed_and_counted() {
    if !report::unless_root("what_cannot_be_parsed_is_passed_and_counted") {
        return;
    }
    for role in [UPLINK, DOWNLINK, BOTH] {
        Bench::with_socket(role).0.check(frames::unparsable());
    }
}

#[test]
fn uplink_redirects_data_to_us_and_passes_the_rest() {
    if report::unless_root("uplink_redirects_data_to_us_and_passes_the_rest") {
        Bench::with_socket(UPLINK).0.check(frames::uplink());
    }
}

#[test]
fn downlink_redirects_packets_to_allowed_ips_and_passes_the_rest() {
    if report::unless_root("downlink_redirects_packets_to_allowed_ips_and_passes_the_rest") {
        Bench::with_socket(DOWNLINK).0.check(frames::downlink());
    }
}

#[test]
fn both_roles_on_one_interface_go_together() {
    if report::unless_root("both_roles_on_one_interface_go_together") {
        Bench::with_socket(BOTH).0.check(frames::both());
    }
}

#[test]
fn a_frame_cut_off_anywhere_is_passed() {
    if !report::unless_root("a_frame_cut_off_anywhere_is_passed") {
        return;
    }
    let (bench, _socket) = Bench::with_socket(BOTH);
    for frame in [frames::data_v4(), frames::data_v6(), frames::inner_v4(), frames::inner_v6()] {
        // The kernel does not run a program on less than an Ethernet header.
        for len in 14..frame.len() {
            let (verdict, moved) = bench.run(&frame[..len]);
            assert_eq!((verdict, moved.len()), (XDP_PASS, 1), "cut to {len} bytes: {moved:?}");
        }
    }
}

#[test]
fn without_a_socket_everything_is_passed() {
    if !report::unless_root("without_a_socket_everything_is_passed") {
        return;
    }
    let bench = Bench::new(BOTH);
    for frame in [frames::data_v4(), frames::data_v6()] {
        assert_eq!(bench.run(&frame), (XDP_PASS, vec![Reason::DataWithoutSocket]));
    }
    for frame in [frames::inner_v4(), frames::inner_v6()] {
        assert_eq!(bench.run(&frame), (XDP_PASS, vec![Reason::InnerWithoutSocket]));
    }
}

#[test]
fn a_closed_socket_is_taken_out_of_the_map() {
    if !report::unless_root("a_closed_socket_is_taken_out_of_the_map") {
        return;
    }
    let (bench, socket) = Bench::with_socket(UPLINK);
    assert_eq!(bench.run(&frames::data_v4()).0, XDP_REDIRECT);
    drop(socket);
    assert_eq!(bench.run(&frames::data_v4()), (XDP_PASS, vec![Reason::DataWithoutSocket]));
}

#[test]
fn changed_tables_change_what_is_steered() {
    if !report::unless_root("changed_tables_change_what_is_steered") {
        return;
    }
    let (mut bench, _socket) = Bench::with_socket(BOTH);
    bench.steering.set_listen_port(1).unwrap();
    assert_eq!(bench.run(&frames::data_v4()).1, [Reason::LocalDestination]);
    bench.steering.set_listen_port(frames::LISTEN_PORT).unwrap();
    assert_eq!(bench.run(&frames::data_v4()).1, [Reason::Data]);

    bench.steering.set_local_addresses(&["2001:db8::1".parse().unwrap()]).unwrap();
    assert_eq!(bench.run(&frames::data_v4()).1, [Reason::NotAllowed]);
    assert_eq!(bench.run(&frames::data_v6()).1, [Reason::Data]);

    bench.steering.set_allowed_ips(&["10.7.0.44/32".parse().unwrap(), "::/0".parse().unwrap()]).unwrap();
    assert_eq!(bench.run(&frames::inner_v4()).1, [Reason::Inner]);
    bench.steering.set_allowed_ips(&["10.7.0.0/27".parse().unwrap()]).unwrap();
    assert_eq!(bench.run(&frames::inner_v4()).1, [Reason::NotAllowed]);
    assert_eq!(bench.run(&frames::inner_v6()).1, [Reason::NotAllowed]);
    // Host bits are no reason to steer less.
    bench.steering.set_allowed_ips(&["10.7.0.9/24".parse().unwrap()]).unwrap();
    assert_eq!(bench.run(&frames::inner_v4()).1, [Reason::Inner]);

    bench.steering.set_mac(bench.interface_index, [2, 9, 9, 9, 9, 9]).unwrap();
    assert_eq!(bench.run(&frames::inner_v4()).1, [Reason::OtherMac]);
}

/// Allowed IPs per family that fit where a test fills the maps.
const ROOM: u32 = 16;

#[test]
fn allowed_ips_beyond_the_room_of_the_maps_are_left_to_the_kernel_until_there_is_room() {
    if !report::unless_root(
        "allowed_ips_beyond_the_room_of_the_maps_are_left_to_the_kernel_until_there_is_room",
    ) {
        return;
    }
    let mut bench = Bench::over(Steering::load_with_room(ROOM).unwrap(), BOTH);
    let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
    bench.steering.register_socket(bench.interface_index, 0, socket.as_fd()).unwrap();
    bench.steering.set_allowed_ips(&[]).unwrap();
    let other = |number: u32| format!("172.16.{number}.0/24").parse().unwrap();
    bench.steering.change_allowed_ips((0..ROOM).map(|number| (other(number), true))).unwrap();
    assert_eq!(bench.steering.unsteered_count(), 0);

    let wanted = ["10.7.0.0/24", "2001:db8:7::/48", "::/0"].map(|text| (text.parse().unwrap(), true));
    let error = bench.steering.change_allowed_ips(wanted).unwrap_err().to_string();
    assert!(error.contains("it is full"), "{error}");
    assert_eq!(bench.steering.unsteered_count(), 1, "the other family has room");
    assert_eq!(bench.run(&frames::inner_v4()), (XDP_PASS, vec![Reason::NotAllowed]));
    assert_eq!(bench.run(&frames::inner_v6()).1, [Reason::Inner]);

    // Of several changes of one prefix the last counts, and a prefix that stays is not touched.
    let changes = [(other(3), false), (other(4), false), (other(4), true)];
    bench.steering.change_allowed_ips(changes).unwrap();
    assert_eq!(bench.steering.unsteered_count(), 0);
    assert_eq!(bench.run(&frames::inner_v4()).1, [Reason::Inner]);

    // What was never steered can be given up like any other.
    bench.steering.change_allowed_ips([(other(99), true)]).unwrap_err();
    bench.steering.change_allowed_ips([(other(99), false)]).unwrap();
    assert_eq!(bench.steering.unsteered_count(), 0);
}

#[test]
fn an_interface_that_was_detached_is_passed_and_starts_again_from_zero() {
    if !report::unless_root("an_interface_that_was_detached_is_passed_and_starts_again_from_zero") {
        return;
    }
    let mut bench = Bench::new(UPLINK);
    bench.run(&frames::data_v4());
    bench.steering.detach(bench.interface_index).unwrap();
    assert_eq!(bench.steering.test_run(&frames::data_v4(), 1).unwrap().0, XDP_PASS);
    assert!(bench.steering.counters().unwrap().is_empty());
    bench.steering.enrol(bench.interface_index, "lo", UPLINK).unwrap();
    assert_eq!(bench.counters(), [0; Reason::COUNT]);
}

#[test]
fn misuse_is_an_error_that_names_the_interface() {
    if !report::unless_root("misuse_is_an_error_that_names_the_interface") {
        return;
    }
    let mut bench = Bench::new(UPLINK);
    let index = bench.interface_index;
    let plain = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();

    let twice = bench.steering.enrol(index, "lo", UPLINK).unwrap_err();
    assert!(matches!(twice, Error::AlreadyAttached { .. }), "{twice}");
    let no_xsk = bench.steering.register_socket(index, 0, plain.as_fd()).unwrap_err();
    assert!(no_xsk.to_string().starts_with("cannot steer lo queue 0 to its socket"), "{no_xsk}");
    let far = bench.steering.register_socket(index, 64, plain.as_fd()).unwrap_err();
    assert!(matches!(far, Error::QueueOutOfRange { queue: 64, .. }), "{far}");
    let stranger = bench.steering.register_socket(index + 1, 0, plain.as_fd()).unwrap_err();
    assert!(matches!(stranger, Error::NotAttached { .. }), "{stranger}");
    let gone = bench.steering.attach(0x7fff_0000, "gone0", UPLINK).unwrap_err();
    assert_eq!(gone.to_string(), "cannot attach to gone0: the interface is gone; see `ip link`");

    for slot in 1..16 {
        bench.steering.enrol(0x7000_0000 + slot, "fake", UPLINK).unwrap();
    }
    let full = bench.steering.enrol(0x7000_0100, "one-more", UPLINK).unwrap_err();
    assert!(matches!(full, Error::TooManyInterfaces { .. }), "{full}");
}
