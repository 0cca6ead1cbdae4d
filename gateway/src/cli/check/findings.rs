//! From facts to findings: a pure function, so that machines we do not have can be tested.

use serde::Serialize;

use super::facts::{Facts, SocketRefusal};
use crate::{
    config::frame_mtu_max,
    topology::{
        Interface,
        ethtool::{FOUR_TUPLE, Features},
    },
};

/// Oldest kernel: `bpf_link` for XDP, map memory charged to the cgroup, need-wakeup, redirect with fallback.
const KERNEL_MIN: (u32, u32) = (5, 11);

/// Bytes of frames one worker locks in the usual plan of two interfaces.
const WORKER_MEMORY: u64 = 3 * 4096 * 2048;

/// How a finding bears on `AF_XDP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// Cannot be told from here.
    Unknown,
    /// Works, but worse than it could.
    Warning,
    /// Keeps it from working.
    Failure,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warn",
            Self::Failure => "fail",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub topic: &'static str,
    /// What is so and what it means, in one line.
    pub what: String,
    /// What to type to change it, or to learn more.
    pub commands: Vec<String>,
}

fn finding(level: Level, topic: &'static str, what: impl Into<String>) -> Finding {
    Finding { level, topic, what: what.into(), commands: Vec::new() }
}

impl Finding {
    fn by(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// Everything found, in the order one would go about it.
pub fn assess(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![link(&facts.interface), kernel(facts)];
    findings.extend(permissions(facts));
    if facts.interface.mac.is_none() {
        // Nothing one could change makes this an Ethernet interface: the rest would only mislead.
        return findings;
    }
    findings.push(attached(&facts.interface));
    findings.push(modes(facts));
    findings.push(mtu(&facts.interface));
    findings.push(queues(facts));
    findings.extend(spread(facts));
    findings.extend(offloads(facts));
    findings.extend(partner(facts));
    findings.push(numa(facts));
    findings.push(forwarding(facts));
    findings
}

/// The fastest rung of the ladder the driver lets us hope for; offloads marked as warnings may cost a rung.
pub fn best_rung(facts: &Facts) -> &'static str {
    match (&facts.probe, facts.xdp_features) {
        (Some(Ok(mode)), _) if mode.contains("generic") => "AF_XDP, generic mode",
        (_, Some(features)) if features.zero_copy => "AF_XDP, zero-copy",
        (_, Some(features)) if features.driver_mode && features.redirect => "AF_XDP, driver mode with copy",
        (Some(Ok(_)), _) => "AF_XDP, driver mode",
        (_, Some(_)) => "AF_XDP, generic mode",
        (_, None) => "AF_XDP, in a mode that shows when it runs",
    }
}

fn link(interface: &Interface) -> Finding {
    let name = &interface.name;
    let topic = "link";
    if interface.loopback {
        finding(Level::Failure, topic, "the loopback device cannot do AF_XDP: name another interface")
    } else if interface.mac.is_none() {
        finding(Level::Failure, topic, "not an Ethernet interface: AF_XDP here carries Ethernet frames only")
    } else if !interface.up {
        finding(Level::Failure, topic, "down").by(format!("ip link set dev {name} up"))
    } else if !interface.running {
        finding(Level::Warning, topic, "up without carrier: no packet arrives")
    } else if matches!(interface.kind.as_deref(), Some("vlan" | "bridge" | "macvlan" | "ipvlan")) {
        let kind = interface.kind.as_deref().unwrap_or_default();
        finding(
            Level::Warning,
            topic,
            format!("a {kind} interface runs XDP in generic mode only: use the one below it"),
        )
    } else {
        finding(Level::Fine, topic, "up, Ethernet, carrier")
    }
}

fn kernel(facts: &Facts) -> Finding {
    let topic = "kernel";
    let release = &facts.host.kernel;
    if facts.host.af_xdp_socket == Err(SocketRefusal::NoSupport) {
        let what = format!("{release} has no AF_XDP (CONFIG_XDP_SOCKETS is off): boot another kernel");
        return finding(Level::Failure, topic, what);
    }
    let Some(version) = version(release) else {
        return finding(Level::Unknown, topic, format!("{release} has no version number that can be read"));
    };
    if version < KERNEL_MIN {
        let what = format!("{release} is too old: {}.{} or later is needed", KERNEL_MIN.0, KERNEL_MIN.1);
        return finding(Level::Failure, topic, what);
    }
    if matches!(version, (6, 16 | 17)) {
        // Fixed by keeping the state of a transmitted frame out of skb->cb; 6.18 has the fix.
        let what = format!(
            "some {}.{} kernels panic when a frame sent by AF_XDP in copy mode is received on the same host",
            version.0, version.1
        );
        let veth = facts.interface.kind.as_deref() == Some("veth");
        let level = if veth { Level::Failure } else { Level::Warning };
        return finding(level, topic, format!("{what}: use 6.18 or later"));
    }
    finding(Level::Fine, topic, format!("{release} has AF_XDP"))
}

/// Major and minor number.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|byte: char| !byte.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn permissions(facts: &Facts) -> Vec<Finding> {
    let has = facts.host.capabilities;
    let wanted = [("CAP_NET_ADMIN", has.net_admin), ("CAP_NET_RAW", has.net_raw), ("CAP_BPF", has.bpf)];
    let missing: Vec<_> = wanted.iter().filter(|(_, held)| !held).map(|(name, _)| *name).collect();
    let topic = "permissions";
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let what = format!("this process lacks {}: run it as root, or grant them", missing.join(", "));
        findings.push(
            finding(Level::Failure, topic, what)
                .by("sudo setcap cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep $(command -v wgx)"),
        );
    } else if let Err(SocketRefusal::Other(error)) = &facts.host.af_xdp_socket {
        findings.push(finding(Level::Failure, topic, format!("an AF_XDP socket cannot be made: {error}")));
    } else if facts.host.af_xdp_socket.is_err() {
        let what = "the kernel refuses AF_XDP sockets although the capabilities are there: look at seccomp or LSM rules";
        findings.push(finding(Level::Failure, topic, what));
    } else {
        findings.push(finding(Level::Fine, topic, "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF are held"));
    }
    findings.push(memory(facts));
    findings
}

