//! What each stage of the engine costs, in nanoseconds per packet.
//!
//! A stage is run by itself over the packets of a whole pass, batch by batch as the engine does it and with the
//! engine's own functions on the engine's own tables; what it needs is prepared with the clock stopped, and the clock
//! is read twice per batch. The engine as a whole is timed the same way. What it costs beyond the sum of its stages is
//! shown as a stage of its own, so nothing is hidden; as stages alone have the caches and the compiler to themselves,
//! it is more than bookkeeping. Passes of all stages take turns, and each batch counts with its
//! shortest time.

mod inbound;
mod outbound;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aead::Aead;
use anyhow::{Context, Result, ensure};
use bench::load::Direction;
use bench::path::{Scenario, Stage, Stages};
use gateway::dataplane::classify::Roles;
use gateway::dataplane::engine::{BATCH_MAX, Engine};
use gateway::dataplane::tables::{DataSession, Path, SealingSession, Tables};
use gateway::io::{Frame, FramePool};

use crate::port::filled;
use crate::rig::frame_pool;
use crate::traffic::{Arrival, arrivals};
use crate::world::{DOWNLINK, NOW, UPLINK, World};

/// Everything stages are run on.
struct Bed {
    aead: Aead,
    world: World,
    /// The same clients with sessions of their own: stages that use a session up leave those of the engine alone.
    shadow: World,
    tables: Arc<Tables>,
    /// By client.
    opening: Vec<Arc<DataSession>>,
    /// By client.
    sealing: Vec<Arc<SealingSession>>,
    /// By client.
    paths: Vec<Path>,
    engine: Engine,
    pool: FramePool,
    arrivals: Vec<Arrival>,
}

/// What a stage took for each batch, on one pass over all arrivals.
type Pass = fn(&mut Bed) -> Vec<Duration>;

const INBOUND: &[(&str, Pass)] = &[
    ("parse, outer", inbound::classify_datagram),
    ("look-up, session", inbound::look_up_session),
    ("open", inbound::open),
    ("replay", inbound::replay),
    ("parse, inner", inbound::parse_inner),
    ("look-up, source", inbound::look_up_source),
    ("route", inbound::route),
];
const TO_LINK: &[(&str, Pass)] = &[("rewrite", inbound::rewrite)];
const OUTBOUND: &[(&str, Pass)] = &[
    ("look-up, peer", outbound::look_up_peer),
    ("reserve", outbound::reserve),
    ("seal", outbound::seal),
    ("encap", outbound::encap),
];
const PLAIN: &[(&str, Pass)] = &[("parse, plain", outbound::classify_packet)];

/// Measures all stages of `scenario`, `rounds` passes of `batch_count` full batches each.
///
/// # Errors
/// The system has no memory, or packets did not go where they should.
pub fn measure(aead: Aead, scenario: Scenario, rounds: usize, batch_count: usize) -> Result<Stages> {
    let passes: Vec<(&str, Pass)> = match scenario.direction {
        Direction::Encrypt => [PLAIN, OUTBOUND].concat(),
        Direction::Hairpin => [INBOUND, OUTBOUND].concat(),
        Direction::Decrypt | Direction::Bidirectional => [INBOUND, TO_LINK].concat(),
    };
    let mut bed = Bed::new(aead, scenario.clients)?;
    let mut best = vec![Best::default(); passes.len()];
    let mut best_engine = Best::default();
    for _ in 0..rounds {
        bed.arrivals =
            arrivals(&mut bed.world, scenario.direction, scenario.len.into(), batch_count * BATCH_MAX);
        for ((_, pass), best) in passes.iter().zip(&mut best) {
            best.keep(pass(&mut bed));
        }
        best_engine.keep(bed.engine_pass(scenario.direction)?);
    }
    let per_packet = |best: &Best| best.total().as_nanos() as f64 / (batch_count * BATCH_MAX) as f64;
    let stages = passes
        .iter()
        .zip(&best)
        .map(|((name, _), best)| Stage { name: (*name).into(), ns: per_packet(best) })
        .collect();
    Ok(Stages { scenario, stages, engine_ns: per_packet(&best_engine) })
}

/// The shortest time of each batch over all passes. All passes have the same clients in the same order; on a busy
/// machine hardly one goes through without an interruption, but each batch does in some.
#[derive(Clone, Default)]
struct Best(Vec<Duration>);

