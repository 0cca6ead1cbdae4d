//! Tables of scenarios: each has its own client of one gateway, and all failures are reported by name.

use std::thread;

use anyhow::{Result, ensure};

use super::{Bed, Client};
use crate::{Implementation, Lab, scenario};

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, a sentence.
    pub name: &'static str,
    /// How the reference is known to differ.
    pub reference_differs: Option<&'static str>,
    /// What has to work.
    pub run: fn(&Bed, &mut Client) -> Result<()>,
}

/// Makes a table of [`Case`]s out of functions of one module.
///
/// `name: "how"` says how the reference differs.
#[macro_export]
macro_rules! cases {
    ($($name:ident $(: $differs:literal)?,)+) => {
        &[$($crate::scripted::Case {
            name: stringify!($name),
            reference_differs: $crate::cases!(@option $($differs)?),
            run: $name,
        },)+]
    };
    (@option $text:literal) => { Some($text) };
    (@option) => { None };
}

/// Whether scenarios wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One by one: they send much, or measure.
    OneByOne,
    /// All at once: they wait for timers.
    AtOnce,
}

/// Runs all cases on one gateway.
pub fn check(
    lab: &mut Lab,
    implementation: Implementation,
    table: &str,
    cases: &[Case],
    order: Order,
) -> Result<()> {
    let (mut bed, mut clients) = Bed::build(lab, implementation, u8::try_from(cases.len())?)?;
    let outcomes: Vec<Result<()>> = match order {
        Order::OneByOne => {
            cases.iter().zip(&mut clients).map(|(case, client)| (case.run)(&bed, client)).collect()
        }
        Order::AtOnce => thread::scope(|scope| {
            let bed = &bed;
            let running: Vec<_> = cases
                .iter()
                .zip(&mut clients)
                .map(|(case, client)| scope.spawn(move || (case.run)(bed, client)))
                .collect();
            let joined = running.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|joined| joined.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect()
        }),
    };
    let summary = judge(implementation, cases, outcomes);
    note(table, implementation, &summary);
    bed.gateway.process()?.check_running()?;
    ensure!(summary.failures.is_empty(), "{}", summary.failures.join("\n"));
    Ok(())
}

#[derive(Debug, Default)]
struct Summary {
    passed: usize,
    total: usize,
    excused: Vec<String>,
    failures: Vec<String>,
}

fn judge(implementation: Implementation, cases: &[Case], outcomes: Vec<Result<()>>) -> Summary {
    let is_reference = implementation == Implementation::WireguardGo;
    let mut summary = Summary { total: cases.len(), ..Summary::default() };
    for (case, outcome) in cases.iter().zip(outcomes) {
        match (outcome, case.reference_differs.filter(|_| is_reference)) {
            (Ok(()), _) => summary.passed += 1,
            (Err(_), Some(why)) => summary.excused.push(format!("{}: {why}", case.name)),
            (Err(error), None) => summary.failures.push(format!("{}: {error:#}", case.name)),
        }
    }
    summary
}

/// Puts the numbers into the report of `cargo xtask test`.
fn note(table: &str, implementation: Implementation, summary: &Summary) {
    let excused = match &summary.excused[..] {
        [] => String::new(),
        excused => format!("; known to differ: {}", excused.join("; ")),
    };
    let (passed, total) = (summary.passed, summary.total);
    scenario::note(
        &format!("conformance {table}"),
        &format!("{implementation}: {passed}/{total} scenarios{excused}"),
    );
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::Io;

    fn case(name: &'static str) -> Case {
        Case { name, reference_differs: None, run: |_, _| Ok(()) }
    }

    #[test]
    fn failures_are_named_and_excuses_are_those_of_one_implementation() {
        let odd = Case { reference_differs: Some("it does"), ..case("odd") };
        let cases = [case("good"), case("bad"), odd];
        let outcomes = || vec![Ok(()), Err(anyhow!("why")), Err(anyhow!("differs"))];
        let reference = judge(Implementation::WireguardGo, &cases, outcomes());
        assert_eq!(reference.failures, ["bad: why"]);
        assert_eq!((reference.passed, reference.excused), (1, vec!["odd: it does".to_owned()]));
        let ours = judge(Implementation::Wgx(Io::Udp), &cases, outcomes());
        assert_eq!(ours.failures, ["bad: why", "odd: differs"]);
    }
}
