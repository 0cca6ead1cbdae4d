//! The search itself: from a first guess to a pair of bounds for each goal.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Plan, Tester,
    ledger::{Ledger, Verdict},
};

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The bounds are as close as was asked for.
    Bracketed,
    /// The gateway carries all the generator can send: the rate is a lower bound of what it can do.
    Generator,
    /// Even the lowest rate loses more: the rate is 0.
    Floor,
    /// There were too many trials: the rate is the best that was seen.
    Unfinished,
}

/// The highest rate found for a goal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Lost packets as a share of those intended that the goal allows.
    pub loss_ratio: f64,
    /// The rate, in packets per second, both directions together; 0 when there is none.
    pub pps: u64,
    /// What arrived at that rate.
    pub received_pps: f64,
    /// The lowest rate known to lose more.
    pub upper_pps: Option<u64>,
    /// Why the search ended.
    pub end: End,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// In the order of the plan's goals.
    pub found: Vec<Found>,
    /// What arrived per second when the generator sent as fast as it could.
    pub flood_pps: f64,
    /// What it sent then.
    pub flood_offered_pps: f64,
    /// Trials run.
    pub trials: u32,
    /// Of these, those that said nothing of the gateway.
    pub void: u32,
}

impl Searched {
    /// What was found for a loss ratio of the plan.
    pub fn of(&self, loss_ratio: f64) -> Option<Found> {
        self.found.iter().copied().find(|found| found.loss_ratio.total_cmp(&loss_ratio).is_eq())
    }
}

