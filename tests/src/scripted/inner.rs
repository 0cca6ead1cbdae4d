//! Packets inside the tunnel: UDP in IPv4 and IPv6, written and read byte by byte so that every field can be wrong.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

const UDP: u8 = 17;
const UDP_HEADER_LEN: usize = 8;

/// A UDP packet in IP; `tos` is the whole traffic class.
pub fn udp(source: SocketAddr, destination: SocketAddr, tos: u8, payload: &[u8]) -> Vec<u8> {
    let udp_len = (UDP_HEADER_LEN + payload.len()) as u16;
    let mut datagram = Vec::with_capacity(usize::from(udp_len));
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend(udp_len.to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);

    let mut sum = Checksum::default();
    sum.add(&octets(source.ip()));
    sum.add(&octets(destination.ip()));
    sum.add(&[0, UDP]);
    sum.add(&udp_len.to_be_bytes());
    sum.add(&datagram);
    datagram[6..8].copy_from_slice(&sum.udp().to_be_bytes());

    let mut packet = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ipv4_header(&source, &destination, tos, udp_len),
        _ => ipv6_header(&source, &destination, tos, udp_len),
    };
    packet.extend(datagram);
    packet
}

fn ipv4_header(source: &SocketAddr, destination: &SocketAddr, tos: u8, payload_len: u16) -> Vec<u8> {
    let mut header = vec![0x45, tos];
    header.extend((20 + payload_len).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    header.extend(octets(source.ip()));
    header.extend(octets(destination.ip()));
    renew_ipv4_checksum(&mut header);
    header
}

/// Makes the header checksum of an IPv4 packet without options right after a change.
pub fn renew_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let mut sum = Checksum::default();
    sum.add(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.value().to_be_bytes());
}

fn ipv6_header(source: &SocketAddr, destination: &SocketAddr, tos: u8, payload_len: u16) -> Vec<u8> {
    let mut header = (0x6000_0000 | u32::from(tos) << 20).to_be_bytes().to_vec();
    header.extend(payload_len.to_be_bytes());
    header.extend([UDP, 64]);
    header.extend(octets(source.ip()));
    header.extend(octets(destination.ip()));
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A UDP packet out of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The traffic class.
    pub tos: u8,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// What followed the packet.
    pub padding: Vec<u8>,
}

impl Inner {
    /// Reads an opened plaintext.
    pub fn parse(plaintext: &[u8]) -> Result<Self> {
        let number = |at: usize| -> Result<usize> {
            let bytes = plaintext.get(at..at + 2).context("the inner packet is too short")?;
            Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
        };
        let (header_len, len, protocol, tos) = match plaintext.first().map(|byte| byte >> 4) {
            Some(4) => (20, number(2)?, plaintext.get(9), plaintext.get(1).copied()),
            Some(6) => (40, 40 + number(4)?, plaintext.get(6), Some((number(0)? >> 4) as u8)),
            version => anyhow::bail!("inner IP version {version:?}"),
        };
        ensure!(protocol == Some(&UDP), "inner protocol {protocol:?}");
        let payload =
            plaintext.get(header_len + UDP_HEADER_LEN..len).context("the inner packet is cut off")?;
        let tos = tos.context("the inner packet is too short")?;
        Ok(Self { tos, payload: payload.to_vec(), padding: plaintext[len..].to_vec() })
    }
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
struct Checksum(u32);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            self.0 += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }

    fn value(&self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    /// A UDP checksum of zero would mean "none".
    fn udp(&self) -> u16 {
        match self.value() {
            0 => 0xffff,
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for (source, destination) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let mut packet = udp(source.parse().unwrap(), destination.parse().unwrap(), 0xb9, b"payload");
            packet.extend([0; 3]);
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(
                (inner.tos, &inner.payload[..], &inner.padding[..]),
                (0xb9, &b"payload"[..], &[0; 3][..])
            );
        }
    }

    #[test]
    fn header_checksum_of_a_whole_header_adds_up_to_zero() {
        let packet = udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), 0, b"");
        let mut sum = Checksum::default();
        sum.add(&packet[..20]);
        assert_eq!(sum.value(), 0);
    }
}
