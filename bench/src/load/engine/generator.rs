//! The load generator: both ends, the clients' sessions, and trials one after the other.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use aead::Aead;
use anyhow::{Context as _, Result, ensure};

use super::account::Account;
use super::held_up::held_up;
use super::live::LiveFrames;
use super::port::Port;
use super::run::Run;
use super::schedule::Schedule;
use super::sessions::Sessions;
use super::sink::Sink;
use super::slices::Slices;
use super::traffic::{SEALED_LEN_MAX, Traffic, datagram_len};
use crate::load::{Direction, Driver, Outcome, Ready, Setup, Side, Sizes, Trial};
use crate::media::{Latency, Percentile};

/// Without a tunnel, whose MTU would bound them: what fits into an Ethernet MTU of 1500 when sealed.
const PLAIN_MTU: u16 = 1420;
/// Packets a second before a trial.
const WARM_UP_PPS: u64 = 20_000;
/// How often that is tried.
const WARM_UP_ATTEMPTS: u32 = 10;
/// Time for a gateway to take note of the neighbours it has found.
const SETTLING: Duration = Duration::from_millis(150);
/// Bytes of packets, before they are sent and while they are, that a generator keeps from one trial to the next.
const KEPT_LEN_MAX: usize = 1 << 30;
/// What a trial takes beside its sending, for the age of sessions.
const OVERHEAD_SECONDS: f64 = 15.0;

/// What packets come and go by.
enum Ends {
    /// Both sides, the clients' first.
    AfXdp(Box<[Port; 2]>),
    LiveFrames(Box<LiveFrames>),
}

impl Ends {
    /// Sends all there is to send and hands to `sink` what arrived. Returns how sending went, and how many arrivals there
    /// was no room for.
    fn perform(&mut self, traffic: &mut Traffic<'_>, sink: &mut Sink, is_sealed: bool) -> Result<(Run, u64)> {
        match self {
            Self::AfXdp(ports) => {
                let [clients, server] = &mut **ports;
                let drops_before = clients.drops() + server.drops();
                let run = Run::perform(traffic, clients, server, sink);
                Ok((run, clients.drops() + server.drops() - drops_before))
            }
            Self::LiveFrames(live) => live.perform(traffic, sink, is_sealed),
        }
    }
}

/// A generator in its place.
pub struct Generator {
    setup: Setup,
    ends: Ends,
    sessions: Sessions,
    sink: Sink,
    slices: Option<Slices>,
    sealed: Vec<u8>,
    aead: Aead,
    trial_count: u32,
    /// Ways that packets have gone before.
    known: Vec<Direction>,
}

impl Generator {
    /// Opens both interfaces and does the handshakes of all clients.
    ///
    /// # Errors
    /// The setup is wrong, an interface cannot be had, or the gateway does not answer.
    pub fn new(setup: Setup) -> Result<(Self, Ready)> {
        setup.check()?;
        let ends = match setup.driver {
            Driver::AfXdp => {
                Ends::AfXdp(Box::new([open(&setup, &setup.clients)?, open(&setup, &setup.server)?]))
            }
            Driver::LiveFrames => Ends::LiveFrames(Box::new(LiveFrames::new(&setup))),
        };
        let mut generator = Self {
            ends,
            sessions: Sessions::new(setup.client_count),
            sink: Sink::default(),
            slices: None,
            sealed: Vec::new(),
            aead: Aead::detect(),
            trial_count: 0,
            known: Vec::new(),
            setup,
        };
        let start = Instant::now();
        let handshakes = generator.renew(generator.setup.client_count, 0.0)?;
        let ready = Ready { handshakes, handshake_seconds: start.elapsed().as_secs_f64() };
        Ok((generator, ready))
    }

    /// Runs a trial: renews sessions that would not last, warms the path up, seals, sends, receives and accounts.
    ///
    /// # Errors
    /// The trial is impossible, or nothing at all crosses the gateway.
    pub fn trial(&mut self, trial: &Trial) -> Result<Outcome> {
        let (count, available) = (trial.clients, self.setup.client_count);
        ensure!(count <= available, "{count} clients: there are {available}");
        ensure!(
            self.setup.tunnel.is_some() || trial.direction != Direction::Hairpin,
            "hairpin takes a tunnel: plain packets have nobody to turn them round"
        );
        self.renew(count, trial.seconds)?;
        self.warm_up(trial)?;
        let outcome = self.perform(trial);
        self.give_back();
        outcome
    }

    /// Leaves the memory that a long trial took to the generators of others, which are measured in turns with this one.
    fn give_back(&mut self) {
        if self.sealed.capacity() > KEPT_LEN_MAX {
            self.sealed = Vec::new();
        }
        if let Ends::LiveFrames(live) = &mut self.ends {
            live.give_back(KEPT_LEN_MAX);
        }
    }

    fn renew(&mut self, count: u32, seconds: f64) -> Result<u32> {
        let Some(tunnel) = &self.setup.tunnel else { return Ok(0) };
        let lasting_ns = ((seconds + OVERHEAD_SECONDS) * 1e9) as u64;
        let stale = self.sessions.stale(count, lasting_ns);
        let stale_count = stale.len() as u32;
        if stale_count > 0 {
            let mut opened;
            let clients = match &mut self.ends {
                Ends::AfXdp(ports) => &mut ports[0],
                // Only for as long as there are handshakes: the socket would be in the way of the capture.
                Ends::LiveFrames(_) => {
                    opened = open(&self.setup, &self.setup.clients)?;
                    &mut opened
                }
            };
            self.sessions.renew(stale, &self.setup, tunnel, clients)?;
        }
        Ok(stale_count)
    }