impl Best {
    fn keep(&mut self, times: Vec<Duration>) {
        if self.0.is_empty() {
            self.0 = times;
            return;
        }
        for (best, time) in self.0.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }

    fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

impl Bed {
    fn new(aead: Aead, client_count: u32) -> Result<Self> {
        let world = World::new(client_count)?;
        let engine = Engine::new(aead, Arc::clone(&world.shared), &[UPLINK, DOWNLINK]);
        let tables = world.shared.tables.load_full();
        let (mut opening, mut sealing, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        for client in &world.clients {
            let entry = tables.sessions.lookup(client.session.local_index());
            let entry = entry.context("a client has no session")?;
            sealing.push(entry.sending.clone().context("a client's session does not send")?);
            paths.push(entry.receiving.peer.path().context("a client has no endpoint")?);
            opening.push(Arc::clone(&entry.receiving));
        }
        let shadow = World::new(client_count)?;
        let pool = frame_pool()?;
        Ok(Self { aead, world, shadow, tables, opening, sealing, paths, engine, pool, arrivals: Vec::new() })
    }

    /// The engine as a worker runs it, from a burst of frames to frames to send.
    fn engine_pass(&mut self, direction: Direction) -> Result<Vec<Duration>> {
        let (mut frames, mut datagrams, mut packets) = (Vec::new(), Vec::new(), Vec::new());
        let (link, roles) = entrance(direction);
        let (mut times, mut sent) = (Vec::new(), 0);
        for batch in self.arrivals.chunks(BATCH_MAX) {
            load(&mut self.pool, batch, |arrival| &arrival.frame, &mut frames);
            let start = Instant::now();
            self.engine.classify(&mut self.pool, &mut frames, link, roles, &mut datagrams, &mut packets);
            self.engine.inbound(&mut self.pool, &mut datagrams, NOW);
            self.engine.outbound(&mut self.pool, &mut packets, NOW);
            times.push(start.elapsed());
            for link in &mut self.engine.egress().links {
                sent += link.frames.len();
                for frame in link.frames.drain(..) {
                    self.pool.release(frame);
                }
            }
        }
        self.world.read_mail();
        let expected = self.arrivals.len();
        ensure!(sent == expected, "the engine sent {sent} of {expected} packets");
        Ok(times)
    }

    /// Times `stage` on one batch after the other, in frames that hold these bytes of the arrivals.
    fn on_frames(
        &mut self,
        bytes: impl Fn(&Arrival) -> &[u8],
        mut stage: impl FnMut(&mut Tools<'_>, &mut Vec<Frame>, &[Arrival]),
    ) -> Vec<Duration> {
        let Self { aead, shadow, tables, opening, sealing, paths, engine, pool, arrivals, .. } = self;
        let mut frames = Vec::with_capacity(BATCH_MAX);
        let mut times = Vec::new();
        for batch in arrivals.chunks(BATCH_MAX) {
            load(pool, batch, &bytes, &mut frames);
            let mut tools = Tools { aead: *aead, shadow, tables, opening, sealing, paths, engine, pool };
            let start = Instant::now();
            stage(&mut tools, &mut frames, batch);
            times.push(start.elapsed());
            for frame in frames.drain(..) {
                pool.release(frame);
            }
        }
        times
    }
}

/// What a stage works with.
struct Tools<'a> {
    aead: Aead,
    shadow: &'a World,
    tables: &'a Tables,
    opening: &'a [Arc<DataSession>],
    sealing: &'a [Arc<SealingSession>],
    paths: &'a [Path],
    engine: &'a mut Engine,
    pool: &'a mut FramePool,
}

/// Where packets come in, and what they may be there.
fn entrance(direction: Direction) -> (u32, Roles) {
    match direction {
        Direction::Encrypt => (DOWNLINK, Roles { uplink: false, downlink: true }),
        _ => (UPLINK, Roles { uplink: true, downlink: false }),
    }
}

/// Puts these bytes of the arrivals of a batch into frames.
fn load(pool: &mut FramePool, batch: &[Arrival], bytes: impl Fn(&Arrival) -> &[u8], frames: &mut Vec<Frame>) {
    for arrival in batch {
        frames.push(filled(pool, bytes(arrival)).expect("the pool holds several batches"));
    }
}
