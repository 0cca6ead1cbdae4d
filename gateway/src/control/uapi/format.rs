//! The answering side: a device in the order of keys that clients expect, piece by piece.
//!
//! A device of 100,000 peers fills tens of megabytes. So its text is made in chunks, each in memory of the right
//! size from the start: it holds secrets, and a buffer that grows would leave copies behind that nobody erases.

use std::fmt::{self, Write};

use wireguard::{Device, PeerStatus, PrivateKey};
use zeroize::Zeroizing;

use super::hex::{KEY_DIGITS, write_key};

/// Bytes of a chunk, unless a single peer takes more: a millisecond's work.
const CHUNK_LEN: usize = 64 << 10;
/// The device's own lines at most: a key, a port, a mark.
const DEVICE_LEN_MAX: usize = 128 + KEY_DIGITS;
/// A peer's lines but for its allowed IPs at most: 8 names, 2 keys, an endpoint and 6 numbers.
const PEER_LEN_MAX: usize = 512 + 2 * KEY_DIGITS;
/// `allowed_ip=`, the longest address and prefix length there are, and the end of the line.
const ALLOWED_IP_LEN_MAX: usize = 11 + 39 + 4 + 1;
/// What an answer that succeeded ends with.
const END: &str = "errno=0\n\n";

/// What a `get` tells of the device itself.
#[derive(Clone, Copy, Debug)]
pub struct DeviceView<'a> {
    /// Our private key; left out when there is none.
    pub private_key: Option<&'a PrivateKey>,
    /// UDP port; left out when 0.
    pub listen_port: u16,
    /// Mark of outer packets; left out when 0.
    pub fwmark: u32,
}

/// Where in the answer to a `get` a chunk begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// With the device itself.
    #[default]
    Device,
    /// With the first peer that was added as this number or later.
    Peer(u64),
}

/// A part of the answer to a `get`.
#[derive(Debug)]
pub struct Chunk {
    /// Whole lines.
    pub text: Zeroizing<String>,
    /// Where the next one begins; `None` after the end.
    pub next: Option<Position>,
}

/// The part of the answer to `get=1` that begins at `from`; the last one ends with `errno=0` and the empty line.
pub fn format_chunk(device: &Device, listen_port: u16, fwmark: u32, from: Position) -> Chunk {
    let view = DeviceView { private_key: device.private_key(), listen_port, fwmark };
    match from {
        Position::Device => chunk(Some(&view), device.peers_from(0)),
        Position::Peer(sequence) => chunk(None, device.peers_from(sequence)),
    }
}

fn chunk(view: Option<&DeviceView<'_>>, peers: impl Iterator<Item = (u64, PeerStatus)>) -> Chunk {
    let mut text = Zeroizing::new(String::with_capacity(CHUNK_LEN));
    if let Some(view) = view {
        // Writing to a string cannot fail.
        let _ = write_device(&mut *text, view);
    }
    for (sequence, peer) in peers {
        let needed = peer_len_max(&peer) + END.len();
        if text.capacity() - text.len() < needed {
            if !text.is_empty() {
                return Chunk { text, next: Some(Position::Peer(sequence)) };
            }
            text.reserve_exact(needed);
        }
        let _ = write_peer(&mut *text, &peer);
    }
    text.push_str(END);
    Chunk { text, next: None }
}

/// The whole answer, from plain data.
pub fn format_view(view: &DeviceView<'_>, peers: &[PeerStatus]) -> Zeroizing<String> {
    let len_max = DEVICE_LEN_MAX + peers.iter().map(peer_len_max).sum::<usize>() + END.len();
    let mut text = Zeroizing::new(String::with_capacity(len_max));
    let capacity = text.capacity();
    // Writing to a string cannot fail.
    let _ = write_device(&mut *text, view);
    let _ = peers.iter().try_for_each(|peer| write_peer(&mut *text, peer));
    text.push_str(END);
    debug_assert_eq!(text.capacity(), capacity, "the text was moved and left a copy behind");
    text
}

fn peer_len_max(peer: &PeerStatus) -> usize {
    PEER_LEN_MAX + peer.allowed_ips.len() * ALLOWED_IP_LEN_MAX
}

