//! UDP payloads out of a packet capture, as tcpdump writes it on Ethernet. Not a general reader.

const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
const ETHERNET_LEN: usize = 14;
const UDP_LEN: usize = 8;

/// The frames of all complete records; the last may still be on its way to the file.
pub fn frames(capture: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = capture.get(FILE_HEADER_LEN..).unwrap_or_default();
    std::iter::from_fn(move || {
        let len = u32::from_le_bytes(rest.get(8..12)?.try_into().ok()?) as usize;
        let frame = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + len)?;
        rest = &rest[RECORD_HEADER_LEN + len..];
        Some(frame)
    })
}

/// The UDP payloads of all complete records: IPv4 without options, or IPv6 without extension headers.
pub fn udp_payloads(capture: &[u8]) -> Vec<Vec<u8>> {
    frames(capture).filter_map(udp_payload).collect()
}

fn udp_payload(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_LEN..)?;
    let (protocol, udp) = match packet.first()? >> 4 {
        4 => (packet.get(9)?, packet.get(20..)?),
        6 => (packet.get(6)?, packet.get(40..)?),
        _ => return None,
    };
    let len = u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?);
    // Short frames are padded: the length is that of the UDP header.
    (*protocol == 17).then(|| udp.get(UDP_LEN..usize::from(len)).map(<[u8]>::to_vec))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_its_payload_without_padding() {
        let mut frame = vec![0; ETHERNET_LEN];
        frame.push(0x45);
        frame.resize(ETHERNET_LEN + 9, 0);
        frame.push(17);
        frame.resize(ETHERNET_LEN + 20, 0);
        frame.extend([0, 1, 0, 2, 0, 11, 0, 0, 7, 8, 9, 0, 0, 0]);
        let mut capture = vec![0; FILE_HEADER_LEN + 8];
        capture.extend((frame.len() as u32).to_le_bytes());
        capture.extend([0; 4]);
        capture.extend(&frame);
        assert_eq!(udp_payloads(&capture), [[7, 8, 9]]);
        // The last record may still be on its way to the file.
        capture.pop();
        assert!(udp_payloads(&capture).is_empty());
    }
}
