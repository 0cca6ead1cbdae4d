//! Which packets were held up by what is neither gateway nor generator, and which were late for no such reason.
//!
//! A packet is held up if others had a processor of the two for some time between its intended departure and its arrival,
//! and so are those that queue behind it, until one is as fast again as most are.

use std::collections::BTreeMap;

use super::account::Arrival;
use crate::load::trial::{HeldUp, LATE_US};
use crate::media::Latency;
use crate::media::meter::{latency_histogram, record_latency};

/// A queue has drained when a packet takes at most this many medians.
const DRAINED_MEDIANS: u64 = 2;
/// Where nobody was seen on a processor: the hypervisor, or interrupts.
const MACHINE: &str = "the machine itself";
/// No reason seen: the gateway's own.
const NOBODY: &str = "nobody";

/// A time in which gateway or generator could not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// From when, in nanoseconds,
    pub from_ns: u64,
    /// until when.
    pub until_ns: u64,
    /// Because of whom.
    pub by: String,
}

/// Adds the generator's own `gaps`, from and until, as far as nobody is known to have had its processor.
pub fn with_gaps(mut pauses: Vec<Pause>, gaps: &[(u64, u64)]) -> Vec<Pause> {
    let unexplained = |&&(from_ns, until_ns): &&(u64, u64)| {
        let known: u64 = pauses.iter().map(|pause| overlap(pause, from_ns, until_ns)).sum();
        2 * known < until_ns - from_ns
    };
    let more: Vec<Pause> = gaps
        .iter()
        .filter(unexplained)
        .map(|&(from_ns, until_ns)| Pause { from_ns, until_ns, by: MACHINE.to_owned() })
        .collect();
    pauses.extend(more);
    pauses
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
    let count =
        |counts: &mut BTreeMap<String, u64>, who: &str| *counts.entry(who.to_owned()).or_default() += 1;
    let mut queued_by: Option<&str> = None;
    for &(intended_ns, at_ns) in &packets {
        let latency_ns = at_ns - intended_ns;
        let reason =
            reason(&pauses, longest_ns, intended_ns, at_ns).or(queued_by.filter(|_| latency_ns > drained_ns));
        queued_by = reason;
        match reason {
            Some(who) => count(&mut by, who),
            None => record_latency(&mut undisturbed, latency_ns),
        }
        if latency_ns > LATE_US * 1000 {
            count(&mut late_by, reason.unwrap_or(NOBODY));
        }
    }
    HeldUp { by, undisturbed: Latency::of(&undisturbed), late_by }
}

/// Who kept a packet for the longest time; `None` where nobody did.
fn reason(pauses: &[Pause], longest_ns: u64, intended_ns: u64, at_ns: u64) -> Option<&str> {
    // Sorted by their beginnings: what began earlier than the longest lasts has ended.
    let first = pauses.partition_point(|pause| pause.from_ns + longest_ns < intended_ns);
    pauses[first..]
        .iter()
        .take_while(|pause| pause.from_ns < at_ns)
        .map(|pause| (overlap(pause, intended_ns, at_ns), pause))
        .filter(|&(overlap_ns, _)| overlap_ns > 0)
        .max_by_key(|&(overlap_ns, _)| overlap_ns)
        .map(|(_, pause)| pause.by.as_str())
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
        Pause { from_ns, until_ns, by: "kdamond.0 on CPU 0".into() }
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
        let pauses = [pause(0, 60), Pause { by: "short".into(), ..pause(100, 130) }];
        assert_eq!(reason(&pauses, 60, 50, 200), Some("short"));
        assert_eq!(reason(&pauses, 60, 20, 200), Some("kdamond.0 on CPU 0"));
        assert_eq!(reason(&pauses, 60, 60, 100), None);
        assert_eq!(reason(&pauses, 60, 130, 200), None);
    }

    #[test]
    fn gaps_of_the_generator_are_the_machines_where_nobody_else_ran() {
        let pauses = with_gaps(vec![pause(100, 200)], &[(90, 210), (150, 400), (500, 600)]);
        let machine: Vec<_> = pauses[1..].iter().map(|pause| (pause.from_ns, pause.by.as_str())).collect();
        assert_eq!(machine, [(150, MACHINE), (500, MACHINE)]);
    }
}
