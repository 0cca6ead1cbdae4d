//! What the hardware, or the other end of a veth, does to packets before XDP sees them.

use super::{Facts, Finding, Interface, Level, finding};
use crate::topology::ethtool::{FOUR_TUPLE, Features};

/// Whether the flows of different clients reach different queues.
pub fn spread(facts: &Facts) -> Vec<Finding> {
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
pub fn offloads(facts: &Facts) -> Vec<Finding> {
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
pub fn partner(facts: &Facts) -> Option<Finding> {
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
