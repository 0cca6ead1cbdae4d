//! Which packet is due when, how long it is and whose: plain arithmetic over a trial.

use anyhow::{Result, ensure};

use super::packet::{IP_UDP_LEN, STAMP_LEN};
use crate::load::{Direction, Sizes, Trial};

/// Packets per second that a trial as fast as possible provides for: more than one core can put on a veth.
const OVERLOAD_PPS: f64 = 1_500_000.0;
/// Longest trial in seconds. Sessions are renewed before a trial, and must last through it.
const SECONDS_MAX: f64 = 60.0;
/// Shortest inner packet: headers and stamp.
const INNER_LEN_MIN: u16 = (IP_UDP_LEN + STAMP_LEN) as u16;

/// Simple IMIX, spread so that no two large ones follow each other.
const IMIX: [u16; 12] = [64, 570, 64, 64, 570, 64, 1420, 64, 570, 64, 570, 64];
/// Length of an Opus packet and of a video packet.
const AUDIO_LEN: u16 = 172;
const VIDEO_LEN: u16 = 1228;
/// 50 packets of audio and 286.5 of video a second (`media::Schedule`) are 4 to 23.
const MEDIA_CYCLE: usize = 27;

/// Which side of the gateway a packet is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// From a client, sealed.
    Up,
    /// From the server, plain.
    Down,
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Where it starts.
    pub lane: Lane,
    /// The client it comes from or, on [`Lane::Down`], goes to.
    pub client: u32,
    /// Length of the inner IP packet, in bytes.
    pub inner_len: u16,
}

/// All packets of a trial, by sequence number from 0.
#[derive(Debug, Clone)]
pub struct Schedule {
    direction: Direction,
    cycle: Vec<u16>,
    clients: u64,
    rate_pps: Option<u64>,
    duration_ns: u64,
    count: u64,
}

impl Schedule {
    /// The schedule of a trial; one as fast as possible has at most `overload_max` packets.
    ///
    /// # Errors
    /// What of the trial is impossible.
    pub fn new(trial: &Trial, mtu: u16, overload_max: u64) -> Result<Self> {
        let seconds = trial.seconds;
        ensure!(
            (0.001..=SECONDS_MAX).contains(&seconds),
            "{seconds} seconds: a trial takes 0.001 to {SECONDS_MAX}"
        );
        ensure!(trial.clients > 0, "a trial needs a client");
        ensure!(
            trial.direction != Direction::Hairpin || trial.clients > 1,
            "hairpin goes from one client to another: it needs two"
        );
        ensure!(trial.rate_pps != Some(0), "a rate of 0 sends nothing");
        let cycle = cycle(&trial.sizes);
        for len in &cycle {
            ensure!(
                (INNER_LEN_MIN..=mtu).contains(len),
                "packets of {len} bytes are not possible: {INNER_LEN_MIN} to {mtu}, the tunnel's MTU"
            );
        }
        let count = match trial.rate_pps {
            Some(rate) => (rate as f64 * seconds).round().max(1.0) as u64,
            None => ((OVERLOAD_PPS * seconds) as u64).clamp(1, overload_max),
        };
        Ok(Self {
            direction: trial.direction,
            cycle,
            clients: trial.clients.into(),
            rate_pps: trial.rate_pps,
            duration_ns: (seconds * 1e9) as u64,
            count,
        })
    }

    /// How many packets there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long they are sent, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    /// Longest inner packet.
    pub fn inner_len_max(&self) -> u16 {
        self.cycle.iter().copied().max().unwrap_or(INNER_LEN_MIN)
    }

    /// When packet `sequence` is due, in nanoseconds from the start; `None` when it is due as soon as it can be sent.
    pub fn at_ns(&self, sequence: u64) -> Option<u64> {
        // From the number of the packet, so that rounding never adds up.
        self.rate_pps.map(|rate| (u128::from(sequence) * 1_000_000_000 / u128::from(rate)) as u64)
    }

    /// How many packets are due `elapsed_ns` after the start.
    pub fn due(&self, elapsed_ns: u64) -> u64 {
        match self.rate_pps {
            Some(rate) => {
                let passed = (u128::from(elapsed_ns) + 1) * u128::from(rate);
                (passed.div_ceil(1_000_000_000) as u64).min(self.count)
            }
            None if elapsed_ns < self.duration_ns => self.count,
            None => 0,
        }
    }