/// Searches for all goals of a plan, the one that allows most first.
///
/// # Errors
/// The plan makes no sense, or a trial cannot be run.
pub fn search<T: Tester + ?Sized>(tester: &mut T, plan: &Plan) -> Result<Searched> {
    ensure!(
        plan.width > 0.0 && plan.seconds > 0.0 && 0 < plan.min_pps && plan.min_pps <= plan.max_pps,
        "a search needs a width, a duration and a range of rates: {plan:?}"
    );
    let mut ledger = Ledger::new(tester, plan);
    let flood = ledger.flood()?;
    let guess = (flood.received_pps as u64).clamp(plan.min_pps, plan.max_pps);
    let mut goals: Vec<(usize, f64)> = plan.loss_ratios.iter().copied().enumerate().collect();
    goals.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut found = Vec::new();
    for (index, loss_ratio) in goals {
        found.push((index, one_goal(&mut ledger, plan, loss_ratio, guess)?));
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(Searched {
        found: found.into_iter().map(|(_, found)| found).collect(),
        flood_pps: flood.received_pps,
        flood_offered_pps: flood.sent as f64 / plan.seconds,
        trials: ledger.trial_count,
        void: ledger.void_count,
    })
}

fn one_goal<T: Tester + ?Sized>(
    ledger: &mut Ledger<'_, T>,
    plan: &Plan,
    loss_ratio: f64,
    guess: u64,
) -> Result<Found> {
    // Each step away from the guess is twice the last one, on a logarithmic scale.
    let mut step = 1.0 + plan.width;
    let end = loop {
        let (lower, upper) = ledger.bounds(loss_ratio);
        let next = match (lower, upper) {
            (Some(lower), Some(upper)) if upper as f64 <= lower as f64 * (1.0 + plan.width) => {
                break if ledger.is_void(upper, loss_ratio) { End::Generator } else { End::Bracketed };
            }
            (Some(lower), Some(upper)) => between(ledger, lower, upper, loss_ratio),
            (Some(lower), None) if lower >= plan.max_pps => break End::Generator,
            (Some(lower), None) => ((lower as f64 * step).ceil() as u64).clamp(lower + 1, plan.max_pps),
            (None, Some(upper)) if upper <= plan.min_pps => break End::Floor,
            (None, Some(upper)) => below(ledger, upper, step).clamp(plan.min_pps, upper - 1),
            (None, None) => guess,
        };
        if lower.is_none() != upper.is_none() {
            step *= step;
        }
        while ledger.verdict(next, loss_ratio) == Verdict::Unsettled && !ledger.is_spent() {
            ledger.measure(next, loss_ratio)?;
        }
        if ledger.is_spent() {
            break End::Unfinished;
        }
    };
    let (lower, upper_pps) = ledger.bounds(loss_ratio);
    let received_pps = lower.and_then(|lower| ledger.received_pps(lower)).unwrap_or(0.0);
    Ok(Found { loss_ratio, pps: lower.unwrap_or(0), received_pps, upper_pps, end })
}

/// What another goal has begun to settle, else the geometric mean.
fn between<T: Tester + ?Sized>(ledger: &Ledger<'_, T>, lower: u64, upper: u64, loss_ratio: f64) -> u64 {
    let middle = (lower as f64 * upper as f64).sqrt() as u64;
    ledger.unsettled(lower, upper, loss_ratio).unwrap_or(middle).clamp(lower + 1, upper - 1)
}

/// A step down, or to what came through where that is less.
fn below<T: Tester + ?Sized>(ledger: &Ledger<'_, T>, upper: u64, step: f64) -> u64 {
    let down = upper as f64 / step;
    ledger.received_pps(upper).unwrap_or(down).min(down) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Direction, Sizes};
    use crate::search::{NDR_LOSS_RATIO, PDR_LOSS_RATIO, Votes, model::Model};

    fn plan() -> Plan {
        Plan {
            direction: Direction::Decrypt,
            sizes: Sizes::Fixed(1228),
            clients: 1,
            seconds: 1.0,
            loss_ratios: vec![NDR_LOSS_RATIO, PDR_LOSS_RATIO],
            width: 0.02,
            min_pps: 1_000,
            max_pps: 2_000_000,
            votes: Votes { pass: 1, fail: 2 },
            trials_max: 80,
        }
    }

    fn found(model: &mut Model, plan: &Plan) -> [Found; 2] {
        search(model, plan).unwrap().found.try_into().unwrap()
    }

    fn assert_near(pps: u64, expected: f64) {
        let ratio = pps as f64 / expected;
        assert!((0.97..=1.03).contains(&ratio), "{pps} is not near {expected}");
    }

    #[test]
    fn both_rates_converge_on_the_capacity() {
        for capacity_pps in [3_700, 150_000, 640_000, 1_000_000] {
            let mut model = Model::new(capacity_pps);
            let [ndr, pdr] = found(&mut model, &plan());
            assert_eq!((ndr.end, pdr.end), (End::Bracketed, End::Bracketed));
            assert_near(ndr.pps, capacity_pps as f64);
            assert_near(pdr.pps, capacity_pps as f64 * 1.005);
            assert!(ndr.pps <= pdr.pps && pdr.received_pps > 0.9 * pdr.pps as f64);
            assert!(ndr.upper_pps.unwrap() as f64 <= ndr.pps as f64 * 1.02);
            assert!(model.trials < 40, "{} trials", model.trials);
        }
    }

    #[test]
    fn early_losses_part_the_two_rates() {
        // A few packets are lost from half of the capacity on: never more than the partial drop rate allows.
        let mut model = Model { early_loss: Some((300_000, 0.001)), ..Model::new(600_000) };
        let [ndr, pdr] = found(&mut model, &plan());
        assert_near(ndr.pps, 300_000.0);
        assert_near(pdr.pps, 600_000.0);
    }

    #[test]
    fn lone_losses_do_not_lower_the_rate() {
        let ndr_pps = |each, fail| {
            let mut model = Model { blip_each: Some(each), ..Model::new(600_000) };
            let plan = Plan { votes: Votes { pass: 1, fail }, width: 0.001, ..plan() };
            found(&mut model, &plan)[0].pps
        };
        // Where one failure is enough, some hit a rate that is carried.
        let least = |fail| (2..8).map(|each| ndr_pps(each, fail)).min().unwrap();
        assert!(least(2) >= 599_000, "{}", least(2));
        assert!(least(1) < 599_000, "{}", least(1));
    }

    #[test]
    fn a_rate_above_the_lowest_that_fails_does_not_count() {
        // Between 200 and 250 kpps half of the packets are lost, above that none: a hole a search may step over, but
        // not when it has met it.
        let mut model = Model { hole: Some((200_000, 400_000)), ..Model::new(600_000) };
        let low = Plan { max_pps: 390_000, ..plan() };
        let [ndr, pdr] = found(&mut model, &low);
        assert!(ndr.pps <= 200_000 && pdr.pps <= 200_000, "{ndr:?} {pdr:?}");
        assert_eq!(ndr.end, End::Bracketed);
    }

    #[test]
    fn void_trials_are_repeated() {
        let mut model = Model { void_each: Some(3), ..Model::new(600_000) };
        let searched = search(&mut model, &plan()).unwrap();
        assert!(searched.void > 0);
        assert_near(searched.found[0].pps, 600_000.0);
        assert_eq!(searched.found[0].end, End::Bracketed);
    }

    #[test]
    fn a_gateway_that_outruns_the_generator_is_said_to() {
        // Above 1 Mpps the generator is late in every trial.
        let mut model = Model { generator_pps: 1_000_000, ..Model::new(5_000_000) };
        let [ndr, pdr] = found(&mut model, &plan());
        assert_eq!((ndr.end, pdr.end), (End::Generator, End::Generator));
        assert_near(ndr.pps, 1_000_000.0);
        // Or the plan ends before either does.
        let [ndr, _] = found(&mut Model::new(5_000_000), &Plan { max_pps: 500_000, ..plan() });
        assert_eq!((ndr.pps, ndr.end, ndr.upper_pps), (500_000, End::Generator, None));
    }

    #[test]
    fn a_gateway_that_always_loses_has_no_rate() {
        let mut model = Model { early_loss: Some((0, 0.01)), ..Model::new(600_000) };
        for found in found(&mut model, &plan()) {
            assert_eq!((found.pps, found.end, found.upper_pps), (0, End::Floor, Some(1_000)));
        }
    }

    #[test]
    fn trials_are_bounded() {
        let mut model = Model::new(600_000);
        let searched = search(&mut model, &Plan { trials_max: 5, width: 0.0001, ..plan() }).unwrap();
        assert!(searched.trials <= 5 && model.trials <= 5, "{searched:?}");
        assert!(searched.found.iter().all(|found| found.end == End::Unfinished));
    }

    #[test]
    fn a_failed_trial_ends_the_search() {
        let mut model = Model { dies_after: Some(3), ..Model::new(600_000) };
        assert!(search(&mut model, &plan()).unwrap_err().to_string().contains("died"));
    }

    #[test]
    fn a_plan_without_a_range_is_refused() {
        let error = search(&mut Model::new(1), &Plan { min_pps: 2, max_pps: 1, ..plan() }).unwrap_err();
        assert!(error.to_string().contains("range of rates"), "{error}");
    }
}
