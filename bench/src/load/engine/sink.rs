//! What arrived: logged while packets come in, understood when they no longer do.
//!
//! Plaintext is read at once. What is sealed can be counted by client and counter, but not opened at the rates at which
//! it comes: of every so many datagrams one is kept, and opened after the trial for its latency and contents.

use std::iter::repeat_n;

use aead::{Aead, Packet};
use wireguard::message::TRANSPORT_HEADER_LEN;

use super::account::Arrival;
use super::packet::{HEADERS_LEN, IP_UDP_LEN, is_intact, read_stamp, udp, udp_header};
use super::schedule::{Lane, Schedule};
use super::sessions::Sessions;
use crate::load::setup::FIRST_PORT;

/// Bytes of datagrams kept.
const KEPT_LEN_MAX: usize = 128 << 20;
/// Of plaintext, the contents of one packet of so many are compared.
const COMPARED_EVERY: u64 = 64;
/// Datagrams opened in one call.
const BATCH: usize = 64;
/// A datagram of this length is a keepalive.
const KEEPALIVE_LEN: usize = TRANSPORT_HEADER_LEN + aead::TAG_LEN;

/// A plaintext packet.
#[derive(Debug, Clone, Copy)]
struct Plain {
    at_ns: u64,
    sequence: u64,
}

/// A sealed packet.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    at_ns: u64,
    counter: u64,
    client: u32,
    /// Length of the datagram, if it was kept.
    kept_len: u16,
}

/// A packet that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Its first bytes: Ethernet, IPv4 and UDP headers and 16 bytes of payload, if it has so many.
    pub head: &'a [u8],
    /// All of it, where that is known.
    pub whole: Option<&'a [u8]>,
}

impl<'a> Taken<'a> {
    /// A packet of which everything is known.
    pub fn whole(at_ns: u64, frame: &'a [u8]) -> Self {
        Self { at_ns, head: frame, whole: Some(frame) }
    }
}

/// The log of one trial at a time; its memory is used again.
#[derive(Debug, Default)]
pub struct Sink {
    trial: u32,
    /// Whether sealed packets are expected at clients.
    is_tunnel: bool,
    plain: Vec<Plain>,
    sealed: Vec<Sealed>,
    kept: Vec<u8>,
    keep_every: usize,
    /// Only packets that are to be looked at come whole.
    is_sampled: bool,
    corrupt: u64,
}

impl Sink {
    /// Forgets everything, and makes room for a trial of `count` packets of up to `datagram_len` bytes.
    /// With `is_sampled`, packets come whole only when they are to be looked at.
    pub fn begin(&mut self, trial: u32, is_tunnel: bool, is_sampled: bool, count: u64, datagram_len: usize) {
        let count = count as usize;
        self.trial = trial;
        self.is_tunnel = is_tunnel;
        self.is_sampled = is_sampled;
        self.corrupt = 0;
        self.keep_every = (count * datagram_len).div_ceil(KEPT_LEN_MAX).max(1);
        self.plain.clear();
        self.sealed.clear();
        self.kept.clear();
        self.plain.reserve(count);
        self.sealed.reserve(count);
        self.kept.reserve((count / self.keep_every + 1) * datagram_len);
    }

    /// Arrivals so far, of whatever.
    pub fn len(&self) -> usize {
        self.plain.len() + self.sealed.len()
    }

    /// Takes a packet that arrived at the server, or at clients without a tunnel.
    #[inline]
    pub fn take_plain(&mut self, taken: Taken<'_>) {
        if udp_header(taken.head).is_none() {
            return;
        }
        if let Some(sequence) = read_stamp(&taken.head[HEADERS_LEN..], self.trial) {
            let is_compared = self.is_sampled || sequence.is_multiple_of(COMPARED_EVERY);
            if let Some(frame) = taken.whole.filter(|_| is_compared)
                && !udp(frame).is_some_and(|(_, payload)| is_intact(payload))
            {
                self.corrupt += 1;
            }
            self.plain.push(Plain { at_ns: taken.at_ns, sequence });
        }
    }

    /// Takes a packet that arrived at clients.
    #[inline]
    pub fn take_at_clients(&mut self, taken: Taken<'_>) {
        if !self.is_tunnel {
            return self.take_plain(taken);
        }
        let Some((port, datagram_len)) = udp_header(taken.head) else { return };
        let Some(header) = taken.head[HEADERS_LEN..].first_chunk::<TRANSPORT_HEADER_LEN>() else { return };
        let Some(client) = port.checked_sub(FIRST_PORT) else { return };
        if header[..4] != [4, 0, 0, 0] || datagram_len <= KEEPALIVE_LEN {
            return;
        }
        let is_kept = (self.is_sampled || self.sealed.len().is_multiple_of(self.keep_every))
            && self.kept.len() + datagram_len <= self.kept.capacity();
        let datagram =
            taken.whole.filter(|_| is_kept).and_then(udp).map_or(&[][..], |(_, datagram)| datagram);
        self.kept.extend_from_slice(datagram);
        let counter = u64::from_le_bytes(std::array::from_fn(|index| header[8 + index]));
        let kept_len = datagram.len() as u16;
        self.sealed.push(Sealed { at_ns: taken.at_ns, counter, client: client.into(), kept_len });
    }

