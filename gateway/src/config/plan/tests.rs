//! Plans for machines that do not exist: every bad input, and what good ones come to.

use super::*;
use crate::{
    config::Options,
    topology::{CoreList, Interface, Queues, ethtool::Channels, interface::AttachedXdp},
};

fn interface(name: &str, index: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        index,
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        kind: None,
        driver: None,
        linked_index: None,
        queues: Queues { rx_count: 2, tx_count: 2 },
        channels: Some(Channels { rx_count: 2, tx_count: 2, rx_count_max: 8, combined: true }),
        numa_node: None,
        xdp: None,
    }
}

/// Two Ethernet interfaces, one that is down, the loopback device, a tunnel, and four CPUs.
fn machine() -> Machine {
    let mut down = interface("down0", 4);
    down.up = false;
    let mut loopback = interface("lo", 1);
    (loopback.loopback, loopback.mac, loopback.mtu) = (true, None, 65536);
    let mut tunnel = interface("tun7", 7);
    tunnel.mac = None;
    let cpus = (0..4)
        .map(|number| Cpu { number, core_index: number, sibling_index: 0, numa_node: Some(number / 2) })
        .collect();
    Machine { interfaces: vec![loopback, interface("eth0", 2), interface("eth1", 3), down, tunnel], cpus }
}

#[expect(clippy::unnecessary_wraps, reason = "the options it fills are optional")]
fn names(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|name| (*name).to_owned()).collect())
}

fn options() -> Options {
    Options { uplink: names(&["eth0"]), downlink: names(&["eth1"]), ..Options::default() }
}

fn plan(options: Options, machine: &Machine) -> Result<Plan, ConfigError> {
    Plan::for_machine(&Config { name: "wg0".to_owned(), options }, machine)
}

