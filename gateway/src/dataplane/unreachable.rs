//! ICMP errors for packets that have nowhere to go: no peer has the destination, or the peer's endpoint is not
//! known. Kernel WireGuard answers both from its transmit function (drivers/net/wireguard/device.c, `wg_xmit`), and
//! nobody else would: to the kernel's stack the packet has left through the TUN device.
//!
//! This decides whether to answer and writes the message; a [`UnreachablePort`](crate::io::UnreachablePort) lets the
//! kernel choose source address and route, as it does for its own errors.

use std::net::IpAddr;

use gateway_ebpf::parse::{IPV4_LEN, IPV6_LEN, Ip};
use wireguard::Time;

use super::inner::{fold, words_sum};
use crate::io::Unreachable;

/// Errors a second, and at once, at most: the kernel's `icmp_msgs_per_sec` and `icmp_msgs_burst` since they exist
/// (Documentation/networking/ip-sysctl.rst).
const PER_SECOND: u64 = 1000;
const BURST: u64 = 50;
/// What one error costs, in the limiter's nanoseconds.
const COST: u64 = 1_000_000_000 / PER_SECOND;

/// Type, code, checksum and four unused bytes (RFC 792, RFC 4443 section 3.1).
const ICMP_LEN: usize = 8;
/// An error is at most this long with its IP header (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 c).
const ERROR_LEN_MAX_V4: usize = 576;
const ERROR_LEN_MAX_V6: usize = 1280;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const DESTINATION_UNREACHABLE_V4: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
const DESTINATION_UNREACHABLE_V6: u8 = 1;
const ADDRESS_UNREACHABLE: u8 = 3;
const REDIRECT_V6: u8 = 137;

/// Extension headers looked through for an `ICMPv6` error, at most.
const EXTENSIONS_MAX: usize = 8;

/// A token bucket for errors.
#[derive(Debug, Default)]
pub struct ErrorLimit {
    /// When all tokens will be there again.
    full_at: u64,
}

impl ErrorLimit {
    fn admits(&mut self, now: Time) -> bool {
        let full_at = self.full_at.max(now.0) + COST;
        let admitted = full_at - now.0 <= BURST * COST;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }
}

/// The error for `packet`, whose header is `ip`; `None` where the RFCs forbid one or `limit` is reached.
pub fn answer(limit: &mut ErrorLimit, ip: &Ip, packet: &[u8], now: Time) -> Option<Unreachable> {
    let message = (may_answer(ip, packet) && limit.admits(now)).then(|| message(ip, packet))?;
    Some(Unreachable { to: ip.source, about: ip.destination, message })
}

/// RFC 1122, section 3.2.2; RFC 1812, section 4.3.2.7; RFC 4443, section 2.4 e. Whether an IPv4 destination is the
/// broadcast address of some subnet only the kernel knows: the port asks it.
fn may_answer(ip: &Ip, packet: &[u8]) -> bool {
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let is_one_host = |first: u8| !matches!(first, 0 | 127 | 224..=255);
            is_one_host(source.octets()[0])
                && is_one_host(destination.octets()[0])
                && is_first_fragment(packet)
                && !(ip.protocol == PROTOCOL_ICMP && is_error_v4(packet.get(ip.header_len)))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            !source.is_unspecified()
                && !source.is_multicast()
                && !source.is_loopback()
                && !destination.is_multicast()
                && is_answerable_v6(ip.protocol, packet)
        }
        _ => false,
    }
}

fn is_first_fragment(packet: &[u8]) -> bool {
    matches!(packet.get(6..8), Some([high, 0]) if high << 3 == 0)
}

/// Without a type nobody can tell: no answer is right.
fn is_error_v4(icmp_type: Option<&u8>) -> bool {
    icmp_type.is_none_or(|icmp_type| matches!(icmp_type, 3 | 4 | 5 | 11 | 12))
}

/// Looks through the extension headers. What cannot be followed to its end gets no answer.
fn is_answerable_v6(mut next: u8, packet: &[u8]) -> bool {
    let mut offset = IPV6_LEN;
    for _ in 0..EXTENSIONS_MAX {
        let header = packet.get(offset..).unwrap_or_default();
        let units = match (next, header) {
            (PROTOCOL_ICMPV6, [icmp_type, ..]) => return *icmp_type >= 128 && *icmp_type != REDIRECT_V6,
            // Hop-by-hop, routing and destination options: in units of 8 bytes, the first not counted.
            (0 | 43 | 60, [_, len, ..]) => usize::from(*len) + 1,
            // A fragment header has one unit; all but the first fragment have an offset.
            (44, [_, _, 0, 0..=7, ..]) => 1,
            (PROTOCOL_ICMPV6 | 0 | 43 | 44 | 60, _) => return false,
            _ => return true,
        };
        next = header[0];
        offset += units * 8;
    }
    false
}

