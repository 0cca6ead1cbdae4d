//! Findings about machines that do not exist.

use super::*;
use crate::{
    cli::check::facts::{Capabilities, Host, Partner},
    topology::{
        Cpu, Queues,
        ethtool::{Channels, FOUR_TUPLE, Features, Rss},
        interface::AttachedXdp,
        netdev::XdpFeatures,
    },
};

/// A NIC as one would wish it, on a kernel that tells everything.
fn ideal() -> Facts {
    let interface = Interface {
        name: "eth0".to_owned(),
        index: 2,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        kind: None,
        driver: Some("ice".to_owned()),
        linked_index: None,
        queues: Queues { rx_count: 4, tx_count: 4 },
        channels: Some(Channels { rx_count: 4, tx_count: 4, rx_count_max: 16, combined: true }),
        numa_node: Some(0),
        xdp: None,
    };
    Facts {
        interface,
        xdp_features: Some(XdpFeatures::from_bits(0xf)),
        features: Some(Features::default()),
        rss: Some(Rss {
            hash_functions: 1,
            queues: (0..4).collect(),
            udp4_fields: Some(FOUR_TUPLE),
            udp6_fields: Some(FOUR_TUPLE),
        }),
        partner: None,
        host: Host {
            kernel: "6.18.44-amd64".to_owned(),
            af_xdp_socket: Ok(()),
            capabilities: Capabilities { net_admin: true, net_raw: true, bpf: true, ipc_lock: true },
            memlock: Some(65536),
            ipv4_forwarding: Some(true),
            ipv6_forwarding: Some(true),
            cpus: (0..4)
                .map(|number| Cpu {
                    number,
                    core_index: number,
                    sibling_index: 0,
                    numa_node: Some(number / 2),
                })
                .collect(),
        },
        probe: None,
    }
}

fn veth() -> Facts {
    let mut facts = ideal();
    facts.interface.kind = Some("veth".to_owned());
    facts.interface.driver = None;
    facts.xdp_features = Some(XdpFeatures::from_bits(0x7));
    facts.partner = Some(Partner { name: "veth1".to_owned(), features: Some(Features::default()) });
    facts
}

#[expect(clippy::unnecessary_wraps, reason = "the facts it fills are optional")]
fn active(names: &[&str]) -> Option<Features> {
    let set: std::collections::BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    Some(Features { active: set.clone(), changeable: set })
}

#[test]
fn an_ideal_nic_has_nothing_to_change() {
    let findings = assess(&ideal());
    assert!(findings.iter().all(|one| one.level == Level::Fine && one.commands.is_empty()), "{findings:#?}");
    assert_eq!(best_rung(&ideal()), "AF_XDP, zero-copy");
}

/// Changes an ideal NIC, then expects a finding of this level and topic with these words.
type Case = (fn(&mut Facts), Level, &'static str, &'static str);

