//! `cargo xtask bench gateway`: how much wgx carries, and what others carry on the same processors.
//!
//! All stands are up; for each case all of them are measured in turn, round after round, so that what else the machine
//! does hits all alike.

use std::time::Duration;

use anyhow::Result;
use bench::{
    load::{Direction, Driver, Sizes},
    report::{Case, Kind, Overload, Rate, Spread, Throughput},
    search::{End, Found, NDR_LOSS_RATIO, PDR_LOSS_RATIO, Plan, Searched, Votes, search},
};

use super::{
    session::{self, Session, trial_of},
    stand::{Stand, take_down},
};

/// The quick form ends about here.
const BUDGET: Duration = Duration::from_secs(170);
/// Of the budget: from then on rates are no longer searched for in quick runs, but floods go on.
const SEARCH_SHARE: f64 = 0.85;
/// No gateway here is slower than this, in packets per second.
const MIN_PPS: u64 = 2_000;
/// A generator is sure of this share of what it can send at most.
const SURE_SHARE: f64 = 0.97;

/// What is measured of a case.
struct Need {
    case: Case,
    kinds: &'static [Kind],
}

const EVERYBODY: &[Kind] = &[Kind::Ours, Kind::Peer, Kind::Ceiling];
const WIREGUARD: &[Kind] = &[Kind::Ours, Kind::Peer];
const OURS: &[Kind] = &[Kind::Ours];

/// What one stand has shown in one case, over the rounds.
#[derive(Default)]
struct Shown {
    flood_pps: Vec<f64>,
    flood_offered_pps: Vec<f64>,
    searched: Vec<Searched>,
    overload: Vec<Overloaded>,
}

/// A trial beyond what the stand carries, beside the one at what it carries right before.
struct Overloaded {
    /// Offered load as a multiple of what is carried.
    multiple: f64,
    /// Of what arrived before, so much arrives.
    goodput_ratio: f64,
    p99_us: f64,
}

/// Measures and reports.
pub fn run(args: &session::Args) -> Result<()> {
    let mut session = Session::start("gateway", args, BUDGET)?;
    let mut stands = session.stands(Driver::LiveFrames)?;
    let needs = needs(session.quick);
    for (index, need) in needs.iter().enumerate() {
        let Case { direction, sizes, .. } = &need.case;
        let text =
            format!("{} of {}: {direction:?} {}", index + 1, needs.len(), bench::report::size_name(sizes));
        session.console.say("case", &text.to_lowercase());
        measure(&mut session, &mut stands, need)?;
    }
    take_down(stands);
    session.finish()
}

/// The cases of the goals; and without `--quick` all of ours.
fn needs(quick: bool) -> Vec<Need> {
    let case = |direction, sizes| Case {
        direction,
        sizes,
        clients: if direction == Direction::Hairpin { 2 } else { 1 },
    };
    let mut needs = vec![
        Need { case: case(Direction::Decrypt, Sizes::Fixed(1228)), kinds: EVERYBODY },
        Need { case: case(Direction::Encrypt, Sizes::Fixed(1228)), kinds: WIREGUARD },
        Need { case: case(Direction::Decrypt, Sizes::Fixed(200)), kinds: WIREGUARD },
    ];
    if quick {
        return needs;
    }
    needs[1].kinds = EVERYBODY;
    needs[2].kinds = EVERYBODY;
    needs.push(Need { case: case(Direction::Encrypt, Sizes::Fixed(200)), kinds: EVERYBODY });
    let directions = [Direction::Decrypt, Direction::Encrypt, Direction::Hairpin, Direction::Bidirectional];
    let sizes = [64, 200, 512, 1228, 1420].map(Sizes::Fixed).into_iter().chain([Sizes::Imix, Sizes::Media]);
    for sizes in sizes {
        for direction in directions {
            let case = case(direction, sizes.clone());
            if needs.iter().all(|need| need.case != case) {
                needs.push(Need { case, kinds: OURS });
            }
        }
    }
    needs
}

fn measure(session: &mut Session, stands: &mut [Stand], need: &Need) -> Result<()> {
    let mut shown: Vec<Shown> = stands.iter().map(|_| Shown::default()).collect();
    for round in 0..session.report.rounds {
        for (stand, shown) in stands.iter_mut().zip(&mut shown) {
            if need.kinds.contains(&stand.contender.kind) {
                flood(session, stand, need, shown)?;
            }
        }
        // A quick run searches once; its floods are repeated, and bear the goals.
        if session.quick && round > 0 {
            continue;
        }
        for (stand, shown) in stands.iter_mut().zip(&mut shown) {
            if shown.flood_pps.is_empty() {
                continue;
            }
            if session.has_spent(SEARCH_SHARE) {
                session.note(format!("no time was left to search for the rates of {}", stand.contender.name));
                continue;
            }
            find(session, stand, need, shown)?;
        }
    }
    for (stand, shown) in stands.iter_mut().zip(&mut shown) {
        if stand.contender.kind == Kind::Ours {
            overload(session, stand, need, shown)?;
        }
        session.report.throughput.extend(throughput(stand, need, shown));
    }
    Ok(())
}

/// As fast as the generator can.
fn flood(session: &mut Session, stand: &mut Stand, need: &Need, shown: &mut Shown) -> Result<()> {
    let seconds = session.trial_seconds();
    if let Some(outcome) = session.trial(stand, &trial_of(&need.case, None, seconds))? {
        shown.flood_pps.push(outcome.received_pps);
        shown.flood_offered_pps.push(outcome.sent as f64 / seconds);
    }
    Ok(())
}

