//! A gateway that is arithmetic: for tests of what asks for trials, without a gateway or a generator.

use anyhow::{Result, bail};

use super::Tester;
use crate::{
    load::{Outcome, SEND_DELAY_MAX_US, Trial},
    media::{Latency, Percentile},
};

/// A queue before a server of constant speed.
///
/// The optional quirks are what real gateways and machines do to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Packets per second it carries.
    pub capacity_pps: u64,
    /// Packets that wait at most.
    pub queue: u64,
    /// One-way latency of a packet that does not wait, in microseconds.
    pub base_us: f64,
    /// The generator's own limit, in packets per second.
    pub generator_pps: u64,
    /// From this rate on, this share of the packets is lost.
    pub early_loss: Option<(u64, f64)>,
    /// Each trial of this number loses one packet in a hundred.
    pub blip_each: Option<u32>,
    /// In each trial of this number the generator is late, and loses packets by it.
    pub void_each: Option<u32>,
    /// From the first rate to the second half of the packets are lost.
    pub hole: Option<(u64, u64)>,
    /// It ends after so many trials.
    pub dies_after: Option<u32>,
    /// Trials run.
    pub trials: u32,
}

impl Model {
    /// Without quirks.
    pub fn new(capacity_pps: u64) -> Self {
        Self {
            capacity_pps,
            queue: 256,
            base_us: 20.0,
            generator_pps: 2_000_000,
            early_loss: None,
            blip_each: None,
            void_each: None,
            hole: None,
            dies_after: None,
            trials: 0,
        }
    }

    fn is_turn(&self, each: Option<u32>) -> bool {
        each.is_some_and(|each| self.trials.is_multiple_of(each))
    }

    fn loss_ratio(&self, rate_pps: f64) -> f64 {
        let overload = (1.0 - self.capacity_pps as f64 / rate_pps).max(0.0);
        let early =
            self.early_loss.filter(|(from, _)| rate_pps >= *from as f64).map_or(0.0, |(_, share)| share);
        let blip = if self.is_turn(self.blip_each) || self.is_turn(self.void_each) { 0.01 } else { 0.0 };
        let hole = self.hole.is_some_and(|(from, to)| (from as f64..to as f64).contains(&rate_pps));
        overload.max(early).max(blip).max(if hole { 0.5 } else { 0.0 })
    }
}

impl Tester for Model {
    fn trial(&mut self, trial: &Trial) -> Result<Outcome> {
        self.trials += 1;
        if self.dies_after.is_some_and(|after| self.trials > after) {
            bail!("the model died");
        }
        let wanted = trial.rate_pps.unwrap_or(self.generator_pps) as f64;
        let rate_pps = wanted.min(self.generator_pps as f64);
        let intended = (wanted * trial.seconds) as u64;
        let sent = (rate_pps * trial.seconds) as u64;
        let lost = (sent as f64 * self.loss_ratio(rate_pps)).round() as u64;
        let received = sent - lost.min(sent);
        let is_late = wanted > rate_pps || self.is_turn(self.void_each);
        let waiting_us = if lost > 0 { self.queue as f64 / self.capacity_pps as f64 * 1e6 } else { 0.0 };
        let latency_us = self.base_us + waiting_us;
        Ok(Outcome {
            trial: trial.clone(),
            intended,
            sent,
            received,
            lost,
            reordered: 0,
            duplicates: 0,
            elapsed_seconds: trial.seconds,
            received_pps: received as f64 / trial.seconds,
            send_delay_p99_us: if is_late { 2.0 * SEND_DELAY_MAX_US } else { 1.0 },
            latency: Some(latency(self.base_us, latency_us)),
            jitter_us: waiting_us / 10.0,
            pdv_p99_9_us: waiting_us,
            percentiles: [50.0, 90.0, 99.0, 99.9, 100.0]
                .map(|percentile| Percentile { percentile, latency_us })
                .to_vec(),
            sink_drops: 0,
            corrupt: 0,
            latency_samples: received,
            held_up: None,
        })
    }
}

/// Half of the packets do not wait, the others all that long.
fn latency(base_us: f64, tail_us: f64) -> Latency {
    Latency {
        min_us: base_us,
        mean_us: f64::midpoint(base_us, tail_us),
        p50_us: base_us,
        p90_us: tail_us,
        p99_us: tail_us,
        p99_9_us: tail_us,
        max_us: tail_us,
        pdv_us: tail_us - base_us,
    }
}
