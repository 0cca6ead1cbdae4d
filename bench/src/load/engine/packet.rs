//! The bytes of a trial's packets: Ethernet, IPv4 and UDP headers (RFC 894, 791, 768), and a payload that says which
//! packet of which trial it is.
//!
//! ```text
//! | sequence, 64 bits | magic "wgxl" | trial, 32 bits | pattern ...
//! ```
//! All fields are big-endian. UDP checksums are absent (0), as IPv4 allows.

use std::net::SocketAddrV4;

use crate::load::Mac;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of IPv4 and UDP headers.
pub const IP_UDP_LEN: usize = 20 + UDP_LEN;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes before a UDP payload in a frame.
pub const HEADERS_LEN: usize = ETHERNET_LEN + IP_UDP_LEN;
/// Bytes of a payload before its pattern.
pub const STAMP_LEN: usize = 16;
/// Largest payload: what an Ethernet MTU of 1500 leaves.
const PAYLOAD_LEN_MAX: usize = 1500 - IP_UDP_LEN;

const MAGIC: [u8; 4] = *b"wgxl";
const TTL: u8 = 64;
const PROTOCOL_UDP: u8 = 17;

/// What follows the stamp: neither zeros nor a repetition that a shift by a power of two would hide.
const PATTERN: [u8; PAYLOAD_LEN_MAX] = {
    let mut pattern = [0; PAYLOAD_LEN_MAX];
    let mut index = 0;
    while index < PAYLOAD_LEN_MAX {
        pattern[index] = (index * 7 % 251) as u8;
        index += 1;
    }
    pattern
};

/// Writes an Ethernet header for IPv4.
pub fn write_ethernet(header: &mut [u8], from: Mac, to: Mac) {
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header[12..14].copy_from_slice(&[0x08, 0x00]);
}

/// Writes the IPv4 and UDP headers of a packet of `packet_len` bytes, these included.
pub fn write_ip_udp(packet: &mut [u8], from: SocketAddrV4, to: SocketAddrV4, packet_len: usize) {
    let header = &mut packet[..IP_UDP_LEN];
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(packet_len as u16).to_be_bytes());
    header[8] = TTL;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    let checksum = internet_checksum(&header[..20]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header[20..22].copy_from_slice(&from.port().to_be_bytes());
    header[22..24].copy_from_slice(&to.port().to_be_bytes());
    header[24..26].copy_from_slice(&((packet_len - 20) as u16).to_be_bytes());
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Fills a payload, which has room for a stamp at least.
pub fn write_payload(payload: &mut [u8], sequence: u64, trial: u32) {
    payload[..8].copy_from_slice(&sequence.to_be_bytes());
    payload[8..12].copy_from_slice(&MAGIC);
    payload[12..16].copy_from_slice(&trial.to_be_bytes());
    let rest = &mut payload[STAMP_LEN..];
    rest.copy_from_slice(&PATTERN[..rest.len()]);
}

/// The sequence number in a payload of this trial; `None` for whatever else.
pub fn read_stamp(payload: &[u8], trial: u32) -> Option<u64> {
    let (sequence, rest) = payload.split_first_chunk::<8>()?;
    (rest.get(..4)? == MAGIC && rest.get(4..8)? == trial.to_be_bytes()).then(|| u64::from_be_bytes(*sequence))
}

/// Whether a payload with a good stamp was left as it was sent.
pub fn is_intact(payload: &[u8]) -> bool {
    payload.get(STAMP_LEN..).is_some_and(|rest| PATTERN.get(..rest.len()) == Some(rest))
}

/// The UDP destination port and the length of the payload of an IPv4 frame without options, whose first bytes suffice;
/// `None` for others.
pub fn udp_header(head: &[u8]) -> Option<(u16, usize)> {
    let headers = head.get(..HEADERS_LEN)?;
    if headers[12..15] != [0x08, 0x00, 0x45] || headers[23] != PROTOCOL_UDP {
        return None;
    }
    let udp_len = usize::from(u16::from_be_bytes([headers[38], headers[39]]));
    Some((u16::from_be_bytes([headers[36], headers[37]]), udp_len.checked_sub(UDP_LEN)?))
}

/// The UDP destination port and payload of such a frame, cut to its UDP length.
pub fn udp(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (port, payload_len) = udp_header(frame)?;
    Some((port, frame.get(HEADERS_LEN..HEADERS_LEN + payload_len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: u32 = 9;

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0xee; ETHERNET_LEN + len];
        write_ethernet(&mut frame, Mac([1; 6]), Mac([2; 6]));
        let (from, to) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:2000".parse().unwrap());
        write_ip_udp(&mut frame[ETHERNET_LEN..], from, to, len);
        write_payload(&mut frame[HEADERS_LEN..], 77, TRIAL);
        frame
    }

    #[test]
    fn what_is_written_is_read_back() {
        for len in [IP_UDP_LEN + STAMP_LEN, 64, 1420, 1500] {
            let frame = frame(len);
            let (port, payload) = udp(&frame).unwrap();
            assert_eq!((port, payload.len()), (2000, len - IP_UDP_LEN));
            assert_eq!(read_stamp(payload, TRIAL), Some(77));
            assert!(is_intact(payload));
        }
    }

    #[test]
    fn the_ip_checksum_adds_up_to_nothing() {
        let frame = frame(1228);
        assert_eq!(internet_checksum(&frame[14..34]), 0);
        assert_ne!(frame[24..26], [0, 0]);
    }

    #[test]
    fn padding_behind_a_packet_does_not_count() {
        let mut frame = frame(64);
        frame.resize(frame.len() + 10, 0);
        assert_eq!(udp(&frame).unwrap().1.len(), 64 - IP_UDP_LEN);
    }

    #[test]
    fn damage_other_trials_and_strangers_are_told_apart() {
        let mut bytes = frame(200);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let payload = udp(&bytes).unwrap().1;
        assert!(read_stamp(payload, TRIAL).is_some() && !is_intact(payload));
        assert_eq!(read_stamp(payload, TRIAL + 1), None);
        assert_eq!(read_stamp(&[0; 10], TRIAL), None);
        for (at, value) in [(12, 0x86), (14, 0x46), (23, 6), (38, 0xff)] {
            let mut bytes = frame(200);
            bytes[at] = value;
            assert_eq!(udp(&bytes), None, "byte {at}");
        }
        assert_eq!(udp(&frame(200)[..41]), None);
    }
}
