//! Which frames go to a socket: the whole policy, without a word about maps or XDP actions.

use core::net::IpAddr;

use crate::Reason;
use crate::layout::{Interface, ROLE_DOWNLINK, ROLE_UPLINK, Settings};
use crate::parse::{self, Bytes, Ethernet, Ip, Message, Udp};

/// The look-ups that a decision needs: BPF maps in the kernel, plain sets in tests.
pub trait Tables {
    /// Port and MTU of the tunnel.
    fn settings(&self) -> Settings;
    /// Whether the host has this address.
    fn is_local(&self, address: &IpAddr) -> bool;
    /// Whether some peer's allowed IPs contain this address.
    fn is_allowed(&self, address: &IpAddr) -> bool;
}

/// Decides about one frame. `Data` and `Inner` ask for a socket, anything else for the kernel.
#[inline(always)]
pub fn decide<B: Bytes + ?Sized, T: Tables>(frame: &B, interface: &Interface, tables: &T) -> Reason {
    match try_decide(frame, interface, tables) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn try_decide<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    interface: &Interface,
    tables: &T,
) -> Result<Reason, Reason> {
    let ethernet = parse::ethernet(frame)?;
    let ip = parse::network(frame, &ethernet)?;
    ip.plain()?;
    let settings = tables.settings();

    let mut not_ours = Reason::NotForwardable;
    if interface.roles & ROLE_UPLINK != 0 {
        match datagram_to_us(frame, &ip, &settings, tables) {
            Ok(udp) => return uplink(frame, &ip, &udp),
            Err(reason) => not_ours = reason,
        }
    }
    if interface.roles & ROLE_DOWNLINK == 0 {
        return Err(not_ours);
    }
    downlink(&ethernet, &ip, interface, &settings, tables)
}

/// A datagram to our port on one of our addresses is the uplink's business alone, whatever is in it.
#[inline(always)]
fn datagram_to_us<B: Bytes + ?Sized, T: Tables>(
    frame: &B,
    ip: &Ip,
    settings: &Settings,
    tables: &T,
) -> Result<Udp, Reason> {
    let udp = parse::udp(frame, ip)?;
    if settings.listen_port == [0; 2] || udp.destination_port.to_be_bytes() != settings.listen_port {
        return Err(Reason::OtherPort);
    }
    if !tables.is_local(&ip.destination) {
        return Err(Reason::OtherAddress);
    }
    Ok(udp)
}

#[inline(always)]
fn uplink<B: Bytes + ?Sized>(frame: &B, ip: &Ip, udp: &Udp) -> Result<Reason, Reason> {
    match parse::message(frame, udp)? {
        // The kernel drops martians before a UDP socket sees them; steering must not open a way around that.
        Message::Data if is_martian_source(&ip.source) => Err(Reason::MartianSource),
        Message::Data => Ok(Reason::Data),
        Message::Handshake => Err(Reason::Handshake),
    }
}

#[inline(always)]
fn downlink<T: Tables>(
    ethernet: &Ethernet,
    ip: &Ip,
    interface: &Interface,
    settings: &Settings,
    tables: &T,
) -> Result<Reason, Reason> {
    if ethernet.destination != interface.mac {
        return Err(Reason::OtherMac);
    }
    if !is_forwardable(&ip.destination) {
        return Err(Reason::NotForwardable);
    }
    if !is_forwardable(&ip.source) {
        return Err(Reason::MartianSource);
    }
    if tables.is_local(&ip.destination) {
        return Err(Reason::LocalDestination);
    }
    if !tables.is_allowed(&ip.destination) {
        return Err(Reason::NotAllowed);
    }
    if ip.hop_limit <= 1 {
        return Err(Reason::HopLimit);
    }
    if ip.len > settings.tunnel_mtu as usize {
        return Err(Reason::TooBig);
    }
    Ok(Reason::Inner)
}

/// Addresses that no packet on a wire may come from (RFC 1812 section 5.3.7, RFC 4291 section 2.5).
#[inline(always)]
fn is_martian_source(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..=255),
        // ::/64 holds the unspecified, loopback, IPv4-compatible and IPv4-mapped addresses and no other.
        IpAddr::V6(address) => {
            let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = address.octets();
            b0 == 0xff || (b0 | b1 | b2 | b3 | b4 | b5 | b6 | b7) == 0
        }
    }
}

/// Whether a router may forward to this address: neither multicast, broadcast, loopback nor link-local.
#[inline(always)]
pub fn is_forwardable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !is_martian_source(address) && !matches!(v4.octets(), [169, 254, ..]),
        IpAddr::V6(v6) => {
            let [b0, b1, ..] = v6.octets();
            !is_martian_source(address) && (b0 != 0xfe || b1 & 0xc0 != 0x80)
        }
    }
}
