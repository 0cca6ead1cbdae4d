//! What is known of each rate so far: the losses of its trials, and which way they vote.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Plan, Tester};
use crate::load::Outcome;

/// A trial that is void and beyond the goal is repeated so often; after that it stands, as a rate the generator cannot
/// keep. One within the goal counts, void or not: packets that came late and in bursts were carried all the same.
const VOID_REPEATS: u32 = 2;

/// How many trials it takes to settle whether a rate is carried.
///
/// On a machine that others share, a single loss says little: a trial in which the hypervisor took the core away is
/// no property of the gateway. `MLRsearch` lets half of the trials exceed the goal for that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// Trials within the goal that make a rate carried.
    pub pass: u32,
    /// Trials beyond it that make it not carried.
    pub fail: u32,
}

/// One trial, as far as the search needs it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    loss_ratio: f64,
    received_pps: f64,
    is_void: bool,
}

/// Which way the trials at a rate have gone for one goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Carried,
    Exceeded,
    Unsettled,
}

/// All trials of a search.
pub(super) struct Ledger<'a, T: ?Sized> {
    tester: &'a mut T,
    plan: &'a Plan,
    by_rate: BTreeMap<u64, Vec<Entry>>,
    pub(super) trial_count: u32,
    pub(super) void_count: u32,
}

impl<'a, T: Tester + ?Sized> Ledger<'a, T> {
    pub(super) fn new(tester: &'a mut T, plan: &'a Plan) -> Self {
        Self { tester, plan, by_rate: BTreeMap::new(), trial_count: 0, void_count: 0 }
    }

    /// As fast as the generator can: the first guess. It settles nothing, as CSIT's warm-up trial does not.
    pub(super) fn flood(&mut self) -> Result<Outcome> {
        self.trial_count += 1;
        self.tester.trial(&self.plan.trial(None))
    }

    /// Adds a trial at a rate, for a goal.
    pub(super) fn measure(&mut self, rate_pps: u64, loss_ratio: f64) -> Result<()> {
        let trial = self.plan.trial(Some(rate_pps));
        let mut repeats = 0;
        let (outcome, is_void) = loop {
            self.trial_count += 1;
            let outcome = self.tester.trial(&trial)?;
            let is_void = outcome.void().is_some();
            self.void_count += u32::from(is_void);
            let says_something = !is_void || outcome.loss_ratio() <= loss_ratio;
            if says_something || repeats == VOID_REPEATS || self.is_spent() {
                break (outcome, is_void);
            }
            repeats += 1;
        };
        let entry = Entry { loss_ratio: outcome.loss_ratio(), received_pps: outcome.received_pps, is_void };
        self.by_rate.entry(rate_pps).or_default().push(entry);
        Ok(())
    }

    pub(super) fn verdict(&self, rate_pps: u64, loss_ratio: f64) -> Verdict {
        let entries = self.by_rate.get(&rate_pps).map_or(&[][..], Vec::as_slice);
        // What was void to the end is beyond the generator: more trials would not change it.
        if entries.iter().any(|entry| entry.is_void && entry.loss_ratio > loss_ratio) {
            return Verdict::Exceeded;
        }
        let passed = entries.iter().filter(|entry| entry.loss_ratio <= loss_ratio).count() as u32;
        let failed = entries.len() as u32 - passed;
        if failed >= self.plan.votes.fail.max(1) {
            Verdict::Exceeded
        } else if passed >= self.plan.votes.pass.max(1) {
            Verdict::Carried
        } else {
            Verdict::Unsettled
        }
    }

    /// The highest rate carried below the lowest that is not, and that one.
    ///
    /// Losses ought to grow with the rate. Where they do not, what is above the lowest failure does not count:
    /// RFC 2544's throughput is a rate below which all rates are carried.
    pub(super) fn bounds(&self, loss_ratio: f64) -> (Option<u64>, Option<u64>) {
        let with = |verdict| {
            self.by_rate.keys().copied().filter(move |&rate| self.verdict(rate, loss_ratio) == verdict)
        };
        let upper = with(Verdict::Exceeded).min();
        let lower = with(Verdict::Carried).filter(|&rate| upper.is_none_or(|upper| rate < upper)).max();
        (lower, upper)
    }

    /// The highest rate between the bounds that another goal has begun to settle.
    pub(super) fn unsettled(&self, lower: u64, upper: u64, loss_ratio: f64) -> Option<u64> {
        let mut between = self.by_rate.range(lower + 1..upper).map(|(&rate, _)| rate).rev();
        between.find(|&rate| self.verdict(rate, loss_ratio) == Verdict::Unsettled)
    }

    /// Whether the generator, not the gateway, is what does not do this rate.
    pub(super) fn is_void(&self, rate_pps: u64, loss_ratio: f64) -> bool {
        let entries = self.by_rate.get(&rate_pps).map_or(&[][..], Vec::as_slice);
        entries.iter().any(|entry| entry.is_void && entry.loss_ratio > loss_ratio)
    }

    /// What arrived at a rate, in packets per second: the median of its trials.
    pub(super) fn received_pps(&self, rate_pps: u64) -> Option<f64> {
        let mut received: Vec<f64> =
            self.by_rate.get(&rate_pps)?.iter().map(|entry| entry.received_pps).collect();
        received.sort_by(f64::total_cmp);
        received.get(received.len() / 2).copied()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.trial_count >= self.plan.trials_max
    }
}
