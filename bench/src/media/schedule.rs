//! What is sent when, as plain arithmetic: no clock, no socket.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::packet::{HEADER_LEN, Kind};

const RTP_HEADER_LEN: usize = 12;
const SECOND_NS: u64 = 1_000_000_000;

/// Opus at 64 kb/s in 20 ms packets; its RTP clock runs at 48 kHz (RFC 7587).
const AUDIO_PERIOD_NS: u64 = 20_000_000;
const AUDIO_PAYLOAD_LEN: usize = 160;
const AUDIO_CLOCK_TICKS: u64 = 960;

/// 30 frames/s, a keyframe of five times the size every two seconds, 2.5 Mb/s of RTP payload in all; the RTP clock
/// of video runs at 90 kHz.
const VIDEO_FRAMES_PER_SECOND: u64 = 30;
const VIDEO_FRAMES_PER_KEYFRAME: u64 = 60;
const VIDEO_DELTA_FRAME_LEN: usize = 9_766;
const VIDEO_KEYFRAME_LEN: usize = 48_828;
const VIDEO_PAYLOAD_LEN_MAX: usize = 1_200 - RTP_HEADER_LEN;
const VIDEO_CLOCK_TICKS: u64 = 3_000;

/// A flood sends what is due in one go at this interval: smooth enough for any queue, and few wake-ups.
const FLOOD_TICK_NS: u64 = 500_000;

/// What each participant sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// 50 packets/s of 160 bytes of RTP payload.
    Audio,
    /// 2.5 Mb/s of RTP payload: 30 frames/s, each a burst of packets of up to 1200 bytes.
    Video,
    /// Both.
    Conference,
}

/// One packet that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emission {
    /// Time since the start of the schedule.
    pub at: Duration,
    /// What the stream carries.
    pub kind: Kind,
    /// The stream's number in this schedule.
    pub stream: u32,
    /// Index of the packet in its stream.
    pub sequence: u64,
    /// RTP timestamp in the media's clock.
    pub timestamp: u32,
    /// Last packet of a frame.
    pub marker: bool,
    /// Length in bytes of the whole UDP payload.
    pub payload_len: usize,
}

/// All packets of a run in the order of their times: an iterator of [`Emission`].
#[derive(Debug, Clone)]
pub struct Schedule {
    duration_ns: u64,
    sources: Vec<Source>,
    /// (time of the next packet, index of its source), earliest first.
    due: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Schedule {
    /// Media of `participant_count` participants. Their first packets are spread over a period, as in life.
    pub fn media(profile: Profile, participant_count: u32, duration: Duration) -> Self {
        let kinds: &[Kind] = match profile {
            Profile::Audio => &[Kind::Audio],
            Profile::Video => &[Kind::Video],
            Profile::Conference => &[Kind::Audio, Kind::Video],
        };
        let sources = (0..participant_count)
            .flat_map(|participant| kinds.iter().map(move |&kind| (participant, kind)))
            .enumerate()
            .map(|(stream, (participant, kind))| {
                // Multiples of the golden ratio spread evenly over the period for any number of participants.
                let fraction = u64::from(participant.wrapping_mul(0x9e37_79b9));
                let (phase_ns, pattern) = match kind {
                    Kind::Audio => ((AUDIO_PERIOD_NS * fraction) >> 32, Pattern::Audio),
                    _ => ((SECOND_NS / VIDEO_FRAMES_PER_SECOND * fraction) >> 32, Pattern::Video),
                };
                Source::new(stream as u32, phase_ns, pattern)
            })
            .collect();
        Self::new(sources, duration)
    }

    /// A constant rate of packets of `payload_len` bytes of UDP payload (at least [`HEADER_LEN`]).
    pub fn flood(packets_per_second: u32, payload_len: usize, duration: Duration) -> Self {
        let pattern = Pattern::Flood {
            packets_per_second: u64::from(packets_per_second.max(1)),
            payload_len: payload_len.max(HEADER_LEN),
        };
        Self::new(vec![Source::new(0, 0, pattern)], duration)
    }

    fn new(sources: Vec<Source>, duration: Duration) -> Self {
        let due =
            sources.iter().enumerate().map(|(index, source)| Reverse((source.at_ns(), index))).collect();
        Self { duration_ns: duration.as_nanos() as u64, sources, due }
    }

    /// How long the schedule runs.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns)
    }