    /// A packet from each client, so that the gateway knows its neighbours and may use all sessions, and if the trial
    /// goes the other way, one to each.
    fn warm_up(&mut self, trial: &Trial) -> Result<()> {
        let other = match trial.direction {
            Direction::Decrypt => None,
            Direction::Encrypt | Direction::Bidirectional => Some(Direction::Encrypt),
            Direction::Hairpin => Some(Direction::Hairpin),
        };
        for direction in [Some(Direction::Decrypt), other].into_iter().flatten() {
            let seconds = f64::from(trial.clients) / WARM_UP_PPS as f64;
            let warm_up = Trial {
                direction,
                sizes: Sizes::Fixed(100),
                clients: trial.clients,
                rate_pps: Some(WARM_UP_PPS),
                seconds: seconds.max(0.001),
                is_watched: false,
            };
            let mut attempts = 0;
            while self.perform(&warm_up)?.received == 0 {
                attempts += 1;
                ensure!(
                    attempts < WARM_UP_ATTEMPTS,
                    "nothing crosses the gateway ({direction:?}): are routes and allowed IPs in place?"
                );
            }
            if !self.known.contains(&direction) {
                self.known.push(direction);
                sleep(SETTLING);
            }
        }
        Ok(())
    }

    fn perform(&mut self, trial: &Trial) -> Result<Outcome> {
        let mtu = self.setup.tunnel.as_ref().map_or(PLAIN_MTU, |tunnel| tunnel.mtu);
        let longest = Schedule::new(trial, mtu, 1)?.inner_len_max();
        let datagram_len = datagram_len(longest, mtu);
        let schedule = Schedule::new(trial, mtu, (SEALED_LEN_MAX / datagram_len) as u64)?;
        self.trial_count = self.trial_count.wrapping_add(1);
        let mut traffic = Traffic::prepare(
            &self.setup,
            &schedule,
            &self.sessions,
            self.aead,
            self.trial_count,
            &mut self.sealed,
        )?;
        let is_sampled = matches!(self.ends, Ends::LiveFrames(_));
        let is_tunnel = self.setup.tunnel.is_some();
        self.sink.begin(self.trial_count, is_tunnel, is_sampled, schedule.count(), datagram_len);
        let (ends, sink) = (&mut self.ends, &mut self.sink);
        let mut send =
            || ends.perform(&mut traffic, sink, is_tunnel && trial.direction != Direction::Decrypt);
        let (sent, pauses) = if trial.is_watched {
            let (sent, pauses) = watch(&mut self.slices, &self.setup)?.during(send)?;
            (sent, Some(pauses))
        } else {
            (send(), None)
        };
        let (run, sink_drops) = sent?;
        let (arrivals, corrupt) = self
            .sink
            .conclude(&schedule, &self.sessions, self.aead, |sequence| run.intended_ns(&traffic, sequence));
        let account = Account::of(&arrivals, run.sent_until_ns);
        let held_up = pauses.map(|pauses| held_up(&arrivals, pauses));
        Ok(Outcome { held_up, ..outcome(trial, &run, &account, sink_drops, corrupt) })
    }
}

/// What sees others, loaded when it is needed first.
fn watch<'a>(slices: &'a mut Option<Slices>, setup: &Setup) -> Result<&'a mut Slices> {
    let watched = setup.watched.as_ref().context("whom to watch is not in the setup")?;
    let loaded = match slices.take() {
        Some(loaded) => loaded,
        None => Slices::load(watched.clone())?,
    };
    Ok(slices.insert(loaded))
}

fn open(setup: &Setup, side: &Side) -> Result<Port> {
    Port::open(side.namespace.as_deref(), &side.interface, setup.queue_count)
        .with_context(|| format!("cannot use interface {}", side.interface))
}

fn outcome(trial: &Trial, run: &Run, account: &Account, sink_drops: u64, corrupt: u64) -> Outcome {
    let latency = Latency::of(&account.latency_ns);
    let last_ns = account.last_ns.unwrap_or(run.start_ns);
    let sending_seconds = (run.sent_until_ns - run.start_ns) as f64 / 1e9;
    Outcome {
        trial: trial.clone(),
        intended: run.intended,
        sent: run.sent,
        received: account.received,
        lost: run.sent.saturating_sub(account.received),
        reordered: account.reordered,
        duplicates: account.duplicates,
        elapsed_seconds: last_ns.saturating_sub(run.start_ns) as f64 / 1e9,
        received_pps: account.received_in_time as f64 / sending_seconds.max(trial.seconds.min(0.001)),
        sink_drops,
        corrupt,
        latency_samples: account.latency_ns.len(),
        send_delay_p99_us: microseconds(run.delay_ns.value_at_quantile(0.99)),
        latency,
        jitter_us: account.jitter_ns / 1e3,
        pdv_p99_9_us: latency.map_or(0.0, |latency| latency.p99_9_us - latency.min_us),
        percentiles: Percentile::of(&account.latency_ns),
        held_up: None,
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}