#[test]
fn two_interfaces_of_two_queues_make_two_workers() {
    let plan = plan(options(), &machine()).expect("plan");
    assert_eq!(plan.worker_cpus, [0, 1]);
    assert_eq!(plan.socket_worker_cpu, Some(2));
    assert_eq!((plan.mtu, plan.frame_len, plan.frame_count), (1420, 2048, 3 * 4096));
    assert_eq!(plan.links.len(), 2);
    assert!(plan.links[0].uplink && !plan.links[0].downlink);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn one_interface_can_have_both_roles() {
    let options = Options { downlink: names(&["eth0"]), ..options() };
    let plan = plan(options, &machine()).expect("plan");
    assert_eq!(plan.links.len(), 1);
    assert!(plan.links[0].uplink && plan.links[0].downlink);
}

#[test]
fn sockets_need_no_interface_and_no_link_worker() {
    let options = Options { io: Some(IoMode::Udp), ..Options::default() };
    let plan = plan(options, &machine()).expect("plan");
    assert!(plan.links.is_empty() && plan.worker_cpus.is_empty());
    assert_eq!(plan.socket_worker_cpu, Some(0));
    assert_eq!(plan.mtu, 1420);
}

#[test]
fn workers_are_near_the_nic() {
    let mut machine = machine();
    machine.interfaces[1].numa_node = Some(1);
    let plan = plan(options(), &machine).expect("plan");
    assert_eq!(plan.worker_cpus, [2, 3]);
    assert_eq!(plan.numa_node, Some(1));
}

#[test]
fn a_core_list_overrides_the_choice_and_spares_go_to_the_socket_worker() {
    let options = Options { cores: Some("3,1,0".parse::<CoreList>().expect("list")), ..options() };
    let plan = plan(options, &machine()).expect("plan");
    assert_eq!((plan.worker_cpus, plan.socket_worker_cpu), (vec![3, 1], Some(0)));
}

#[test]
fn more_queues_than_cpus_share_them_with_a_warning() {
    let options = Options { cores: Some("3".parse::<CoreList>().expect("list")), ..options() };
    let plan = plan(options, &machine()).expect("plan");
    assert_eq!((plan.worker_cpus, plan.socket_worker_cpu), (vec![3, 3], None));
    assert!(plan.warnings[0].contains("share 1 CPUs"), "{:?}", plan.warnings);
}

#[test]
fn interfaces_of_unlike_queue_counts_are_warned_of() {
    let mut machine = machine();
    machine.interfaces[2].queues = Queues { rx_count: 4, tx_count: 4 };
    let plan = plan(options(), &machine).expect("plan");
    assert_eq!(plan.worker_cpus.len(), 4);
    assert!(plan.warnings[0].contains("eth0 has 2 queues and eth1 has 4"), "{:?}", plan.warnings);
}

#[test]
fn wide_interfaces_get_long_frames() {
    let mut machine = machine();
    machine.interfaces[1].mtu = 3498;
    let plan = plan(options(), &machine).expect("plan");
    assert_eq!((plan.frame_len, plan.mtu), (4096, 1420));
}

#[test]
fn a_narrow_uplink_narrows_the_tunnel() {
    let mut machine = machine();
    machine.interfaces[1].mtu = 1400;
    assert_eq!(plan(options(), &machine).expect("plan").mtu, 1320);
}

#[test]
fn an_mtu_for_ipv4_only_is_warned_of() {
    let plan = plan(Options { mtu: Some(1440), ..options() }, &machine()).expect("plan");
    assert!(plan.warnings[0].contains("--mtu 1420 or less"), "{:?}", plan.warnings);
}

/// Changes options and machine, then expects an error with these words.
type Case = (&'static str, fn(&mut Options, &mut Machine), &'static [&'static str]);

const BAD: &[Case] = &[
    ("no uplink", |o, _| o.uplink = None, &["--uplink IF"]),
    ("empty uplinks", |o, _| o.uplink = names(&[]), &["--uplink IF"]),
    ("empty name", |o, _| o.uplink = names(&["eth0", ""]), &["--uplink", "empty"]),
    ("twice", |o, _| o.uplink = names(&["eth0", "eth1", "eth0"]), &["\"eth0\"", "twice", "--uplink"]),
    ("unknown", |o, _| o.downlink = names(&["eth9"]), &["\"eth9\"", "--downlink", "ip link"]),
    ("down", |o, _| o.uplink = names(&["down0"]), &["ip link set dev down0 up"]),
    ("loopback", |o, _| o.uplink = names(&["lo"]), &["\"lo\"", "loopback", "--io udp"]),
    ("not Ethernet", |o, _| o.uplink = names(&["tun7"]), &["\"tun7\"", "no Ethernet"]),
    ("tunnel as uplink", |o, _| o.uplink = names(&["wg0"]), &["\"wg0\"", "same name"]),
    ("tunnel exists", |_, m| m.interfaces.push(interface("wg0", 9)), &["\"wg0\"", "exists already"]),
    (
        "too many interfaces",
        |o, m| {
            let extra: Vec<_> = (10..27).map(|index| interface(&format!("x{index}"), index)).collect();
            o.uplink = Some(extra.iter().map(|one| one.name.clone()).collect());
            m.interfaces.extend(extra);
        },
        &["18 interfaces", "at most 16"],
    ),
    (
        "too many queues",
        |_, m| m.interfaces[1].queues = Queues { rx_count: 65, tx_count: 65 },
        &["65 receive queues", "ethtool -L eth0 combined 64"],
    ),
    (
        "too few transmit queues",
        |_, m| {
            m.interfaces[1].queues = Queues { rx_count: 4, tx_count: 1 };
            m.interfaces[1].channels = None;
        },
        &["4 receive but 1 transmit", "ethtool -L eth0 rx 1"],
    ),
    ("jumbo", |_, m| m.interfaces[2].mtu = 9000, &["\"eth1\"", "9000", "ip link set dev eth1 mtu 3790"]),
    (
        "frames too short",
        |o, m| (o.frame_len, m.interfaces[2].mtu) = (Some(2048), 1900),
        &["1900", "--frame-len 4096"],
    ),
    (
        "polled sockets",
        |o, _| (o.napi_busy_poll, o.io) = (Some(true), Some(IoMode::Udp)),
        &["--napi-busy-poll", "--io udp"],
    ),
    (
        "polled asleep",
        |o, _| (o.napi_busy_poll, o.busy_poll) = (Some(true), Some(false)),
        &["--napi-busy-poll", "--busy-poll=false"],
    ),
    ("frame length", |o, _| o.frame_len = Some(1024), &["1024", "2048 or 4096"]),
    ("frame count low", |o, _| o.frame_count = Some(10), &["10", "1024 to 262144"]),
    ("frame count high", |o, _| o.frame_count = Some(u32::MAX), &["4294967295", "1024 to 262144"]),
    ("frame count for links", |o, _| o.frame_count = Some(1024), &["1024", "at least 5120"]),
    ("mtu low", |o, _| o.mtu = Some(100), &["100", "576 to 3710"]),
    ("mtu high", |o, _| o.mtu = Some(u32::MAX), &["4294967295", "576 to 3710"]),
    ("mtu above uplink", |o, _| o.mtu = Some(1500), &["1500", "\"eth0\"", "--mtu 1420 or less"]),
    (
        "mtu above frame",
        |o, m| (o.mtu, o.frame_len, m.interfaces[1].mtu) = (Some(1680), Some(2048), 1742),
        &["1680"],
    ),
    ("narrow uplink", |_, m| m.interfaces[1].mtu = 600, &["\"eth0\"", "600"]),
    ("aead", |o, _| o.aead = Some("aes".to_owned()), &["\"aes\"", "auto, avx512-ifma, aws-lc-rs, portable"]),
    ("core", |o, _| o.cores = "0,7".parse().ok(), &["CPU 7", "0,1,2,3"]),
    ("core beyond all", |o, _| o.cores = "4000".parse().ok(), &["CPU 4000", "0,1,2,3"]),
    (
        "another program",
        |_, m| m.interfaces[1].xdp = Some(AttachedXdp { mode: "driver".to_owned(), program_id: None }),
        &["\"eth0\"", "driver mode", "ip link set dev eth0 xdp off"],
    ),
    ("no cpus", |_, m| m.cpus.clear(), &["no CPU"]),
    ("no peers file", |o, _| o.peers = Some("/no/peers".into()), &["/no/peers", "wg setconf"]),
    ("peers is a directory", |o, _| o.peers = Some("/".into()), &["no regular file"]),
    ("peers is a device", |o, _| o.peers = Some("/dev/zero".into()), &["/dev/zero", "no regular file"]),
];

#[test]
fn bad_input_is_refused_in_one_line_that_says_what_to_do() {
    for (name, change, expected) in BAD {
        let (mut options, mut machine) = (options(), machine());
        change(&mut options, &mut machine);
        let error = plan(options, &machine).expect_err(name).to_string();
        assert!(!error.contains('\n'), "{name}: {error}");
        for part in *expected {
            assert!(error.contains(part), "{name} lacks {part:?}: {error}");
        }
    }
}

#[test]
fn polling_the_nic_keeps_workers_awake() {
    for (busy_poll, napi_busy_poll, expected) in [
        (None, None, (false, false)),
        (Some(true), Some(false), (true, false)),
        (None, Some(true), (true, true)),
        (Some(false), Some(false), (false, false)),
    ] {
        let plan = plan(Options { busy_poll, napi_busy_poll, ..options() }, &machine()).expect("plan");
        assert_eq!((plan.busy_poll, plan.napi_busy_poll), expected);
    }
}

#[test]
fn idle_states_are_for_link_workers_that_sleep() {
    for (pm_qos, busy_poll, io, expected) in [
        (None, None, None, true),
        (Some(true), Some(false), Some(IoMode::AfXdp), true),
        (Some(false), None, None, false),
        (Some(true), Some(true), None, false),
        (Some(true), None, Some(IoMode::Udp), false),
    ] {
        let plan = plan(Options { io, busy_poll, pm_qos, ..options() }, &machine()).expect("plan");
        assert_eq!(plan.pm_qos, expected, "{pm_qos:?} {busy_poll:?} {io:?}");
    }
}

#[test]
fn loopback_is_fine_for_sockets() {
    let options = Options { uplink: names(&["lo"]), io: Some(IoMode::Udp), ..Options::default() };
    assert!(plan(options, &machine()).is_ok());
}
