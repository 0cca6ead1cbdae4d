//! What `wgx status --json` says, read by counter name so that its arrangement may change.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// Ways out of the engine that never touch the kernel's network stack.
const FAST: [&str; 2] = ["opened_to_link", "sealed_to_link"];
/// Ways out through a socket or the TUN device.
const SLOW: [&str; 4] = ["opened_to_tunnel", "sealed_to_socket", "plain_to_tunnel", "staged"];

/// The status of one tunnel at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    value: Value,
    verdicts: BTreeMap<String, u64>,
}

impl Status {
    /// Reads the output of `wgx status NAME --json`.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("`wgx status --json` gave no JSON")?;
        let mut verdicts = BTreeMap::new();
        sum_verdicts(&value, &mut verdicts);
        Ok(Self { value, verdicts })
    }

    /// The whole report.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The rung of the ladder the gateway is on: `af-xdp` or `udp`.
    pub fn rung(&self) -> &str {
        self.value["rung"].as_str().unwrap_or_default()
    }

    /// Handshake messages by what became of them: `"name": count` pairs.
    pub fn handshakes(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.value["handshakes"])?)
    }

    /// Packets that had a verdict, over all workers; verdicts that never happened count 0.
    pub fn verdict(&self, name: &str) -> u64 {
        self.verdicts.get(name).copied().unwrap_or(0)
    }

    /// All verdicts that happened.
    pub fn verdicts(&self) -> &BTreeMap<String, u64> {
        &self.verdicts
    }

    /// Packets that went over AF_XDP sockets.
    pub fn fast(&self) -> u64 {
        FAST.iter().map(|name| self.verdict(name)).sum()
    }

    /// Packets that went through the kernel.
    pub fn slow(&self) -> u64 {
        SLOW.iter().map(|name| self.verdict(name)).sum()
    }

    /// Packets dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.verdicts.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, count)| count).sum()
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Status) -> Self {
        let verdicts = self
            .verdicts
            .iter()
            .map(|(name, count)| (name.clone(), count.saturating_sub(earlier.verdict(name))))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self { value: self.value.clone(), verdicts }
    }
}

/// Adds up every object called `verdicts`, one per worker.
fn sum_verdicts(value: &Value, into: &mut BTreeMap<String, u64>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(counts) if name == "verdicts" => {
                        for (verdict, count) in counts {
                            *into.entry(verdict.clone()).or_default() += count.as_u64().unwrap_or(0);
                        }
                    }
                    _ => sum_verdicts(field, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| sum_verdicts(item, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_of_all_workers_add_up() {
        let earlier = Status::parse(r#"{"workers":[{"verdicts":{"opened_to_link":1}}]}"#).unwrap();
        let later = Status::parse(
            r#"{"workers":[{"queue":0,"verdicts":{"opened_to_link":5,"drop_replayed":2}},
                           {"queue":1,"verdicts":{"opened_to_link":3,"sealed_to_link":1,"sealed_to_socket":1}}]}"#,
        )
        .unwrap()
        .since(&earlier);
        assert_eq!((later.fast(), later.slow(), later.dropped()), (8, 1, 2));
        assert_eq!(later.verdict("never_happened"), 0);
    }
}
