//! The interface itself: link, program, modes, MTU and queues.

use gateway_ebpf::layout::MAX_QUEUES;

use super::{Facts, Finding, Interface, Level, finding};
use crate::config::frame_mtu_max;

pub fn link(interface: &Interface) -> Finding {
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

pub fn attached(interface: &Interface) -> Finding {
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

pub fn modes(facts: &Facts) -> Finding {
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

pub fn mtu(interface: &Interface) -> Finding {
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

pub fn queues(facts: &Facts) -> Finding {
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
    if rx > MAX_QUEUES {
        let limit = MAX_QUEUES;
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