    /// Opens what was kept and returns all arrivals, in their order, and how many were not as they should be.
    ///
    /// `intended_ns` says when a packet should have been sent.
    pub fn conclude(
        &mut self,
        schedule: &Schedule,
        sessions: &Sessions,
        aead: Aead,
        intended_ns: impl Fn(u64) -> Option<u64>,
    ) -> (Vec<Arrival>, u64) {
        let mut corrupt = self.corrupt;
        let mut arrivals = Vec::with_capacity(self.len());
        for plain in &self.plain {
            let Some(intended) = intended_ns(plain.sequence) else {
                corrupt += 1;
                continue;
            };
            let planned = schedule.packet(plain.sequence);
            arrivals.push(Arrival {
                stream: stream(planned.client, planned.lane),
                order: plain.sequence,
                at_ns: plain.at_ns,
                intended_ns: Some(intended),
            });
        }
        let sequences = self.open_kept(sessions, aead);
        for (sealed, opened) in self.sealed.iter().zip(sequences) {
            let sequence = match opened {
                Opened::NotKept => None,
                Opened::Packet(sequence) => intended_ns(sequence),
                Opened::Corrupt => {
                    corrupt += 1;
                    continue;
                }
            };
            arrivals.push(Arrival {
                stream: stream(sealed.client, Lane::Down),
                order: sealed.counter,
                at_ns: sealed.at_ns,
                intended_ns: sequence,
            });
        }
        if !(self.plain.is_empty() || self.sealed.is_empty()) {
            arrivals.sort_by_key(|arrival| arrival.at_ns);
        }
        (arrivals, corrupt)
    }

    /// What each of `sealed` was.
    fn open_kept(&mut self, sessions: &Sessions, aead: Aead) -> Vec<Opened> {
        let mut opened: Vec<Opened> = repeat_n(Opened::NotKept, self.sealed.len()).collect();
        let mut rest: &mut [u8] = &mut self.kept;
        let mut authentic = Vec::with_capacity(BATCH);
        let kept: Vec<usize> =
            (0..self.sealed.len()).filter(|index| self.sealed[*index].kept_len > 0).collect();
        for chunk in kept.chunks(BATCH) {
            let mut bodies = Vec::with_capacity(BATCH);
            for &index in chunk {
                let sealed = self.sealed[index];
                let (datagram, behind) = std::mem::take(&mut rest).split_at_mut(sealed.kept_len.into());
                rest = behind;
                let (header, body) = datagram.split_at_mut(TRANSPORT_HEADER_LEN);
                let keyed = sessions
                    .of(sealed.client)
                    .filter(|keyed| header[4..8] == keyed.session.local_index().to_le_bytes());
                match keyed {
                    Some(keyed) => bodies.push((index, keyed, body)),
                    None => opened[index] = Opened::Corrupt,
                }
            }
            let mut batch: Vec<Packet<'_>> = bodies
                .iter_mut()
                .map(|(index, keyed, body)| Packet {
                    key: &keyed.opening,
                    counter: self.sealed[*index].counter,
                    buffer: body,
                })
                .collect();
            aead.open(&mut batch, &mut authentic);
            for ((index, _, body), is_authentic) in bodies.iter().zip(&authentic) {
                let sequence = if *is_authentic { sequence_of(body, self.trial) } else { None };
                opened[*index] = sequence.map_or(Opened::Corrupt, Opened::Packet);
            }
        }
        opened
    }
}

/// What became of a sealed packet after the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opened {
    NotKept,
    Packet(u64),
    Corrupt,
}

/// The sequence number of an opened inner packet that is as it was sent.
fn sequence_of(inner: &[u8], trial: u32) -> Option<u64> {
    let total_len = usize::from(u16::from_be_bytes([*inner.get(2)?, *inner.get(3)?]));
    let payload = inner.get(IP_UDP_LEN..total_len)?;
    is_intact(payload).then(|| read_stamp(payload, trial)).flatten()
}

/// Each client has a stream each way.
fn stream(client: u32, lane: Lane) -> u32 {
    client * 2 + u32::from(lane == Lane::Down)
}