    /// What each stream carries, in the order of their numbers, from 0.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.sources.iter().map(|source| source.pattern.kind())
    }
}

impl Iterator for Schedule {
    type Item = Emission;

    fn next(&mut self) -> Option<Emission> {
        let mut first = self.due.peek_mut()?;
        let Reverse((at_ns, index)) = *first;
        if at_ns >= self.duration_ns {
            return None;
        }
        let source = &mut self.sources[index];
        let emission = source.emit();
        *first = Reverse((source.at_ns(), index));
        Some(emission)
    }
}

/// How a stream's packets follow each other.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    Audio,
    Video,
    Flood { packets_per_second: u64, payload_len: usize },
}

impl Pattern {
    fn kind(self) -> Kind {
        match self {
            Self::Audio => Kind::Audio,
            Self::Video => Kind::Video,
            Self::Flood { .. } => Kind::Flood,
        }
    }
}

#[derive(Debug, Clone)]
struct Source {
    stream: u32,
    phase_ns: u64,
    pattern: Pattern,
    sequence: u64,
    /// The frame that the next packet belongs to, and its place there.
    frame: u64,
    packet_in_frame: usize,
}

impl Source {
    fn new(stream: u32, phase_ns: u64, pattern: Pattern) -> Self {
        Self { stream, phase_ns, pattern, sequence: 0, frame: 0, packet_in_frame: 0 }
    }

    /// When the next packet is due; from its index, so that rounding never adds up.
    fn at_ns(&self) -> u64 {
        let offset_ns = match self.pattern {
            Pattern::Audio => self.frame * AUDIO_PERIOD_NS,
            Pattern::Video => self.frame * SECOND_NS / VIDEO_FRAMES_PER_SECOND,
            Pattern::Flood { packets_per_second, .. } => {
                let exact_ns =
                    (u128::from(self.frame) * u128::from(SECOND_NS) / u128::from(packets_per_second)) as u64;
                exact_ns - exact_ns % FLOOD_TICK_NS
            }
        };
        self.phase_ns + offset_ns
    }

