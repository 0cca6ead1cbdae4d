//! The answering side: a device in the order of keys that clients expect.

use std::fmt::{self, Write};

use wireguard::{Device, PeerStatus, PrivateKey};
use zeroize::Zeroizing;

use super::hex::write_key;

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

/// The answer to `get=1`, up to and with `errno=0` and the empty line.
///
/// The text holds secrets, so it is written once into memory of the right size: a buffer that grows would
/// leave copies behind that nobody erases.
pub fn format_get(device: &Device, listen_port: u16, fwmark: u32) -> Zeroizing<String> {
    let view = DeviceView { private_key: device.private_key(), listen_port, fwmark };
    let peers: Vec<PeerStatus> = device.peers().collect();
    format_view(&view, &peers)
}

/// [`format_get`] over plain data.
pub fn format_view(view: &DeviceView<'_>, peers: &[PeerStatus]) -> Zeroizing<String> {
    let mut len = Len(0);
    let mut text = Zeroizing::new(String::new());
    // Writing to either of them cannot fail.
    let _ = write_all(&mut len, view, peers);
    text.reserve_exact(len.0);
    let _ = write_all(&mut *text, view, peers);
    debug_assert_eq!(text.len(), len.0);
    text
}

/// Counts bytes.
struct Len(usize);

impl Write for Len {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

fn write_all(out: &mut impl Write, view: &DeviceView<'_>, peers: &[PeerStatus]) -> fmt::Result {
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
    peers.iter().try_for_each(|peer| write_peer(out, peer))?;
    out.write_str("errno=0\n\n")
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