fn find(session: &mut Session, stand: &mut Stand, need: &Need, shown: &mut Shown) -> Result<()> {
    let offered_pps =
        Spread::of(shown.flood_offered_pps.iter().copied()).map_or(0.0, |spread| spread.greatest);
    let plan = Plan {
        direction: need.case.direction,
        sizes: need.case.sizes.clone(),
        clients: need.case.clients,
        seconds: session.trial_seconds(),
        loss_ratios: vec![PDR_LOSS_RATIO, NDR_LOSS_RATIO],
        width: if session.quick { 0.05 } else { 0.02 },
        min_pps: MIN_PPS,
        max_pps: ((offered_pps * SURE_SHARE) as u64).max(MIN_PPS),
        votes: Votes { pass: 1, fail: 2 },
        trials_max: if session.quick { 20 } else { 60 },
    };
    match search(stand, &plan) {
        Ok(searched) => {
            let kpps = |loss_ratio| searched.of(loss_ratio).map_or(0, |found| found.pps / 1000);
            let text = format!(
                "{:<15} flood {:>5.0} kpps, PDR {:>4}, NDR {:>4}, {} trials, {} void",
                stand.contender.name,
                shown.flood_pps.last().unwrap_or(&0.0) / 1e3,
                kpps(PDR_LOSS_RATIO),
                kpps(NDR_LOSS_RATIO),
                searched.trials,
                searched.void
            );
            session.console.say("found", &text);
            shown.searched.push(searched);
            Ok(())
        }
        Err(error) if stand.contender.kind == Kind::Ours => Err(error),
        Err(error) => {
            session.note(format!("{error:#}"));
            Ok(())
        }
    }
}

/// What the stand carries and twice that, or all the generator can send, one right after the other: what else the machine
/// does changes from minute to minute by more than a gateway loses in overload. A search on a busy machine may have ended
/// far below what a flood brought through, so that counts too.
fn overload(session: &mut Session, stand: &mut Stand, need: &Need, shown: &mut Shown) -> Result<()> {
    let carried = [
        rate(shown, PDR_LOSS_RATIO).map(|pdr| pdr.pps.median),
        Spread::of(shown.flood_pps.iter().copied()).map(|flood| flood.median),
    ];
    let carried_pps = carried.into_iter().flatten().fold(0.0, f64::max);
    if carried_pps <= 0.0 {
        return Ok(());
    }
    let most = Spread::of(shown.flood_offered_pps.iter().copied()).map_or(0.0, |spread| spread.median);
    let twice = 2.0 * carried_pps;
    let twice_pps = (twice <= SURE_SHARE * most).then_some(twice as u64);
    let seconds = session.trial_seconds();
    for _ in 0..session.report.rounds {
        let once = session.trial(stand, &trial_of(&need.case, Some(carried_pps as u64), seconds))?;
        let twice = session.trial(stand, &trial_of(&need.case, twice_pps, seconds))?;
        let (Some(once), Some(twice)) = (once, twice) else { break };
        if once.received == 0 {
            continue;
        }
        shown.overload.push(Overloaded {
            multiple: twice.sent as f64 / seconds / carried_pps,
            // What overload delivers may be the peak itself.
            goodput_ratio: (twice.received_pps / once.received_pps).min(1.0),
            p99_us: twice.latency.as_ref().map_or(0.0, |latency| latency.p99_us),
        });
    }
    Ok(())
}

/// The rates of all rounds.
fn rate(shown: &Shown, loss_ratio: f64) -> Option<Rate> {
    // Trials that were void to the end have found nothing out.
    let is_known = |found: &Found| found.pps > 0 || found.end == End::Floor;
    let found: Vec<Found> =
        shown.searched.iter().filter_map(|searched| searched.of(loss_ratio)).filter(is_known).collect();
    let pps = Spread::of(found.iter().map(|found| found.pps as f64))?;
    Some(Rate { pps, end: found.last()?.end })
}

/// `None` when nothing was measured.
fn throughput(stand: &Stand, need: &Need, shown: &Shown) -> Option<Throughput> {
    let of = |pick: fn(&Overloaded) -> f64| Spread::of(shown.overload.iter().map(pick));
    let overload = of(|each| each.multiple)
        .zip(of(|each| each.goodput_ratio))
        .zip(of(|each| each.p99_us))
        .map(|((multiple, goodput_ratio), p99_us)| Overload {
            multiple: multiple.median,
            goodput_ratio,
            p99_us,
        });
    Some(Throughput {
        contender: stand.contender.clone(),
        case: need.case.clone(),
        flood_pps: Spread::of(shown.flood_pps.iter().copied())?,
        flood_offered_pps: Spread::of(shown.flood_offered_pps.iter().copied())?,
        ndr: rate(shown, NDR_LOSS_RATIO),
        pdr: rate(shown, PDR_LOSS_RATIO),
        overload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_runs_measure_what_the_goals_take() {
        let quick: Vec<Case> = needs(true).into_iter().map(|need| need.case).collect();
        let full: Vec<Case> = needs(false).into_iter().map(|need| need.case).collect();
        assert_eq!(quick.len(), 3);
        assert_eq!(full.len(), 4 * 7);
        assert!(quick.iter().all(|case| full.contains(case)));
        assert!(full.iter().all(|case| (case.direction == Direction::Hairpin) == (case.clients == 2)));
    }

    #[test]
    fn no_case_is_measured_twice() {
        let full = needs(false);
        for (index, need) in full.iter().enumerate() {
            assert!(full[index + 1..].iter().all(|other| other.case != need.case));
        }
    }
}