fn write_device(out: &mut impl Write, view: &DeviceView<'_>) -> fmt::Result {
    if let Some(private_key) = view.private_key {
        out.write_str("private_key=")?;
        write_key(out, private_key.as_bytes())?;
        out.write_char('\n')?;
    }
    if view.listen_port != 0 {
        writeln!(out, "listen_port={}", view.listen_port)?;
    }
    if view.fwmark != 0 {
        writeln!(out, "fwmark={}", view.fwmark)?;
    }
    Ok(())
}

fn write_peer(out: &mut impl Write, peer: &PeerStatus) -> fmt::Result {
    out.write_str("public_key=")?;
    write_key(out, peer.public_key.as_bytes())?;
    out.write_str("\npreshared_key=")?;
    write_key(out, peer.preshared_key.as_bytes())?;
    out.write_str("\nprotocol_version=1\n")?;
    if let Some(endpoint) = peer.endpoint {
        writeln!(out, "endpoint={}", endpoint.remote)?;
    }
    let last_handshake = peer.last_handshake.unwrap_or_default();
    writeln!(out, "last_handshake_time_sec={}", last_handshake.secs)?;
    writeln!(out, "last_handshake_time_nsec={}", last_handshake.nanos)?;
    writeln!(out, "tx_bytes={}", peer.tx_bytes)?;
    writeln!(out, "rx_bytes={}", peer.rx_bytes)?;
    writeln!(out, "persistent_keepalive_interval={}", peer.persistent_keepalive)?;
    peer.allowed_ips.iter().try_for_each(|prefix| writeln!(out, "allowed_ip={prefix}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use wireguard::{Endpoint, PeerId, PresharedKey, PublicKey, UnixTime};

    use super::*;

    /// A peer with the longest values there are.
    fn wordy(sequence: u64, prefix_count: usize) -> (u64, PeerStatus) {
        let longest: SocketAddr =
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap();
        let prefix = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap();
        let status = PeerStatus {
            id: PeerId(0),
            public_key: PublicKey::from_bytes([0xff; 32]),
            preshared_key: PresharedKey::from_bytes([0xff; 32]),
            endpoint: Some(Endpoint::from(longest)),
            last_handshake: Some(UnixTime { secs: u64::MAX, nanos: 999_999_999 }),
            rx_bytes: u64::MAX,
            tx_bytes: u64::MAX,
            persistent_keepalive: u16::MAX,
            allowed_ips: vec![prefix; prefix_count],
        };
        (sequence, status)
    }

    #[test]
    fn chunks_make_up_the_whole_and_are_never_moved() {
        let private_key = PrivateKey::from_bytes([0xff; 32]);
        let view = DeviceView { private_key: Some(&private_key), listen_port: u16::MAX, fwmark: u32::MAX };
        // Small ones, one that fills more than a chunk by itself, and one that is just too much for the first.
        let peers: Vec<_> = [3, 1300, 0, 2000, 1, 1, 1200]
            .into_iter()
            .enumerate()
            .map(|(number, prefix_count)| wordy(10 * number as u64, prefix_count))
            .collect();
        let from = |start: u64| peers.iter().filter(move |(sequence, _)| *sequence >= start).cloned();
        let mut whole = String::new();
        let mut part = chunk(Some(&view), from(0));
        let mut count = 1;
        loop {
            whole.push_str(&part.text);
            let Some(next) = part.next else { break };
            let Position::Peer(next) = next else { panic!("the device comes once") };
            part = chunk(None, from(next));
            count += 1;
        }
        let statuses: Vec<_> = peers.iter().map(|(_, status)| status.clone()).collect();
        assert_eq!(whole, *format_view(&view, &statuses));
        assert!(count > 3, "{count} chunks");
    }

    #[test]
    fn the_bounds_hold_for_the_longest_values() {
        for prefix_count in [0, 1, 5000] {
            let (_, peer) = wordy(0, prefix_count);
            let mut text = String::new();
            write_peer(&mut text, &peer).unwrap();
            assert!(text.len() <= peer_len_max(&peer), "{} > {}", text.len(), peer_len_max(&peer));
        }
        let private_key = PrivateKey::from_bytes([0xff; 32]);
        let view = DeviceView { private_key: Some(&private_key), listen_port: u16::MAX, fwmark: u32::MAX };
        let mut text = String::new();
        write_device(&mut text, &view).unwrap();
        assert!(text.len() <= DEVICE_LEN_MAX);
    }
}