const CASES: &[Case] = &[
    (|f| (f.interface.loopback, f.interface.mac) = (true, None), Level::Failure, "link", "loopback"),
    (|f| f.interface.mac = None, Level::Failure, "link", "Ethernet"),
    (|f| f.interface.up = false, Level::Failure, "link", "ip link set dev eth0 up"),
    (|f| f.interface.running = false, Level::Warning, "link", "carrier"),
    (|f| f.interface.kind = Some("vlan".into()), Level::Warning, "link", "vlan"),
    (
        |f| f.host.af_xdp_socket = Err(SocketRefusal::NoSupport),
        Level::Failure,
        "kernel",
        "CONFIG_XDP_SOCKETS",
    ),
    (|f| f.host.kernel = "5.10.0-30-amd64".into(), Level::Failure, "kernel", "6.4 or later"),
    (|f| f.host.kernel = "6.16.12".into(), Level::Warning, "kernel", "panic"),
    (|f| f.host.kernel = "strange".into(), Level::Unknown, "kernel", "strange"),
    (|f| f.host.capabilities.bpf = false, Level::Failure, "permissions", "CAP_BPF"),
    (|f| f.host.af_xdp_socket = Err(SocketRefusal::NotPermitted), Level::Failure, "permissions", "seccomp"),
    (
        |f| f.host.af_xdp_socket = Err(SocketRefusal::Other("EMFILE".into())),
        Level::Failure,
        "permissions",
        "EMFILE",
    ),
    (|f| f.host.capabilities.ipc_lock = false, Level::Failure, "memory", "64 KiB"),
    (
        |f| f.interface.xdp = Some(AttachedXdp { mode: "driver".into(), program_id: Some(9) }),
        Level::Failure,
        "program",
        "bpftool prog show id 9",
    ),
    (|f| f.xdp_features = None, Level::Unknown, "modes", "wgx check eth0 --probe"),
    (|f| f.xdp_features = Some(XdpFeatures::from_bits(0)), Level::Warning, "modes", "generic mode"),
    (|f| f.xdp_features = Some(XdpFeatures::from_bits(0x7)), Level::Note, "modes", "copies"),
    (|f| f.probe = Some(Err("busy".into())), Level::Failure, "modes", "busy"),
    (|f| f.probe = Some(Ok("generic".into())), Level::Warning, "modes", "generic"),
    (|f| f.probe = Some(Ok("driver".into())), Level::Fine, "modes", "driver mode"),
    (|f| f.interface.mtu = 9000, Level::Failure, "MTU", "ip link set dev eth0 mtu 3790"),
    (|f| f.interface.mtu = 2000, Level::Note, "MTU", "4096"),
    (|f| f.interface.queues.tx_count = 2, Level::Failure, "queues", "ethtool -L eth0 combined 2"),
    (
        |f| f.interface.queues = Queues { rx_count: 80, tx_count: 80 },
        Level::Failure,
        "queues",
        "ethtool -L eth0 combined 64",
    ),
    (
        |f| f.interface.queues = Queues { rx_count: 8, tx_count: 8 },
        Level::Warning,
        "queues",
        "ethtool -L eth0 combined 4",
    ),
    (
        |f| f.interface.queues = Queues { rx_count: 1, tx_count: 1 },
        Level::Note,
        "queues",
        "ethtool -L eth0 combined 4",
    ),
    (|f| f.rss = None, Level::Unknown, "spread", "ethtool -x eth0"),
    (
        |f| f.rss.as_mut().expect("rss").queues = [0].into(),
        Level::Warning,
        "spread",
        "ethtool -X eth0 equal 4",
    ),
    (
        |f| f.rss.as_mut().expect("rss").udp4_fields = Some(0x30),
        Level::Warning,
        "spread",
        "ethtool -N eth0 rx-flow-hash udp4 sdfn",
    ),
    (|f| f.rss.as_mut().expect("rss").udp6_fields = None, Level::Unknown, "spread", "rx-flow-hash udp6"),
    (|f| f.features = None, Level::Unknown, "offloads", "ethtool -k eth0"),
    (|f| f.features = active(&["rx-lro"]), Level::Warning, "offloads", "ethtool -K eth0 lro off"),
    (|f| f.features = active(&["rx-gro-hw"]), Level::Warning, "offloads", "ethtool -K eth0 rx-gro-hw off"),
    (|f| f.features = active(&["rx-vlan-hw-parse"]), Level::Note, "offloads", "rxvlan off"),
    (|f| f.interface.numa_node = None, Level::Unknown, "NUMA", "--cores"),
    (|f| f.interface.numa_node = Some(5), Level::Warning, "NUMA", "node 5"),
    (
        |f| f.host.ipv4_forwarding = Some(false),
        Level::Warning,
        "forwarding",
        "sysctl -w net.ipv4.ip_forward=1",
    ),
];

#[test]
fn what_is_wrong_is_found_with_its_remedy() {
    for (change, level, topic, words) in CASES {
        let mut facts = ideal();
        change(&mut facts);
        let findings = assess(&facts);
        let hit = findings.iter().any(|one| {
            let text = format!("{} {}", one.what, one.commands.join(" "));
            one.level == *level && one.topic == *topic && text.contains(words)
        });
        assert!(hit, "{level:?} {topic} {words:?} not in {findings:#?}");
        assert!(findings.iter().all(|one| !one.what.contains('\n')));
    }
}

#[test]
fn an_offload_that_cannot_be_switched_off_gets_no_command() {
    let mut facts = ideal();
    facts.features = active(&["rx-lro"]);
    facts.features.as_mut().expect("features").changeable.clear();
    let findings = assess(&facts);
    let lro = findings.iter().find(|one| one.what.contains("rx-lro")).expect("lro");
    assert!(lro.commands.is_empty() && lro.what.contains("does not let"), "{lro:?}");
}

#[test]
fn a_veth_is_judged_by_its_other_end() {
    let level = |facts: &Facts| {
        assess(facts).into_iter().find(|one| one.topic == "other end").expect("finding").level
    };
    assert_eq!(level(&veth()), Level::Fine);

    let mut offloading = veth();
    offloading.partner.as_mut().expect("partner").features = active(&["tx-checksum-ip-generic"]);
    assert_eq!(level(&offloading), Level::Warning);

    let mut tunnels_only = veth();
    tunnels_only.partner.as_mut().expect("partner").features = active(&["tx-gre-segmentation", "rx-gro"]);
    assert_eq!(level(&tunnels_only), Level::Fine);

    let mut elsewhere = veth();
    elsewhere.partner = None;
    assert_eq!(level(&elsewhere), Level::Unknown);
}

#[test]
fn copy_mode_on_a_veth_is_refused_on_kernels_that_panic() {
    let mut facts = veth();
    facts.host.kernel = "6.17.3".to_owned();
    assert!(assess(&facts).iter().any(|one| one.topic == "kernel" && one.level == Level::Failure));
}

#[test]
fn without_a_limit_of_locked_memory_nothing_is_missing() {
    let mut facts = ideal();
    facts.host.capabilities.ipc_lock = false;
    facts.host.memlock = None;
    assert!(assess(&facts).iter().all(|one| one.level == Level::Fine));
}
