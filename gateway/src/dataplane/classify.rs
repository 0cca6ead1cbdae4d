//! Frames from a link, told apart: sealed datagrams for us, plain packets for peers. The XDP program let
//! nothing else through; this reads them once more with the same parser, because its tables may be a moment
//! older or newer than ours.

use std::net::{SocketAddr, SocketAddrV6};

use gateway_ebpf::parse;
use wireguard::{Endpoint, LocalAddress};

use super::counters::Verdict;
use super::engine::Engine;
use super::inner::decrement_ttl;
use super::tables::Tables;
use crate::io::{Datagram, Frame, FramePool};

/// What a link is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Sealed datagrams arrive here.
    pub uplink: bool,
    /// Plain packets for peers arrive here.
    pub downlink: bool,
}

impl Engine {
    /// Strips the link headers of `frames`, which arrived on `interface_index`, and sorts them: sealed datagrams to
    /// `datagrams`, packets for peers to `packets`, their TTL already decremented. Others are dropped and counted.
    /// Leaves `frames` empty.
    pub fn classify(
        &mut self,
        pool: &mut FramePool,
        frames: &mut Vec<Frame>,
        interface_index: u32,
        roles: Roles,
        datagrams: &mut Vec<Datagram>,
        packets: &mut Vec<Frame>,
    ) {
        let tables = self.shared.tables.load();
        touch_headers(pool, frames);
        for mut frame in frames.drain(..) {
            if let Some(datagram) = sealed(&tables, pool, &mut frame, interface_index, roles) {
                let (endpoint, ecn) = datagram;
                datagrams.push(Datagram { frame, endpoint, ecn });
            } else if roles.downlink && plain(&tables, pool, &mut frame) {
                packets.push(frame);
            } else {
                self.drop_frame(pool, frame, Verdict::DropUnparsed);
            }
        }
    }
}

/// Another core wrote the packets: their first lines come over one by one, unless all are asked for at once.
fn touch_headers(pool: &FramePool, frames: &[Frame]) {
    if frames.len() > 1 {
        let first = |frame: &Frame| pool.data(frame).first().copied().unwrap_or_default();
        std::hint::black_box(frames.iter().map(first).fold(0, |all, byte| all ^ byte));
    }
}

/// Cuts `frame` down to the UDP payload of a datagram to our port; `None`, and no change, if it is none. Gives where
/// it came from and the ECN field of the outer header.
fn sealed(
    tables: &Tables,
    pool: &FramePool,
    frame: &mut Frame,
    interface_index: u32,
    roles: Roles,
) -> Option<(Endpoint, u8)> {
    if !roles.uplink {
        return None;
    }
    let outer = parse::outer(pool.data(frame)).ok()?;
    let is_a_peers = || roles.downlink && tables.allowed_ips.lookup(outer.ip.destination).is_some();
    if outer.udp.destination_port != tables.listen_port || is_a_peers() {
        return None;
    }
    frame.trim_front(outer.udp.payload_offset);
    frame.set_len(outer.udp.payload_len);
    let local = LocalAddress { ip: outer.ip.destination, interface_index };
    let remote = scoped(outer.source(), interface_index);
    Some((Endpoint { remote, local: Some(local) }, outer.ip.ecn()))
}

/// Cuts `frame` down to an IP packet that may be forwarded into the tunnel; `false`, and no change, if it is none.
fn plain(tables: &Tables, pool: &FramePool, frame: &mut Frame) -> bool {
    let Ok(inner) = parse::inner(pool.data(frame)) else { return false };
    let is_forwardable = inner.ip.hop_limit > 1 && inner.ip.len <= tables.tunnel_mtu;
    if is_forwardable {
        frame.trim_front(inner.ip.offset);
        frame.set_len(inner.ip.len);
        decrement_ttl(pool.data_mut(frame));
    }
    is_forwardable
}

/// `remote` with the link it is on, if its address means nothing without: as the kernel's socket names it.
fn scoped(remote: SocketAddr, interface_index: u32) -> SocketAddr {
    match remote {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, interface_index).into()
        }
        _ => remote,
    }
}
