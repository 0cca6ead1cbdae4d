//! As much of an inner packet's header as cryptokey routing and sealing need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses, length and ECN of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerHeader {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Bytes of the whole packet as its header tells; padding lies beyond.
    pub len: usize,
    /// The two ECN bits.
    pub ecn: u8,
}

impl InnerHeader {
    /// Reads the header of an IPv4 or IPv6 packet. `None` if it is neither, or longer than `packet`.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let header = match packet.first()? >> 4 {
            4 => Self::parse_v4(packet.first_chunk()?),
            6 => Self::parse_v6(packet.first_chunk()?),
            _ => None,
        }?;
        (header.len <= packet.len()).then_some(header)
    }

    fn parse_v4(bytes: &[u8; 20]) -> Option<Self> {
        let [_, traffic_class, high, low, _, _, _, _, _, _, _, _, addresses @ ..] = *bytes;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let len = usize::from(u16::from_be_bytes([high, low]));
        (len >= bytes.len()).then(|| Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            len,
            ecn: traffic_class & 3,
        })
    }

    fn parse_v6(bytes: &[u8; 40]) -> Option<Self> {
        let (head, addresses) = bytes.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let destination: [u8; 16] = destination.try_into().ok()?;
        Some(Self {
            source: Ipv6Addr::from(*source).into(),
            destination: Ipv6Addr::from(destination).into(),
            len: bytes.len() + usize::from(u16::from_be_bytes([head[4], head[5]])),
            ecn: (head[1] >> 4) & 3,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::InnerHeader;

    #[test]
    fn both_families_are_read() {
        let mut v4 =
            vec![0x45, 0b1011_1010, 0, 22, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0];
        let header = InnerHeader::parse(&v4).expect("a whole packet");
        assert_eq!(
            (header.source.to_string(), header.destination.to_string()),
            ("10.0.0.1".into(), "10.0.0.2".into())
        );
        assert_eq!((header.len, header.ecn), (22, 2));
        v4.truncate(21);
        assert_eq!(InnerHeader::parse(&v4), None, "shorter than it says");
        v4[3] = 19;
        assert_eq!(InnerHeader::parse(&v4), None, "shorter than its own header");

        let mut v6 = vec![0; 44];
        v6[..8].copy_from_slice(&[0x6b, 0xb5, 0, 0, 0, 4, 17, 64]);
        (v6[23], v6[39]) = (1, 2);
        let header = InnerHeader::parse(&v6).expect("a whole packet");
        assert_eq!((header.source.to_string(), header.destination.to_string()), ("::1".into(), "::2".into()));
        assert_eq!((header.len, header.ecn), (44, 3));
        assert_eq!(InnerHeader::parse(&v6[..43]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(header) = InnerHeader::parse(&packet) {
                prop_assert!(header.len <= packet.len() && header.ecn < 4);
            }
        }
    }
}