fn memory(facts: &Facts) -> Finding {
    let topic = "memory";
    let needed = WORKER_MEMORY * u64::from(facts.interface.queues.rx_count);
    match facts.host.memlock {
        _ if facts.host.capabilities.ipc_lock => {
            finding(Level::Fine, topic, "CAP_IPC_LOCK lifts the limit of locked memory")
        }
        None => finding(Level::Fine, topic, "no limit of locked memory"),
        Some(limit) if limit >= needed => finding(
            Level::Fine,
            topic,
            format!("{} MiB may be locked, about {} are needed", limit >> 20, needed >> 20),
        ),
        Some(limit) => {
            let what = format!(
                "{} KiB may be locked, about {} MiB are needed: raise it (LimitMEMLOCK=infinity in a unit)",
                limit >> 10,
                needed >> 20
            );
            finding(Level::Failure, topic, what).by("ulimit -l unlimited")
        }
    }
}

fn attached(interface: &Interface) -> Finding {
    let topic = "program";
    let Some(xdp) = &interface.xdp else {
        return finding(Level::Fine, topic, "no XDP program is attached");
    };
    let what = format!("an XDP program is attached in {} mode already: stop what attached it", xdp.mode);
    let mut found = finding(Level::Failure, topic, what);
    if let Some(id) = xdp.program_id {
        found = found.by(format!("bpftool prog show id {id}"));
    }
    found.by(format!("ip link set dev {} xdp off", interface.name))
}

fn modes(facts: &Facts) -> Finding {
    let topic = "modes";
    let probe = format!("wgx check {} --probe", facts.interface.name);
    match (&facts.probe, facts.xdp_features) {
        (Some(Err(error)), _) => {
            finding(Level::Failure, topic, format!("the XDP program could not be attached: {error}"))
        }
        (Some(Ok(mode)), _) if mode.contains("generic") => finding(
            Level::Warning,
            topic,
            "tried: generic mode only, the driver cannot run XDP programs as it is set up",
        ),
        (Some(Ok(mode)), _) => finding(Level::Fine, topic, format!("tried: attached in {mode} mode")),
        (None, Some(features)) if features.zero_copy => {
            finding(Level::Fine, topic, "the driver can do XDP, redirect, and AF_XDP without copying")
        }
        (None, Some(features)) if features.driver_mode && features.redirect => {
            finding(Level::Note, topic, "the driver can do XDP and redirect; AF_XDP copies each frame")
        }
        (None, Some(_)) => {
            let what = "the driver cannot run XDP programs as it is set up: generic mode, slower";
            finding(Level::Warning, topic, what)
        }
        (None, None) => {
            let what =
                "this kernel does not tell what the driver can do (6.3 and later do): only a try tells";
            finding(Level::Unknown, topic, what).by(probe)
        }
    }
}

