//! Where packets were lost, as the kernel counts it in every namespace: tells a lossy gateway from a client or a
//! receiver that could not keep up.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Namespace;

/// Drop counters at one moment, or the difference of two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<String, u64>);

impl Losses {
    /// Reads the counters of the interfaces and UDP sockets in `namespaces`.
    pub fn read(namespaces: &[Namespace]) -> Result<Self> {
        let mut counters = BTreeMap::new();
        for namespace in namespaces {
            let links: Value = serde_json::from_str(&namespace.ip("-json -statistics link show")?)
                .context("`ip -json -statistics link show`")?;
            for link in links.as_array().into_iter().flatten() {
                let interface = link["ifname"].as_str().unwrap_or_default();
                for direction in ["rx", "tx"] {
                    let dropped = link["stats64"][direction]["dropped"].as_u64().unwrap_or(0);
                    counters.insert(format!("{} {interface} {direction}_dropped", namespace.name()), dropped);
                }
            }
            for (family, overflows) in udp_overflows(namespace)? {
                counters.insert(format!("{} {family} UDP sockets full", namespace.name()), overflows);
            }
        }
        Ok(Self(counters))
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counted = self.0.iter().filter_map(|(place, count)| {
            let before = earlier.0.get(place).copied().unwrap_or(0);
            (*count > before).then(|| (place.clone(), count - before))
        });
        Self(counted.collect())
    }

    /// How much was counted everywhere.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How much was counted in one namespace.
    pub fn in_namespace(&self, namespace: &Namespace) -> u64 {
        let mark = format!("{} ", namespace.name());
        self.0.iter().filter(|(place, _)| place.starts_with(&mark)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the kernel counted no drop anywhere");
        }
        let places: Vec<_> = self.0.iter().map(|(place, count)| format!("{place}: {count}")).collect();
        f.write_str(&places.join(", "))
    }
}

/// Datagrams that found a socket's buffer full, by family.
fn udp_overflows(namespace: &Namespace) -> Result<[(&'static str, u64); 2]> {
    let v4 = namespace.run("cat /proc/net/snmp")?;
    let v6 = namespace.run("cat /proc/net/snmp6")?;
    Ok([("IPv4", snmp_udp_overflows(&v4).unwrap_or(0)), ("IPv6", snmp6_udp_overflows(&v6).unwrap_or(0))])
}

/// `/proc/net/snmp` has a line of names and a line of values per protocol.
fn snmp_udp_overflows(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp: "));
    let column = lines.next()?.split_whitespace().position(|name| name == "RcvbufErrors")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

/// `/proc/net/snmp6` has a name and a value per line.
fn snmp6_udp_overflows(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_are_found_in_both_formats() {
        let snmp = "Tcp: RcvbufErrors\nTcp: 1\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 10 7 3\n";
        assert_eq!(snmp_udp_overflows(snmp), Some(7));
        assert_eq!(snmp6_udp_overflows("Udp6InDatagrams 1\nUdp6RcvbufErrors     \t9\n"), Some(9));
        assert_eq!(snmp_udp_overflows(""), None);
    }

    #[test]
    fn only_what_grew_is_shown() {
        let counters =
            |a, b| Losses([("x eth0 rx_dropped".to_owned(), a), ("y eth0 rx_dropped".to_owned(), b)].into());
        let grown = counters(5, 2).since(&counters(1, 2));
        assert_eq!(grown.to_string(), "x eth0 rx_dropped: 4");
        assert_eq!(counters(1, 1).since(&counters(1, 1)).to_string(), "the kernel counted no drop anywhere");
    }
}
