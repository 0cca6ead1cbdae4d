//! The parser that the XDP program and user space share, against a slow one that only knows the RFCs.

use gateway_ebpf::parse::{self, Message};

use crate::input::Input;

/// What a UDP frame says, by name.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    source: Vec<u8>,
    destination: Vec<u8>,
    ports: [u16; 2],
    tos: u8,
    hop_limit: u8,
    payload: Vec<u8>,
}

/// Any frame, and frames whose headers are made to fit.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let frame = if input.value() { fitting(&mut input) } else { input.rest().to_vec() };
    let parsed = parse::outer(&frame);
    let facts = parsed.ok().map(|outer| {
        let octets = |address| match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        Facts {
            source: octets(outer.ip.source),
            destination: octets(outer.ip.destination),
            ports: [outer.udp.source_port, outer.udp.destination_port],
            tos: outer.ip.tos,
            hop_limit: outer.ip.hop_limit,
            payload: frame[outer.udp.payload_offset..][..outer.udp.payload_len].to_vec(),
        }
    });
    assert_eq!(facts, udp_facts(&frame), "{parsed:?}");
    if let Ok(outer) = parsed {
        let payload = &frame[outer.udp.payload_offset..][..outer.udp.payload_len];
        let message = parse::message(frame.as_slice(), &outer.udp).ok();
        assert_eq!(message, message_of(payload), "{} bytes", payload.len());
        assert!(parse::inner(&frame).is_ok(), "what is good for the uplink is an IP packet");
    }
    if let Ok(inner) = parse::inner(&frame) {
        assert!(inner.ip.offset + inner.ip.len <= frame.len());
        let packet = &frame[inner.ip.offset..][..inner.ip.len];
        let bare = parse::ip(packet).expect("an IP packet is one without its frame");
        assert_eq!((bare.len, bare.source, bare.tos), (packet.len(), inner.ip.source, inner.ip.tos));
    }
    if let Ok(ip) = parse::ip(&frame) {
        assert!(ip.header_len <= ip.len && ip.len <= frame.len());
    }
}

/// A UDP frame with the right lengths, then damaged.
fn fitting(input: &mut Input) -> Vec<u8> {
    let payload_len = [0, 31, 32, 64, 92, 148, 100][input.below(7)];
    let mut payload = input.padded(payload_len);
    if let Some(head) = payload.first_chunk_mut::<4>() {
        *head = [input.value::<u8>() % 6, 0, 0, 0];
    }
    let udp_len = 8 + payload.len() as u16;
    let mut frame = input.padded(12);
    if input.value() {
        frame.extend([0x08, 0x00, 0x45, input.value()]);
        frame.extend((20 + udp_len).to_be_bytes());
        frame.extend([0, 1, input.value::<u8>() & 0x40, 0, input.value(), 17, 0, 0]);
        frame.extend(input.padded(8));
    } else {
        frame.extend([0x86, 0xdd, 0x60 | input.value::<u8>() & 15, input.value(), 0, 0]);
        frame.extend(udp_len.to_be_bytes());
        frame.extend([17, input.value()]);
        frame.extend(input.padded(32));
    }
    frame.extend(input.padded(4));
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    input.corrupt(&mut frame);
    frame
}

/// The first `N` bytes, which are taken away.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(*head)
}

/// RFC 894, 791, 8200 and 768 read from left to right; `None` for all that is not plain UDP.
fn udp_facts(mut frame: &[u8]) -> Option<Facts> {
    take::<12>(&mut frame)?;
    let (source, destination, tos, hop_limit, rest) = match take::<2>(&mut frame)? {
        [0x08, 0x00] => {
            let [version_and_len, tos, high, low] = take(&mut frame)?;
            let [_, _, flags, offset, ttl, protocol, _, _] = take(&mut frame)?;
            let source = take::<4>(&mut frame)?.to_vec();
            let destination = take::<4>(&mut frame)?.to_vec();
            let rest_len = (usize::from(high) * 256 + usize::from(low)).checked_sub(20)?;
            let is_fragment = flags & 0b0011_1111 != 0 || offset != 0;
            if version_and_len != 0x45 || protocol != 17 || is_fragment {
                return None;
            }
            (source, destination, tos, ttl, frame.get(..rest_len)?)
        }
        [0x86, 0xdd] => {
            let head = u32::from_be_bytes(take(&mut frame)?);
            let [high, low, 17, hop_limit] = take(&mut frame)? else { return None };
            let source = take::<16>(&mut frame)?.to_vec();
            let destination = take::<16>(&mut frame)?.to_vec();
            if head >> 28 != 6 {
                return None;
            }
            let rest = frame.get(..usize::from(high) * 256 + usize::from(low))?;
            (source, destination, (head >> 20) as u8, hop_limit, rest)
        }
        _ => return None,
    };
    let mut payload = rest;
    let ports = [u16::from_be_bytes(take(&mut payload)?), u16::from_be_bytes(take(&mut payload)?)];
    let len = u16::from_be_bytes(take(&mut payload)?);
    take::<2>(&mut payload)?;
    (usize::from(len) == rest.len()).then(|| Facts {
        source,
        destination,
        ports,
        tos,
        hop_limit,
        payload: payload.to_vec(),
    })
}

fn message_of(payload: &[u8]) -> Option<Message> {
    match (payload, payload.len()) {
        ([1, 0, 0, 0, ..], 148) | ([2, 0, 0, 0, ..], 92) | ([3, 0, 0, 0, ..], 64) => Some(Message::Handshake),
        ([4, 0, 0, 0, ..], 32..) => Some(Message::Data),
        _ => None,
    }
}
