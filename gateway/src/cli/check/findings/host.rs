//! The kernel, this process, and where the CPUs are.

use super::{Facts, Finding, Level, SocketRefusal, finding};

/// Oldest kernel: the first that maps the rings of a bound socket (`xsk_mmap`, net/xdp/xsk.c).
const KERNEL_MIN: (u32, u32) = (6, 4);

/// Bytes of frames one worker locks in the usual plan of two interfaces.
const WORKER_MEMORY: u64 = 3 * 4096 * 2048;

pub fn kernel(facts: &Facts) -> Finding {
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

pub fn permissions(facts: &Facts) -> Vec<Finding> {
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

/// Packets the fast path leaves to the kernel are forwarded by it, if it may.
pub fn forwarding(facts: &Facts) -> Finding {
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

pub fn numa(facts: &Facts) -> Finding {
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