fn mtu(interface: &Interface) -> Finding {
    let Interface { name, mtu, .. } = interface;
    let (short, long) = (frame_mtu_max(2048), frame_mtu_max(4096));
    let topic = "MTU";
    if *mtu > long {
        let what = format!("{mtu} is more than a frame can hold ({long})");
        finding(Level::Failure, topic, what).by(format!("ip link set dev {name} mtu {long}"))
    } else if *mtu > short {
        let what = format!("{mtu} needs frames of 4096 bytes (chosen by itself), twice the memory");
        finding(Level::Note, topic, what)
    } else {
        finding(Level::Fine, topic, format!("{mtu} fits frames of 2048 bytes"))
    }
}

fn queues(facts: &Facts) -> Finding {
    let Interface { name, queues, channels, .. } = &facts.interface;
    let (rx, tx) = (queues.rx_count, queues.tx_count);
    let cpus = facts.host.cpus.len() as u32;
    let topic = "queues";
    let set = |count: u32| {
        let combined = channels.is_none_or(|channels| channels.combined);
        if combined {
            format!("ethtool -L {name} combined {count}")
        } else {
            format!("ethtool -L {name} rx {count} tx {count}")
        }
    };
    if tx < rx {
        let what = format!("{rx} receive but {tx} transmit queues: each worker needs both");
        return finding(Level::Failure, topic, what).by(set(tx));
    }
    if rx > gateway_ebpf::layout::MAX_QUEUES {
        let limit = gateway_ebpf::layout::MAX_QUEUES;
        return finding(Level::Failure, topic, format!("{rx}, of which {limit} can be served"))
            .by(set(limit));
    }
    if cpus != 0 && rx > cpus {
        let what = format!("{rx} for {cpus} CPUs: workers share CPUs, which costs latency");
        return finding(Level::Warning, topic, what).by(set(cpus));
    }
    let possible = channels.map_or(rx, |channels| channels.rx_count_max).min(cpus.max(1));
    if rx < possible {
        let what = format!("{rx}, so {rx} of {cpus} CPUs carry packets; {possible} are possible");
        return finding(Level::Note, topic, what).by(set(possible));
    }
    finding(Level::Fine, topic, format!("{rx} for {cpus} CPUs"))
}

