//! From facts to findings: a pure function, so that machines we do not have can be tested.

mod device;
mod host;
mod offloads;

use serde::Serialize;

use super::facts::{Facts, SocketRefusal};
use crate::topology::Interface;

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
    let mut findings = vec![device::link(&facts.interface), host::kernel(facts)];
    findings.extend(host::permissions(facts));
    if facts.interface.mac.is_none() {
        // Nothing one could change makes this an Ethernet interface: the rest would only mislead.
        return findings;
    }
    findings.push(device::attached(&facts.interface));
    findings.push(device::modes(facts));
    findings.push(device::mtu(&facts.interface));
    findings.push(device::queues(facts));
    findings.extend(offloads::spread(facts));
    findings.extend(offloads::offloads(facts));
    findings.extend(offloads::partner(facts));
    findings.push(host::numa(facts));
    findings.push(host::forwarding(facts));
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

#[cfg(test)]
mod tests;
