//! Frames from a link, told apart: sealed datagrams for us, plain packets for peers. The XDP program let
//! nothing else through; this reads them once more with the same parser, because its tables may be a moment
//! older or newer than ours.

use std::net::{SocketAddr, SocketAddrV6};

use gateway_ebpf::parse;
use wireguard::{Endpoint, LocalAddress};

use super::engine::Engine;
use super::inner::decrement_ttl;
use crate::io::{Datagram, Frame, FramePool};

/// A frame without its link-layer header.
#[derive(Debug)]
pub enum Plain {
    /// A UDP payload sent to our port.
    Datagram(Datagram),
    /// An IP packet to be sealed, its TTL already decremented.
    Packet(Frame),
}

/// What a link is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Sealed datagrams arrive here.
    pub uplink: bool,
    /// Plain packets for peers arrive here.
    pub downlink: bool,
}

impl Engine {
    /// Strips the link header of a frame that arrived on `interface_index`.
    ///
    /// # Errors
    /// The frame is neither of the two kinds, and given back.
    pub fn classify(
        &mut self,
        pool: &mut FramePool,
        frame: Frame,
        interface_index: u32,
        roles: Roles,
    ) -> Result<Plain, Frame> {
        if roles.uplink
            && let Ok(outer) = parse::outer(pool.data(&frame))
            && outer.udp.destination_port == self.tables.load().listen_port
            && !(roles.downlink && self.leads_to_a_peer(outer.ip.destination))
        {
            let mut frame = frame;
            frame.trim_front(outer.udp.payload_offset);
            frame.set_len(outer.udp.payload_len);
            let local = LocalAddress { ip: outer.ip.destination, interface_index };
            let remote = scoped(outer.source(), interface_index);
            let endpoint = Endpoint { remote, local: Some(local) };
            return Ok(Plain::Datagram(Datagram { frame, endpoint, ecn: outer.ip.ecn() }));
        }
        if roles.downlink { self.classify_packet(pool, frame) } else { Err(frame) }
    }

    fn classify_packet(&mut self, pool: &mut FramePool, mut frame: Frame) -> Result<Plain, Frame> {
        let tunnel_mtu = self.tables.load().tunnel_mtu;
        match parse::inner(pool.data(&frame)) {
            Ok(inner) if inner.ip.hop_limit > 1 && inner.ip.len <= tunnel_mtu => {
                frame.trim_front(inner.ip.offset);
                frame.set_len(inner.ip.len);
                decrement_ttl(pool.data_mut(&mut frame));
                Ok(Plain::Packet(frame))
            }
            _ => Err(frame),
        }
    }

    fn leads_to_a_peer(&mut self, destination: std::net::IpAddr) -> bool {
        self.tables.load().allowed_ips.lookup(destination).is_some()
    }
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