/// Whether the flows of different clients reach different queues.
fn spread(facts: &Facts) -> Vec<Finding> {
    let Interface { name, queues, kind, .. } = &facts.interface;
    let topic = "spread";
    let rx = queues.rx_count;
    if rx < 2 {
        return Vec::new();
    }
    if kind.as_deref() == Some("veth") {
        let what = "the other end's transmit queue decides: a veth has no flow hash of its own";
        return vec![finding(Level::Note, topic, what)];
    }
    let Some(rss) = &facts.rss else {
        let what = "the driver does not tell how it spreads packets over its queues";
        return vec![finding(Level::Unknown, topic, what).by(format!("ethtool -x {name}"))];
    };
    let mut findings = Vec::new();
    let reached = rss.queues.len() as u32;
    if reached != 0 && reached < rx {
        let what = format!("only {reached} of {rx} queues are in the indirection table");
        findings.push(finding(Level::Warning, topic, what).by(format!("ethtool -X {name} equal {rx}")));
    }
    for (family, fields) in [("udp4", rss.udp4_fields), ("udp6", rss.udp6_fields)] {
        match fields {
            Some(fields) if fields & FOUR_TUPLE == FOUR_TUPLE => {}
            Some(_) => {
                let what =
                    format!("the {family} hash leaves out ports: clients behind one NAT share a queue");
                findings.push(
                    finding(Level::Warning, topic, what)
                        .by(format!("ethtool -N {name} rx-flow-hash {family} sdfn")),
                );
            }
            None => {
                let what = format!(
                    "the kernel does not tell what the {family} hash covers; it should be both addresses and ports"
                );
                findings.push(
                    finding(Level::Unknown, topic, what)
                        .by(format!("ethtool -n {name} rx-flow-hash {family}")),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(finding(Level::Fine, topic, format!("all {rx} queues, by addresses and ports")));
    }
    findings
}

/// Offloads of the interface itself that hand XDP something else than what was on the wire.
fn offloads(facts: &Facts) -> Vec<Finding> {
    let topic = "offloads";
    let Interface { name, .. } = &facts.interface;
    let Some(features) = &facts.features else {
        let what = "this kernel does not tell which offloads are on";
        return vec![finding(Level::Unknown, topic, what).by(format!("ethtool -k {name}"))];
    };
    let mut findings = Vec::new();
    let merging = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")];
    for (feature, option) in merging.iter().filter(|(feature, _)| features.is_active(feature)) {
        let what = format!(
            "{feature} merges packets before XDP sees them; drivers refuse XDP or drop to generic mode"
        );
        findings.push(changed(
            features,
            feature,
            finding(Level::Warning, topic, what),
            format!("ethtool -K {name} {option} off"),
        ));
    }
    if features.is_active("rx-vlan-hw-parse") {
        let what = "VLAN tags are stripped before XDP sees them: matters only if tagged frames arrive here";
        findings.push(finding(Level::Note, topic, what).by(format!("ethtool -K {name} rxvlan off")));
    }
    if findings.is_empty() {
        findings.push(finding(Level::Fine, topic, "none that gets in the way"));
    }
    findings
}

/// Adds the command, or says that the driver does not let it be changed.
fn changed(features: &Features, feature: &str, mut found: Finding, command: String) -> Finding {
    if features.changeable.contains(feature) {
        return found.by(command);
    }
    found.what.push_str("; this driver does not let it be switched off");
    found
}

/// What arrives on a veth is what its other end sent: offloads there leave checksums and segments undone.
fn partner(facts: &Facts) -> Option<Finding> {
    if facts.interface.kind.as_deref() != Some("veth") {
        return None;
    }
    let topic = "other end";
    let off = |name: &str| format!("ethtool -K {name} tx off gso off tso off gro off");
    let Some(partner) = &facts.partner else {
        let what = "in another network namespace: switch its transmit offloads off there, or checksums arrive undone";
        return Some(finding(Level::Unknown, topic, what).by(off("OTHER_END")));
    };
    let name = &partner.name;
    let Some(features) = &partner.features else {
        return Some(
            finding(Level::Unknown, topic, format!("{name} does not tell its offloads")).by(off(name)),
        );
    };
    let harmful: Vec<_> =
        features.active.iter().map(String::as_str).filter(|feature| leaves_work(feature)).collect();
    Some(if harmful.is_empty() {
        finding(Level::Fine, topic, format!("{name} sends whole packets with checksums"))
    } else {
        let what = format!("{name} leaves checksums or segmentation to us, which XDP packets do not get");
        finding(Level::Warning, topic, what).by(off(name))
    })
}

/// Segmentation of tunnelled packets alone (`tx-gre-segmentation` and the like) does nothing without these.
fn leaves_work(feature: &str) -> bool {
    feature.starts_with("tx-checksum-")
        || feature == "tx-generic-segmentation"
        || feature == "tx-udp-segmentation"
        || (feature.starts_with("tx-tcp") && feature.ends_with("-segmentation"))
}

fn numa(facts: &Facts) -> Finding {
    let topic = "NUMA";
    let cpus = &facts.host.cpus;
    let nodes: std::collections::BTreeSet<_> = cpus.iter().filter_map(|cpu| cpu.numa_node).collect();
    match facts.interface.numa_node {
        _ if nodes.len() < 2 => finding(Level::Fine, topic, "one node"),
        Some(node) => {
            let near = cpus.iter().filter(|cpu| cpu.numa_node == Some(node)).count();
            if near == 0 {
                let what = format!(
                    "the NIC is at node {node}, of which this process may use no CPU: widen its cpuset"
                );
                finding(Level::Warning, topic, what)
            } else {
                finding(
                    Level::Fine,
                    topic,
                    format!("the NIC is at node {node}, which has {near} of our {} CPUs", cpus.len()),
                )
            }
        }
        None => {
            let what = format!(
                "{} nodes, and the NIC's is not known: choose CPUs near it with --cores",
                nodes.len()
            );
            finding(Level::Unknown, topic, what)
        }
    }
}

/// Packets the fast path leaves to the kernel are forwarded by it, if it may.
fn forwarding(facts: &Facts) -> Finding {
    let topic = "forwarding";
    let switches = [
        ("net.ipv4.ip_forward", facts.host.ipv4_forwarding),
        ("net.ipv6.conf.all.forwarding", facts.host.ipv6_forwarding),
    ];
    let off: Vec<_> = switches.iter().filter(|(_, on)| *on == Some(false)).map(|(name, _)| *name).collect();
    if off.is_empty() {
        return finding(Level::Fine, topic, "the kernel forwards what the fast path leaves to it");
    }
    let what = format!("{} off: the kernel drops what the fast path leaves to it", off.join(" and "));
    off.iter()
        .fold(finding(Level::Warning, topic, what), |found, name| found.by(format!("sysctl -w {name}=1")))
}

#[cfg(test)]
mod tests;
