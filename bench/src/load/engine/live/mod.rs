//! Trials inside the kernel: frames are made by an XDP program's test run and enter the gateway's interface as a driver's
//! would, and what the gateway sends is taken down by a classifier before it is anybody's.
//!
//! ```text
//!  BPF_PROG_TEST_RUN ─► wgx_generate ─► clients' interface ═ veth ═ gateway ═ veth ═ server's ─► wgx_capture
//!  (this thread's CPU)   Departure, chunk                                                         Arrival, kept
//! ```
//!
//! Frames are written before the trial, with when they are due; the program copies one, notes when, and redirects it. So
//! a frame costs the generator a few hundred nanoseconds, and whoever sends to the sink hardly more than with a wire. What
//! arrived is understood after the trial, by the same code as over AF_XDP.

mod placement;
mod programs;

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use gateway_ebpf::load_layout::{CHUNK_LEN, Departure, Sending, TURNS};

pub use self::programs::program;

use self::placement::Placement;
use self::programs::{Programs, Room};
use super::run::{DRAIN_NS_MAX, GRACE_NS, QUIET_NS, Run};
use super::schedule::Lane;
use super::sink::{Sink, Taken};
use super::traffic::Traffic;
use crate::load::{Setup, Side};
use crate::media::clock::now_ns;
use crate::media::meter::{latency_histogram, record_latency};

/// Frames of a burst when all are due at once: what NAPI takes in one go, and fewer than a veth's queue holds.
const BURST: u32 = 64;
/// Frames due within so long leave together: at most that long a frame waits for the last of its burst.
const BURST_NS: u64 = 10_000;
/// What one invocation waits about before it gives up, in nanoseconds, at 8 a look at the clock. Where that is too much the
/// run ends early, and there is another.
const TURN_NS: u64 = TURNS as u64 * 8;
/// After as many arrivals as were sent, a trial ends when nothing has arrived for so long.
const SETTLING_NS: u64 = 20_000_000;
/// How often arrivals are looked for after sending.
const DRAIN_INTERVAL: Duration = Duration::from_millis(1);
/// Whole frames kept on each CPU: 64 MiB.
const KEPT_MAX: u32 = 1 << 15;
/// Chunks of a trial: 4 GiB.
const CHUNKS_MAX: u32 = 1 << 16;
/// Packets that arrive beside those of the trial: handshakes, keepalives.
const STRANGERS_MAX: u32 = 1 << 10;
/// Of so many packets that need not be opened one is kept, and compared.
const COMPARED_EVERY: u32 = 64;

/// Both interfaces, with programs that were last big enough.
pub struct LiveFrames {
    /// Targets 0 and 1.
    sides: [Side; 2],
    programs: Option<Programs>,
}

impl LiveFrames {
    /// Of a setup; nothing is loaded before the first trial.
    pub fn new(setup: &Setup) -> Self {
        Self { sides: [setup.clients.clone(), setup.server.clone()], programs: None }
    }

    /// Sends all there is to send and hands to `sink` what arrived. Returns how sending went, and how many arrivals there
    /// was no room for.
    ///
    /// # Errors
    /// The programs cannot be loaded or run.
    pub fn perform(
        &mut self,
        traffic: &mut Traffic<'_>,
        sink: &mut Sink,
        is_sealed: bool,
    ) -> Result<(Run, u64)> {
        let schedule = traffic.schedule();
        let is_paced = schedule.at_ns(0).is_some();
        let count = u32::try_from(schedule.count()).context("too many packets for one trial")?;
        let programs = self.programs(room(traffic, count)?)?;
        write_frames(programs, traffic)?;
        programs.begin_capture(count + STRANGERS_MAX, if is_sealed { 1 } else { COMPARED_EVERY })?;
        let duration_ns = schedule.duration_ns();
        let (duration_ns, burst, turns) = if is_paced {
            let in_a_burst = u64::from(count) * BURST_NS / duration_ns;
            (duration_ns + GRACE_NS, in_a_burst.clamp(1, BURST.into()) as u32, (duration_ns / TURN_NS) as u32)
        } else {
            (duration_ns, BURST, 0)
        };
        let sending = programs.send(count, duration_ns, burst, turns)?;
        let run = Run::of(&programs.departures.elements()?[..sending.next as usize], &sending, is_paced);
        drain(programs, run.sent)?;
        let dropped = hand_over(programs, sink)?;
        Ok((run, dropped))
    }

    /// Drops programs with room for more than so many bytes of frames.
    pub fn give_back(&mut self, len_max: usize) {
        self.programs.take_if(|programs| programs.room().chunks as usize * CHUNK_LEN > len_max);
    }

