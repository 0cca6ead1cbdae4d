//! `cargo xtask bench latency`: how late packets are, at rates all of them carry and at shares of what each carries.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use bench::{
    load::{Direction, Driver, HeldUp, Outcome, Sizes, Trial},
    media::Latency,
    report::{Case, Interference, Kind, LatencyAt, Offered, Spread},
    search::{PDR_LOSS_RATIO, Plan, Votes, search},
};

use super::{
    session::{self, Session, left, trial_of},
    stand::{Stand, take_down},
};

/// The quick form ends about here.
const BUDGET: Duration = Duration::from_secs(110);
/// Loads that are the same for all, that of the goals first: case by length, and packets per second.
const FIXED: [(u16, u64); 2] = [(1228, 50_000), (200, 100_000)];
/// At the load of the goals there are as many rounds more: what else a machine does is in some and not in others.
const MORE_ROUNDS: u32 = 2;
/// Percent of the partial drop rate, as CSIT has it.
const SHARES: [u32; 3] = [10, 50, 90];
/// Rates the gateway benchmark has found are used for so long.
const RATES_AGE_MAX: Duration = Duration::from_hours(1);

/// Measures and reports.
pub fn run(args: &session::Args) -> Result<()> {
    let mut session = Session::start("latency", args, BUDGET)?;
    // A generator that loops in user space is held up less often than one that loops in the kernel, and at these rates it
    // keeps up. At shares of what is carried it would not.
    let mut stands = session.stands(Driver::AfXdp)?;
    for (size, rate_pps) in FIXED {
        let rates = vec![Some(rate_pps); stands.len()];
        session.console.say("load", &format!("{} kpps of {size} bytes", rate_pps / 1000));
        measure(&mut session, &mut stands, &decrypt(size), Offered::Fixed, &rates)?;
    }
    take_down(stands);
    let mut stands = session.stands(Driver::LiveFrames)?;
    shares(&mut session, &mut stands)?;
    take_down(stands);
    session.finish()
}

fn decrypt(size: u16) -> Case {
    Case { direction: Direction::Decrypt, sizes: Sizes::Fixed(size), clients: 1 }
}

fn shares(session: &mut Session, stands: &mut [Stand]) -> Result<()> {
    let case = decrypt(1228);
    let mut rates = Vec::new();
    for stand in &mut *stands {
        let rate = if stand.contender.kind == Kind::Ceiling { None } else { pdr(session, stand, &case)? };
        rates.push(rate);
    }
    for percent in SHARES {
        if session.has_spent(1.0) {
            session.note(format!("no time was left for latency at {percent} % of PDR and above"));
            break;
        }
        session.console.say("load", &format!("{percent} % of each one's PDR, 1228 bytes"));
        let share = |rate: &Option<u64>| rate.map(|rate| rate * u64::from(percent) / 100);
        let rates: Vec<_> = rates.iter().map(share).collect();
        measure(session, stands, &case, Offered::PdrPercent(percent), &rates)?;
    }
    Ok(())
}

/// The partial drop rate: as the gateway benchmark found it, or from a search of our own.
fn pdr(session: &mut Session, stand: &mut Stand, case: &Case) -> Result<Option<u64>> {
    let known = left("gateway", RATES_AGE_MAX)?
        .and_then(|report| report.throughput_of(&stand.contender.name, case)?.pdr)
        .map(|rate| rate.pps.median as u64);
    if let Some(rate) = known {
        return Ok(Some(rate).filter(|&rate| rate > 0));
    }
    let Some(flood) = session.trial(stand, &trial_of(case, None, session.trial_seconds()))? else {
        return Ok(None);
    };
    let plan = Plan {
        direction: case.direction,
        sizes: case.sizes.clone(),
        clients: case.clients,
        seconds: session.trial_seconds(),
        loss_ratios: vec![PDR_LOSS_RATIO],
        width: 0.05,
        min_pps: 2_000,
        max_pps: (flood.sent as f64 / session.trial_seconds()) as u64,
        votes: Votes { pass: 1, fail: 2 },
        trials_max: 20,
    };
    let found = search(stand, &plan)?.found[0];
    session.console.say("found", &format!("{}: PDR {} kpps", stand.contender.name, found.pps / 1000));
    Ok(Some(found.pps).filter(|&rate| rate > 0))
}

