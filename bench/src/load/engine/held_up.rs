//! Which packets were held up by what is neither gateway nor generator, and which were late for no such reason.
//!
//! A packet is held up if others had a processor of the two for some time between its intended departure and its arrival,
//! and so are those that queue behind it, until one is as fast again as most are.

use std::{collections::BTreeMap, fmt};

use super::account::Arrival;
use crate::load::trial::{HeldUp, LATE_US};
use crate::media::Latency;
use crate::media::meter::{latency_histogram, record_latency};

/// A queue has drained when a packet takes at most this many medians.
const DRAINED_MEDIANS: u64 = 2;
/// No reason seen: the gateway's own.
const NOBODY: &str = "nobody";

/// A time in which gateway or generator could not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// From when, in nanoseconds,
    pub from_ns: u64,
    /// until when.
    pub until_ns: u64,
    /// Because of whom,
    pub by: Cause,
    /// on which CPU.
    pub cpu: u32,
}

/// Who took the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A thread of this name.
    Thread(String),
    /// The CPU's clock stood still: a hypervisor ran something else, or interrupts were off.
    Machine,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, cpu, .. } = self;
        match by {
            Cause::Thread(name) => write!(f, "{name} on CPU {cpu}"),
            Cause::Machine => write!(f, "the machine under CPU {cpu}"),
        }
    }
}

/// Tells packets apart by `pauses`.
pub fn held_up(arrivals: &[Arrival], mut pauses: Vec<Pause>) -> HeldUp {
    pauses.sort_by_key(|pause| pause.from_ns);
    let longest_ns = pauses.iter().map(|pause| pause.until_ns - pause.from_ns).max().unwrap_or(0);
    let mut packets: Vec<(u64, u64)> = arrivals
        .iter()
        .filter_map(|arrival| Some((arrival.intended_ns?, arrival.at_ns)))
        .filter(|(intended_ns, at_ns)| intended_ns <= at_ns)
        .collect();
    packets.sort_unstable();
    let drained_ns = DRAINED_MEDIANS * median_ns(&packets);
    let mut undisturbed = latency_histogram();
    let (mut by, mut late_by) = (BTreeMap::new(), BTreeMap::new());
    let count = |counts: &mut BTreeMap<String, u64>, who: String| *counts.entry(who).or_default() += 1;
    let mut queued_by: Option<&Pause> = None;
    for &(intended_ns, at_ns) in &packets {
        let latency_ns = at_ns - intended_ns;
        let reason =
            reason(&pauses, longest_ns, intended_ns, at_ns).or(queued_by.filter(|_| latency_ns > drained_ns));
        queued_by = reason;
        match reason {
            Some(pause) => count(&mut by, pause.to_string()),
            None => record_latency(&mut undisturbed, latency_ns),
        }
        if latency_ns > LATE_US * 1000 {
            count(&mut late_by, reason.map_or_else(|| NOBODY.to_owned(), Pause::to_string));
        }
    }
    HeldUp { by, undisturbed: Latency::of(&undisturbed), late_by }
}

/// What kept a packet for the longest time; `None` where nothing did. When a CPU stands still within a thread's slice, the
/// thread did not have that time either, so the machine counts twice.
fn reason(pauses: &[Pause], longest_ns: u64, intended_ns: u64, at_ns: u64) -> Option<&Pause> {
    let weight = |pause: &Pause| match pause.by {
        Cause::Thread(_) => overlap(pause, intended_ns, at_ns),
        Cause::Machine => 2 * overlap(pause, intended_ns, at_ns),
    };
    // Sorted by their beginnings: what began earlier than the longest lasts has ended.
    let first = pauses.partition_point(|pause| pause.from_ns + longest_ns < intended_ns);
    pauses[first..]
        .iter()
        .take_while(|pause| pause.from_ns < at_ns)
        .map(|pause| (weight(pause), pause))
        .filter(|&(weight, _)| weight > 0)
        .max_by_key(|&(weight, _)| weight)
        .map(|(_, pause)| pause)
}

fn overlap(pause: &Pause, from_ns: u64, until_ns: u64) -> u64 {
    pause.until_ns.min(until_ns).saturating_sub(pause.from_ns.max(from_ns))
}

fn median_ns(packets: &[(u64, u64)]) -> u64 {
    let mut latencies: Vec<u64> = packets.iter().map(|(intended_ns, at_ns)| at_ns - intended_ns).collect();
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A packet every 20 us that takes 10, but for those due in the 4 ms from 10 on, which arrive by and by from their
    /// end on, 5 us apart.
    fn arrivals() -> Vec<Arrival> {
        let mut free_ns = 14 * MS;
        (0..1000)
            .map(|order| {
                let intended_ns = order * 20_000;
                let mut at_ns = intended_ns + 10_000;
                if intended_ns >= 10 * MS && at_ns < free_ns {
                    at_ns = free_ns;
                    free_ns += 5_000;
                }
                Arrival { stream: 0, order, at_ns, intended_ns: Some(intended_ns) }
            })
            .collect()
    }

    fn pause(from_ns: u64, until_ns: u64) -> Pause {
        Pause { from_ns, until_ns, by: Cause::Thread("kdamond.0".into()), cpu: 0 }
    }

    #[test]
    fn packets_of_a_pause_and_of_its_queue_are_held_up() {
        let held_up = held_up(&arrivals(), vec![pause(10 * MS, 14 * MS)]);
        let (late, all) = (held_up.late_by["kdamond.0 on CPU 0"], held_up.packets());
        assert!(held_up.late_by.len() == 1 && late > 200 && all > late && all < 300, "{held_up:?}");
        assert!(held_up.undisturbed.unwrap().max_us < 20.1);
    }

    #[test]
    fn without_a_pause_nobody_is_to_blame() {
        let held_up = held_up(&arrivals(), vec![pause(2 * MS, 2 * MS + 5_000), pause(30 * MS, 31 * MS)]);
        assert_eq!(held_up.late_by.keys().collect::<Vec<_>>(), ["nobody"]);
        assert!(held_up.packets() <= 2, "{held_up:?}");
        assert!(held_up.undisturbed.unwrap().max_us > 3000.0);
    }

    #[test]
    fn of_two_the_longer_one_is_the_reason() {
        let pauses = [pause(0, 60), pause(100, 130)];
        let from = |intended_ns, at_ns| reason(&pauses, 60, intended_ns, at_ns).map(|pause| pause.from_ns);
        assert_eq!(from(50, 200), Some(100));
        assert_eq!(from(20, 200), Some(0));
        assert_eq!(from(60, 100), None);
        assert_eq!(from(130, 200), None);
    }

    #[test]
    fn a_thread_is_not_to_blame_for_a_machine_that_stands_still() {
        let machine = Pause { by: Cause::Machine, ..pause(10, 50) };
        let pauses = [pause(0, 60), machine.clone()];
        assert_eq!(reason(&pauses, 60, 0, 100), Some(&machine));
        assert_eq!(reason(&pauses, 60, 45, 100).map(Pause::to_string).as_deref(), Some("kdamond.0 on CPU 0"));
        assert_eq!(machine.to_string(), "the machine under CPU 0");
    }
}