    /// Programs with this much room, at least.
    fn programs(&mut self, room: Room) -> Result<&mut Programs> {
        let programs = match self.programs.take() {
            Some(programs) if programs.room().holds(room) => programs,
            before => {
                drop(before);
                let [clients, server] = &self.sides;
                Programs::load([clients, server], room)?
            }
        };
        Ok(self.programs.insert(programs))
    }
}

impl Run {
    /// How sending went, by the departures whose time came.
    fn of(departures: &[Departure], sending: &Sending, is_paced: bool) -> Self {
        let start_ns = sending.start_ns;
        let mut run = Self {
            start_ns,
            sent_until_ns: departures.last().map_or(start_ns, |departure| departure.sent_ns),
            intended: u64::from(if is_paced { sending.count } else { sending.next }),
            sent: u64::from(sending.next - sending.failed),
            delay_ns: latency_histogram(),
            sent_at_ns: Vec::new(),
        };
        if is_paced {
            for departure in departures {
                record_latency(
                    &mut run.delay_ns,
                    departure.sent_ns.saturating_sub(start_ns + departure.due_ns),
                );
            }
        } else {
            run.sent_at_ns = departures.iter().map(|departure| departure.sent_ns).collect();
        }
        run
    }
}

/// What a trial takes.
fn room(traffic: &Traffic<'_>, count: u32) -> Result<Room> {
    let mut placement = Placement::default();
    let schedule = traffic.schedule();
    for sequence in 0..schedule.count() {
        placement.take(traffic.frame_len(schedule.packet(sequence)));
    }
    let chunks = placement.chunk_count();
    ensure!(
        chunks <= CHUNKS_MAX,
        "{count} packets take {chunks} chunks of 64 KiB, more than {CHUNKS_MAX}: use a shorter trial"
    );
    Ok(Room {
        departures: count,
        chunks,
        arrivals: count + STRANGERS_MAX,
        kept: count.clamp(1, KEPT_MAX) + STRANGERS_MAX,
    })
}

fn write_frames(programs: &mut Programs, traffic: &mut Traffic<'_>) -> Result<()> {
    let schedule = traffic.schedule();
    let (departures, chunks) = (programs.departures.elements_mut()?, programs.chunks.elements_mut()?);
    let mut placement = Placement::default();
    for (sequence, departure) in (0..schedule.count()).zip(departures) {
        let planned = schedule.packet(sequence);
        let len = traffic.frame_len(planned);
        let (chunk, offset) = placement.take(len);
        traffic.write(sequence, planned, &mut chunks[chunk as usize][offset..offset + len]);
        let target = u32::from(planned.lane == Lane::Down);
        let due_ns = schedule.at_ns(sequence).unwrap_or(0);
        *departure = Departure { due_ns, sent_ns: 0, chunk, offset: offset as u32, len: len as u32, target };
    }
    Ok(())
}

/// Waits until as much has arrived as was sent, or nothing comes any more.
fn drain(programs: &Programs, sent: u64) -> Result<()> {
    let start_ns = now_ns();
    let (mut last_ns, mut before) = (start_ns, 0);
    loop {
        let seen = programs.capturing()?.iter().map(|capturing| capturing.seen).sum();
        let now = now_ns();
        if seen > before {
            (last_ns, before) = (now, seen);
        }
        // As many as were sent may have a stranger among them.
        let quiet_ns = if seen >= sent { SETTLING_NS } else { QUIET_NS };
        if now > last_ns + quiet_ns || now > start_ns + DRAIN_NS_MAX {
            return Ok(());
        }
        sleep(DRAIN_INTERVAL);
    }
}

/// Shows everything that was taken down to the sink, in its order; returns how much there was no room for.
fn hand_over(programs: &mut Programs, sink: &mut Sink) -> Result<u64> {
    let ended = programs.end_capture()?;
    let (arrivals, kept) = (programs.arrivals.elements()?, programs.kept.elements()?);
    let mut all = Vec::new();
    let mut dropped = 0;
    for capturing in ended {
        let count = capturing.seen.min(capturing.room.into());
        dropped += capturing.seen - count;
        let of_cpu = &arrivals[capturing.first as usize..][..count as usize];
        all.extend((0u32..).zip(of_cpu).map(|(number, arrival)| {
            let is_kept = capturing.keep_every != 0 && number.is_multiple_of(capturing.keep_every);
            let kept_at = capturing.first_kept + number.checked_div(capturing.keep_every).unwrap_or(0);
            let whole = if is_kept { kept.get(kept_at as usize) } else { None };
            (arrival, whole.and_then(|frame| frame.get(..arrival.len as usize)))
        }));
    }
    all.sort_by_key(|(arrival, _)| arrival.at_ns);
    for (arrival, whole) in all {
        let taken = Taken { at_ns: arrival.at_ns, head: &arrival.head, whole };
        match arrival.interface {
            0 => sink.take_at_clients(taken),
            _ => sink.take_plain(taken),
        }
    }
    Ok(dropped)
}