    /// Packet `sequence`. Clients take turns, and so do sizes and, both ways, lanes.
    #[inline]
    pub fn packet(&self, sequence: u64) -> Planned {
        let (lane, turn) = match self.direction {
            Direction::Decrypt | Direction::Hairpin => (Lane::Up, sequence),
            Direction::Encrypt => (Lane::Down, sequence),
            Direction::Bidirectional if sequence.is_multiple_of(2) => (Lane::Up, sequence / 2),
            Direction::Bidirectional => (Lane::Down, sequence / 2),
        };
        let inner_len = match *self.cycle {
            [len] => len,
            _ => self.cycle[(turn % self.cycle.len() as u64) as usize],
        };
        let client = if self.clients == 1 { 0 } else { (turn % self.clients) as u32 };
        Planned { lane, client, inner_len }
    }

    /// The client that a packet which one client sends through the gateway is for; `None` when it is for the server.
    #[inline]
    pub fn hairpin_to(&self, client: u32) -> Option<u32> {
        (self.direction == Direction::Hairpin).then(|| ((u64::from(client) + 1) % self.clients) as u32)
    }
}

fn cycle(sizes: &Sizes) -> Vec<u16> {
    match sizes {
        Sizes::Fixed(len) => vec![*len],
        Sizes::Imix => IMIX.to_vec(),
        Sizes::Media => {
            (0..MEDIA_CYCLE).map(|index| if index % 7 == 0 { AUDIO_LEN } else { VIDEO_LEN }).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(direction: Direction, rate_pps: Option<u64>) -> Trial {
        Trial { direction, sizes: Sizes::Fixed(200), clients: 3, rate_pps, seconds: 2.0, is_watched: false }
    }

    fn schedule(trial: &Trial) -> Schedule {
        Schedule::new(trial, 1420, 1_000_000).unwrap()
    }

    #[test]
    fn as_many_are_due_as_have_come_of_age() {
        for rate in [1, 7, 1_000, 33_333, 999_999, 1_000_000] {
            let schedule = schedule(&trial(Direction::Decrypt, Some(rate)));
            assert_eq!(schedule.count(), 2 * rate);
            for sequence in [0, 1, rate / 2, rate, 2 * rate - 1] {
                let at_ns = schedule.at_ns(sequence).unwrap();
                assert!(schedule.due(at_ns) > sequence, "{sequence} of {rate}");
                assert!(at_ns == 0 || schedule.due(at_ns - 1) <= sequence, "{sequence} of {rate}");
            }
            assert_eq!(schedule.due(u64::MAX / 2), schedule.count());
        }
    }

    #[test]
    fn as_fast_as_possible_ends_with_the_time_or_the_packets() {
        let schedule = schedule(&trial(Direction::Decrypt, None));
        assert_eq!((schedule.due(0), schedule.due(schedule.duration_ns())), (1_000_000, 0));
        assert_eq!(schedule.at_ns(5), None);
    }

    #[test]
    fn clients_take_turns_and_so_do_the_ways() {
        let both = schedule(&trial(Direction::Bidirectional, Some(10)));
        let turns: Vec<_> =
            (0..7).map(|sequence| both.packet(sequence)).map(|p| (p.lane, p.client)).collect();
        let (up, down) = (Lane::Up, Lane::Down);
        assert_eq!(turns, [(up, 0), (down, 0), (up, 1), (down, 1), (up, 2), (down, 2), (up, 0)]);
        let hairpin = schedule(&trial(Direction::Hairpin, Some(10)));
        assert_eq!([0, 1, 2].map(|client| hairpin.hairpin_to(client)), [Some(1), Some(2), Some(0)]);
        assert_eq!(both.hairpin_to(0), None);
    }

    #[test]
    fn mixes_have_their_shares() {
        let imix = cycle(&Sizes::Imix);
        let count = |len| imix.iter().filter(|other| **other == len).count();
        assert_eq!([count(64), count(570), count(1420)], [7, 4, 1]);
        let media = cycle(&Sizes::Media);
        let audio = media.iter().filter(|len| **len == AUDIO_LEN).count();
        assert_eq!((audio, media.len() - audio), (4, 23));
    }

    #[test]
    fn impossible_trials_are_refused_with_the_reason() {
        let refused = |change: fn(&mut Trial)| {
            let mut trial = trial(Direction::Hairpin, Some(10));
            change(&mut trial);
            Schedule::new(&trial, 1420, 10).unwrap_err().to_string()
        };
        assert!(refused(|trial| trial.clients = 1).contains("needs two"));
        assert!(refused(|trial| trial.clients = 0).contains("needs a client"));
        assert!(refused(|trial| trial.rate_pps = Some(0)).contains("rate of 0"));
        assert!(refused(|trial| trial.seconds = f64::NAN).contains("NaN"));
        assert!(refused(|trial| trial.sizes = Sizes::Fixed(43)).contains("43 bytes"));
        assert!(refused(|trial| trial.sizes = Sizes::Fixed(1421)).contains("1421 bytes"));
    }
}
