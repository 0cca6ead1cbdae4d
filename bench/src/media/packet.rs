//! The packets on the wire: an RTP header (RFC 3550, 5.1), then what the measurement needs, then filler.
//!
//! ```text
//! 0        1        2        4               8        12
//! | V=2    | M | PT | seq    | RTP timestamp | SSRC    |
//! | magic "wgxm" or "wgxe"   | sequence, 64 bits       |   12..24
//! | intended send time, ns of CLOCK_MONOTONIC          |   24..32
//! | filler ...
//! ```
//! All fields are big-endian. The RTP sequence number is the low 16 bits of the 64-bit one, which lets a receiver
//! count exactly across outages longer than the 16 bits reach (3.3 s at 20,000 packets/s).

use serde::{Deserialize, Serialize};

/// Bytes of a packet before the filler: the least UDP payload that can be sent.
pub const HEADER_LEN: usize = 32;

const RTP_VERSION_2: u8 = 2 << 6;
const MARKER: u8 = 1 << 7;
const MAGIC_MEDIA: [u8; 4] = *b"wgxm";
const MAGIC_END: [u8; 4] = *b"wgxe";

/// What a stream carries, told by the RTP payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Opus-like audio.
    Audio,
    /// Video frames cut into packets.
    Video,
    /// Packets at a constant rate.
    Flood,
}

impl Kind {
    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Flood => "flood",
        }
    }

    /// Dynamic payload types (RFC 3551, 6), as browsers commonly use them.
    fn payload_type(self) -> u8 {
        match self {
            Self::Audio => 111,
            Self::Video => 96,
            Self::Flood => 127,
        }
    }

    fn from_payload_type(payload_type: u8) -> Option<Self> {
        [Self::Audio, Self::Video, Self::Flood].into_iter().find(|kind| kind.payload_type() == payload_type)
    }
}

/// The header of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// What the stream carries.
    pub kind: Kind,
    /// The stream, unique for its sender's socket (RTP SSRC).
    pub stream: u32,
    /// Index of the packet in its stream, from 0. In an end packet, how many packets the stream had.
    pub sequence: u64,
    /// RTP timestamp in the media's own clock.
    pub timestamp: u32,
    /// Last packet of a frame.
    pub marker: bool,
    /// When the schedule wanted it sent, in nanoseconds of `CLOCK_MONOTONIC`.
    pub intended_ns: u64,
    /// Ends the stream instead of carrying media (the role of RTCP BYE).
    pub end: bool,
}

/// Why bytes are not one of our packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketError {
    /// Shorter than [`HEADER_LEN`].
    Short,
    /// Not RTP version 2 with one of our payload types and our magic number.
    Foreign,
    /// The two sequence numbers disagree.
    Sequence,
}

impl Packet {
    /// Writes the header into the first [`HEADER_LEN`] bytes of a datagram.
    pub fn write(&self, header: &mut [u8; HEADER_LEN]) {
        header[0] = RTP_VERSION_2;
        header[1] = self.kind.payload_type() | if self.marker { MARKER } else { 0 };
        header[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.stream.to_be_bytes());
        header[12..16].copy_from_slice(if self.end { &MAGIC_END } else { &MAGIC_MEDIA });
        header[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        header[24..32].copy_from_slice(&self.intended_ns.to_be_bytes());
    }

    /// Reads the header of a datagram.
    ///
    /// # Errors
    /// When it is not one of ours, or damaged.
    pub fn parse(datagram: &[u8]) -> Result<Self, PacketError> {
        let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(PacketError::Short)?;
        let (kind, end) = match (Kind::from_payload_type(header[1] & !MARKER), &header[12..16]) {
            (Some(kind), magic) if magic == MAGIC_MEDIA => (kind, false),
            (Some(kind), magic) if magic == MAGIC_END => (kind, true),
            _ => return Err(PacketError::Foreign),
        };
        if header[0] != RTP_VERSION_2 {
            return Err(PacketError::Foreign);
        }
        let packet = Self {
            kind,
            stream: u32::from_be_bytes(field(header, 8)),
            sequence: u64::from_be_bytes(field(header, 16)),
            timestamp: u32::from_be_bytes(field(header, 4)),
            marker: header[1] & MARKER != 0,
            intended_ns: u64::from_be_bytes(field(header, 24)),
            end,
        };
        if u16::from_be_bytes(field(header, 2)) != packet.sequence as u16 {
            return Err(PacketError::Sequence);
        }
        Ok(packet)
    }
}

fn field<const LEN: usize>(header: &[u8; HEADER_LEN], offset: usize) -> [u8; LEN] {
    std::array::from_fn(|index| header[offset + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        kind: Kind::Video,
        stream: 0x0102_0304,
        sequence: 0x1_0002_fffe,
        timestamp: 0xaabb_ccdd,
        marker: true,
        intended_ns: 0x1122_3344_5566_7788,
        end: false,
    };

    fn written(packet: &Packet) -> [u8; HEADER_LEN] {
        let mut header = [0xee; HEADER_LEN];
        packet.write(&mut header);
        header
    }

    #[test]
    fn header_is_rtp_version_2() {
        let header = written(&PACKET);
        assert_eq!(header[..12], [0x80, 0x80 | 0x60, 0xff, 0xfe, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4]);
    }

    #[test]
    fn packet_survives_the_wire() {
        for packet in [PACKET, Packet { kind: Kind::Audio, end: true, marker: false, ..PACKET }] {
            assert_eq!(Packet::parse(&written(&packet)), Ok(packet));
        }
    }

    #[test]
    fn foreign_short_and_damaged_datagrams_are_refused() {
        let good = written(&PACKET);
        assert_eq!(Packet::parse(&good[..HEADER_LEN - 1]), Err(PacketError::Short));
        for (at, error) in [
            (0, PacketError::Foreign),
            (1, PacketError::Foreign),
            (13, PacketError::Foreign),
            (3, PacketError::Sequence),
            (23, PacketError::Sequence),
        ] {
            let mut damaged = good;
            damaged[at] ^= 0x41;
            assert_eq!(Packet::parse(&damaged), Err(error), "byte {at}");
        }
    }
}
