//! What `wgx check` prints.

use std::fmt;

use serde::Serialize;

use super::{
    facts::Facts,
    findings::{Finding, Level, assess, best_rung},
};

/// Facts, judgement and what follows from it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether nothing found keeps `AF_XDP` from working here.
    pub af_xdp_works: bool,
    /// The fastest rung of the ladder that can be hoped for.
    pub best_rung: &'static str,
    pub findings: Vec<Finding>,
    pub facts: Facts,
}

impl Report {
    pub fn of(facts: Facts) -> Self {
        let findings = assess(&facts);
        let af_xdp_works = findings.iter().all(|finding| finding.level != Level::Failure);
        let best_rung = if af_xdp_works { best_rung(&facts) } else { "UDP sockets" };
        Self { af_xdp_works, best_rung, findings, facts }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.facts.interface;
        let origin = interface.driver.as_deref().or(interface.kind.as_deref()).unwrap_or("unknown driver");
        writeln!(formatter, "{} ({origin}), kernel {}", interface.name, self.facts.host.kernel)?;
        writeln!(formatter)?;
        let width = self.findings.iter().map(|finding| finding.topic.len()).max().unwrap_or_default();
        for Finding { level, topic, what, commands } in &self.findings {
            writeln!(formatter, "  {:<7}  {topic:<width$}  {what}", level.word())?;
            for command in commands {
                writeln!(formatter, "  {:<7}  {:<width$}    $ {command}", "", "")?;
            }
        }
        writeln!(formatter)?;
        if self.af_xdp_works {
            writeln!(formatter, "AF_XDP will work. At best: {}.", self.best_rung)
        } else {
            let failures = self.findings.iter().filter(|finding| finding.level == Level::Failure).count();
            writeln!(
                formatter,
                "AF_XDP will not work before the {failures} marked `fail` are changed; \
                 until then `wgx run --io auto` uses UDP sockets."
            )
        }
    }
}