fn message(ip: &Ip, packet: &[u8]) -> Vec<u8> {
    let (kind, code, quoted_max) = if ip.is_ipv6() {
        (DESTINATION_UNREACHABLE_V6, ADDRESS_UNREACHABLE, ERROR_LEN_MAX_V6 - IPV6_LEN - ICMP_LEN)
    } else {
        (DESTINATION_UNREACHABLE_V4, HOST_UNREACHABLE, ERROR_LEN_MAX_V4 - IPV4_LEN - ICMP_LEN)
    };
    let quoted = &packet[..packet.len().min(quoted_max)];
    let mut message = Vec::with_capacity(ICMP_LEN + quoted.len());
    message.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(quoted);
    if !ip.is_ipv6() {
        let checksum = !fold(words_sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_ebpf::parse::ip;
    use proptest::prelude::*;

    const NOW: Time = Time(1_000_000_000_000);

    fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((20 + payload.len() as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(flags.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn v6(source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 64]);
        for address in [source, destination] {
            packet.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        packet.extend(payload);
        packet
    }

    fn answered(packet: &[u8]) -> Option<Unreachable> {
        answer(&mut ErrorLimit::default(), &ip(packet).unwrap(), packet, NOW)
    }

    #[test]
    fn a_packet_without_a_peer_is_quoted_to_its_sender() {
        let packet = v4([10, 0, 0, 2], [10, 9, 0, 1], 17, 0, &[7; 800]);
        let error = answered(&packet).unwrap();
        assert_eq!(error.to, ip(&packet).unwrap().source);
        assert_eq!(error.message[..2], [3, 1]);
        assert_eq!(error.message.len(), 576 - 20);
        assert_eq!(error.message[8..], packet[..548]);
        assert_eq!(fold(words_sum(&error.message)), 0xffff);

        let packet = v6("fd00::2", "fd09::1", 17, &[7; 1300]);
        let error = answered(&packet).unwrap();
        assert_eq!(error.message[..8], [1, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error.message.len(), 1280 - 40);
        assert_eq!(error.message[8..], packet[..1232]);
    }

    #[test]
    fn what_the_rfcs_forbid_is_not_answered() {
        let (host, other) = ([10, 0, 0, 2], [10, 9, 0, 1]);
        let silent = [
            ("multicast destination", v4(host, [224, 0, 0, 1], 17, 0, &[0; 8])),
            ("broadcast destination", v4(host, [255; 4], 17, 0, &[0; 8])),
            ("unspecified source", v4([0; 4], other, 17, 0, &[0; 8])),
            ("loopback source", v4([127, 0, 0, 1], other, 17, 0, &[0; 8])),
            ("multicast source", v4([224, 0, 0, 1], other, 17, 0, &[0; 8])),
            ("later fragment", v4(host, other, 17, 0x00b9, &[0; 8])),
            ("unreachable", v4(host, other, 1, 0, &[3, 1, 0, 0])),
            ("time exceeded", v4(host, other, 1, 0, &[11, 0, 0, 0])),
            ("ICMP without a type", v4(host, other, 1, 0, &[])),
            ("v6 multicast destination", v6("fd00::2", "ff02::1", 17, &[0; 8])),
            ("v6 unspecified source", v6("::", "fd09::1", 17, &[0; 8])),
            ("v6 multicast source", v6("ff02::1", "fd09::1", 17, &[0; 8])),
            ("v6 error", v6("fd00::2", "fd09::1", 58, &[1, 3, 0, 0])),
            ("v6 redirect", v6("fd00::2", "fd09::1", 58, &[137, 0, 0, 0])),
            ("v6 error behind options", v6("fd00::2", "fd09::1", 60, &[58, 0, 1, 4, 0, 0, 0, 0, 1, 3])),
            ("v6 later fragment", v6("fd00::2", "fd09::1", 44, &[17, 0, 0, 8, 0, 0, 0, 1])),
            ("v6 cut off options", v6("fd00::2", "fd09::1", 0, &[58])),
        ];
        for (what, packet) in silent {
            assert_eq!(answered(&packet), None, "{what}");
        }
    }

    #[test]
    fn first_fragments_and_echo_requests_are_answered() {
        let (host, other) = ([10, 0, 0, 2], [10, 9, 0, 1]);
        for packet in [
            v4(host, other, 1, 0, &[8, 0, 0, 0]),
            v4(host, other, 17, 0x2000, &[0; 8]),
            v6("fd00::2", "fd09::1", 58, &[128, 0, 0, 0]),
            v6("fd00::2", "fd09::1", 44, &[17, 0, 0, 1, 0, 0, 0, 1]),
            v6("fd00::2", "fd09::1", 60, &[58, 0, 1, 4, 0, 0, 0, 0, 128, 0]),
            v6("fd00::2", "fd09::1", 17, &[]),
        ] {
            assert!(answered(&packet).is_some(), "{packet:02x?}");
        }
    }

    #[test]
    fn errors_are_limited_and_come_back_with_time() {
        let packet = v4([10, 0, 0, 2], [10, 9, 0, 1], 17, 0, &[0; 8]);
        let header = ip(&packet).unwrap();
        let mut limit = ErrorLimit::default();
        let mut answers =
            |now| (0..200).filter(|_| answer(&mut limit, &header, &packet, now).is_some()).count();
        assert_eq!(answers(NOW), BURST as usize);
        assert_eq!(answers(Time(NOW.0 + 10 * COST)), 10);
        assert_eq!(answers(Time(NOW.0 + 3_600_000_000_000)), BURST as usize);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic_or_a_long_message(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            for version in [0x45, 0x60] {
                let mut packet = bytes.clone();
                if let Some(first) = packet.first_mut() {
                    *first = version;
                }
                if let Ok(header) = ip(&packet)
                    && let Some(error) = answer(&mut ErrorLimit::default(), &header, &packet[..header.len], NOW)
                {
                    prop_assert!(error.message.len() <= 1240);
                }
            }
        }
    }
}