    fn emit(&mut self) -> Emission {
        let (frame_packet_count, payload_len, ticks) = match self.pattern {
            Pattern::Audio => (1, RTP_HEADER_LEN + AUDIO_PAYLOAD_LEN, AUDIO_CLOCK_TICKS),
            Pattern::Flood { payload_len, .. } => (1, payload_len, 1),
            Pattern::Video => {
                let keyframe = self.frame.is_multiple_of(VIDEO_FRAMES_PER_KEYFRAME);
                let frame_len = if keyframe { VIDEO_KEYFRAME_LEN } else { VIDEO_DELTA_FRAME_LEN };
                let count = frame_len.div_ceil(VIDEO_PAYLOAD_LEN_MAX);
                // Cut evenly: the first packets carry one byte more where the length does not divide.
                let len = frame_len / count + usize::from(self.packet_in_frame < frame_len % count);
                (count, RTP_HEADER_LEN + len, VIDEO_CLOCK_TICKS)
            }
        };
        let marker = self.packet_in_frame + 1 == frame_packet_count;
        let emission = Emission {
            at: Duration::from_nanos(self.at_ns()),
            kind: self.pattern.kind(),
            stream: self.stream,
            sequence: self.sequence,
            timestamp: (self.frame * ticks) as u32,
            marker,
            payload_len,
        };
        self.sequence += 1;
        if marker {
            self.frame += 1;
            self.packet_in_frame = 0;
        } else {
            self.packet_in_frame += 1;
        }
        emission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(profile: Profile, participant_count: u32, seconds: u64) -> Vec<Emission> {
        Schedule::media(profile, participant_count, Duration::from_secs(seconds)).collect()
    }

    fn rtp_payload_bits(emissions: &[Emission]) -> f64 {
        emissions.iter().map(|emission| (emission.payload_len - RTP_HEADER_LEN) as f64 * 8.0).sum()
    }

    #[test]
    fn audio_is_50_packets_of_172_bytes_per_second_and_participant() {
        let emissions = media(Profile::Audio, 3, 10);
        assert_eq!(emissions.len(), 3 * 50 * 10);
        assert!(emissions.iter().all(|emission| emission.payload_len == 172 && emission.kind == Kind::Audio));
    }

    #[test]
    fn video_is_two_and_a_half_megabits_per_second_in_30_frames() {
        let emissions = media(Profile::Video, 2, 10);
        let bits_per_second = rtp_payload_bits(&emissions) / 10.0 / 2.0;
        assert!((bits_per_second / 2.5e6 - 1.0).abs() < 0.001, "{bits_per_second}");
        assert_eq!(emissions.iter().filter(|emission| emission.marker).count(), 2 * 30 * 10);
        assert!(emissions.iter().all(|emission| (1_000..=1_200).contains(&emission.payload_len)));
    }

    #[test]
    fn packets_of_a_frame_are_one_burst_and_keyframes_are_larger() {
        let emissions = media(Profile::Video, 1, 4);
        let packet_count = |frame: u32| {
            let of_frame: Vec<_> =
                emissions.iter().filter(|emission| emission.timestamp == frame * 3_000).collect();
            assert!(of_frame.iter().all(|emission| emission.at == of_frame[0].at));
            of_frame.len()
        };
        assert_eq!([0, 1, 59, 60, 61].map(packet_count), [42, 9, 9, 42, 9]);
    }

    #[test]
    fn conference_is_audio_and_video_of_everyone() {
        let emissions = media(Profile::Conference, 4, 2);
        let streams: std::collections::BTreeSet<_> =
            emissions.iter().map(|emission| (emission.stream, emission.kind.name())).collect();
        assert_eq!(streams.len(), 8);
        assert_eq!(emissions.iter().filter(|emission| emission.kind == Kind::Audio).count(), 4 * 50 * 2);
    }

    #[test]
    fn times_rise_and_each_stream_counts_from_zero_without_gaps() {
        let mut next = std::collections::HashMap::<u32, u64>::new();
        let mut last = Duration::ZERO;
        for emission in Schedule::media(Profile::Conference, 7, Duration::from_secs(3)) {
            assert!(emission.at >= last && emission.at < Duration::from_secs(3));
            last = emission.at;
            let expected = next.entry(emission.stream).or_default();
            assert_eq!(emission.sequence, *expected);
            *expected += 1;
        }
        assert_eq!(next.len(), 14);
    }

    #[test]
    fn participants_do_not_send_at_the_same_instant() {
        let emissions = media(Profile::Audio, 50, 1);
        let first: std::collections::BTreeSet<_> =
            emissions[..50].iter().map(|emission| emission.at).collect();
        assert_eq!(first.len(), 50);
    }

    #[test]
    fn flood_keeps_its_rate_in_small_bursts() {
        let emissions: Vec<_> = Schedule::flood(20_000, 1_200, Duration::from_secs(2)).collect();
        assert_eq!(emissions.len(), 40_000);
        let largest_burst = emissions.chunk_by(|a, b| a.at == b.at).map(<[_]>::len).max();
        assert_eq!(largest_burst, Some(10));
        assert!(emissions.iter().all(|emission| emission.payload_len == 1_200));
    }

    #[test]
    fn slow_or_uneven_flood_still_sends_the_right_number() {
        assert_eq!(Schedule::flood(7, 100, Duration::from_secs(3)).count(), 21);
        assert_eq!(Schedule::flood(33_333, 100, Duration::from_secs(3)).count(), 99_999);
    }
}