/// All stands in turn, each at its rate; those without one are left out. At the load of the goals each trial is repeated at
/// once with a watch on the others of the machine.
fn measure(
    session: &mut Session,
    stands: &mut [Stand],
    case: &Case,
    offered: Offered,
    rates: &[Option<u64>],
) -> Result<()> {
    let seconds = if session.quick { 1.0 } else { 3.0 };
    let mut outcomes: Vec<[Vec<Outcome>; 2]> = stands.iter().map(|_| Default::default()).collect();
    let is_of_goals =
        offered == Offered::Fixed && rates.iter().flatten().all(|&rate| is_of_goals(case, rate));
    let rounds = session.report.rounds + if is_of_goals { MORE_ROUNDS } else { 0 };
    for round in 0..rounds {
        for ((stand, rate), [plain, watched]) in stands.iter_mut().zip(rates).zip(&mut outcomes) {
            let Some(rate_pps) = rate else { continue };
            let trial = trial_of(case, Some(*rate_pps), seconds);
            plain.extend(session.trial(stand, &trial)?);
            if is_of_goals && round < session.report.rounds {
                watched.extend(session.trial(stand, &Trial { is_watched: true, ..trial })?);
            }
        }
    }
    for (stand, [plain, watched]) in stands.iter().zip(outcomes) {
        let Some(entry) = summary(stand, case, offered, &plain) else { continue };
        let text = format!(
            "{:<15} p50 {:.0}, p99 {:.0}, p99.9 {:.0} us",
            stand.contender.name, entry.p50_us, entry.p99_us, entry.p99_9_us
        );
        session.console.say("latency", &text);
        session.report.latency.push(LatencyAt { interference: interference(&watched), ..entry });
    }
    Ok(())
}

fn is_of_goals(case: &Case, rate_pps: u64) -> bool {
    let (size, goal_pps) = FIXED[0];
    *case == decrypt(size) && rate_pps == goal_pps
}

/// `None` when nothing arrived in any round.
fn summary(stand: &Stand, case: &Case, offered: Offered, outcomes: &[Outcome]) -> Option<LatencyAt> {
    let arrived: Vec<(&Outcome, &Latency)> =
        outcomes.iter().filter_map(|outcome| Some((outcome, outcome.latency.as_ref()?))).collect();
    let of = |pick: fn(&Latency) -> f64| Spread::of(arrived.iter().map(|(_, latency)| pick(latency)));
    let mut by_p99 = arrived.clone();
    by_p99.sort_by(|(_, one), (_, other)| one.p99_us.total_cmp(&other.p99_us));
    let (middle, _) = by_p99.get(by_p99.len() / 2)?;
    Some(LatencyAt {
        contender: stand.contender.clone(),
        case: case.clone(),
        offered,
        rate_pps: middle.trial.rate_pps?,
        rounds: outcomes.len() as u32,
        p50_us: of(|latency| latency.p50_us)?,
        p90_us: of(|latency| latency.p90_us)?,
        p99_us: of(|latency| latency.p99_us)?,
        p99_9_us: of(|latency| latency.p99_9_us)?,
        max_us: of(|latency| latency.max_us)?,
        jitter_us: Spread::of(arrived.iter().map(|(outcome, _)| outcome.jitter_us))?,
        pdv_us: Spread::of(arrived.iter().map(|(outcome, _)| outcome.pdv_p99_9_us))?,
        loss_ratio: Spread::of(outcomes.iter().map(Outcome::loss_ratio))?,
        void: outcomes.iter().filter(|outcome| outcome.void().is_some()).count() as u32,
        percentiles: middle.percentiles.clone(),
        interference: None,
    })
}

/// `None` where nobody watched, or all packets of a round were held up.
fn interference(outcomes: &[Outcome]) -> Option<Interference> {
    let watched: Vec<(&Outcome, &HeldUp)> =
        outcomes.iter().filter_map(|outcome| Some((outcome, outcome.held_up.as_ref()?))).collect();
    let undisturbed = |pick: fn(&Latency) -> f64| {
        Spread::of(watched.iter().filter_map(|(_, held_up)| held_up.undisturbed.as_ref().map(pick)))
    };
    let mut late_by = BTreeMap::new();
    for (by, count) in watched.iter().flat_map(|(_, held_up)| &held_up.late_by) {
        *late_by.entry(by.clone()).or_default() += count;
    }
    Some(Interference {
        held_up_ratio: Spread::of(
            watched
                .iter()
                .map(|(outcome, held_up)| held_up.packets() as f64 / outcome.latency_samples.max(1) as f64),
        )?,
        p99_us: undisturbed(|latency| latency.p99_us)?,
        p99_9_us: undisturbed(|latency| latency.p99_9_us)?,
        late_by,
    })
}
