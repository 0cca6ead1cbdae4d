//! The frames of a trial: sealed before it, so that sending one costs a copy and its headers.

use std::net::SocketAddrV4;

use aead::{Aead, Packet, TAG_LEN};
use anyhow::{Context as _, Result, ensure};
use wireguard::{Time, message::TRANSPORT_HEADER_LEN, padded_len};

use super::packet::{ETHERNET_LEN, HEADERS_LEN, IP_UDP_LEN, write_ethernet, write_ip_udp, write_payload};
use super::schedule::{Lane, Planned, Schedule};
use super::sessions::{Sessions, client_port};
use crate::load::setup::{INNER_PORT, Setup, Side, Tunnel};
use crate::media::clock::now_ns;

/// Packets sealed in one call.
const BATCH: usize = 64;
/// Bytes of sealed datagrams a trial may have.
pub const SEALED_LEN_MAX: usize = 3 << 30;

/// Bytes of the sealed datagram around an inner packet.
pub fn datagram_len(inner_len: u16, mtu: u16) -> usize {
    TRANSPORT_HEADER_LEN + padded_len(inner_len.into(), mtu.into()) + TAG_LEN
}

/// Writes the packets of one trial.
pub struct Traffic<'a> {
    setup: &'a Setup,
    schedule: &'a Schedule,
    trial: u32,
    /// Sealed datagrams, one behind the other in the order in which they are sent.
    sealed: &'a [u8],
    /// Where the next one starts.
    sealed_at: usize,
}

impl<'a> Traffic<'a> {
    /// Seals what of the schedule is sealed, into `memory`, which grows as needed.
    ///
    /// # Errors
    /// It would take more than [`SEALED_LEN_MAX`], or a client has no session.
    pub fn prepare(
        setup: &'a Setup,
        schedule: &'a Schedule,
        sessions: &Sessions,
        aead: Aead,
        trial: u32,
        memory: &'a mut Vec<u8>,
    ) -> Result<Self> {
        let mut len = 0;
        if let Some(tunnel) = &setup.tunnel {
            let upward = (0..schedule.count()).map(|sequence| schedule.packet(sequence));
            len = upward
                .filter(|planned| planned.lane == Lane::Up)
                .map(|planned| datagram_len(planned.inner_len, tunnel.mtu))
                .sum();
            ensure!(
                len <= SEALED_LEN_MAX,
                "{} packets are {len} bytes when sealed, more than {SEALED_LEN_MAX}: use a shorter trial",
                schedule.count()
            );
            if memory.len() < len {
                memory.resize(len, 0);
            }
            seal(setup, tunnel, schedule, sessions, aead, trial, &mut memory[..len])?;
        }
        Ok(Self { setup, schedule, trial, sealed: &memory[..len], sealed_at: 0 })
    }

    /// Length of the frame that carries a packet.
    pub fn frame_len(&self, planned: Planned) -> usize {
        match &self.setup.tunnel {
            None => HEADERS_LEN + datagram_len(planned.inner_len, planned.inner_len),
            Some(tunnel) if planned.lane == Lane::Up => {
                HEADERS_LEN + datagram_len(planned.inner_len, tunnel.mtu)
            }
            Some(_) => ETHERNET_LEN + usize::from(planned.inner_len),
        }
    }

    /// Writes the frame of packet `sequence`. Each is written once, in order.
    #[inline]
    pub fn write(&mut self, sequence: u64, planned: Planned, frame: &mut [u8]) {
        let Setup { clients, server, tunnel, .. } = self.setup;
        let client = SocketAddrV4::new(clients.address, client_port(planned.client));
        let behind = SocketAddrV4::new(server.address, INNER_PORT);
        let packet_len = frame.len() - ETHERNET_LEN;
        let mut headers = |side: &Side, from, to| {
            write_ethernet(frame, side.mac, side.gateway_mac);
            write_ip_udp(&mut frame[ETHERNET_LEN..], from, to, packet_len);
        };
        match (tunnel, planned.lane) {
            (Some(tunnel), Lane::Up) => {
                headers(clients, client, SocketAddrV4::new(tunnel.address, tunnel.port));
                let datagram = &mut frame[HEADERS_LEN..];
                let end = self.sealed_at + datagram.len();
                datagram.copy_from_slice(&self.sealed[self.sealed_at..end]);
                self.sealed_at = end;
                return;
            }
            (Some(tunnel), Lane::Down) => {
                headers(server, behind, SocketAddrV4::new(tunnel.inner(planned.client), INNER_PORT));
            }
            (None, Lane::Up) => headers(clients, client, behind),
            (None, Lane::Down) => headers(server, behind, client),
        }
        write_payload(&mut frame[HEADERS_LEN..], sequence, self.trial);
    }

    /// The schedule it follows.
    pub fn schedule(&self) -> &'a Schedule {
        self.schedule
    }
}

/// Seals all packets from clients into `memory`, which they fill.
fn seal(
    setup: &Setup,
    tunnel: &Tunnel,
    schedule: &Schedule,
    sessions: &Sessions,
    aead: Aead,
    trial: u32,
    memory: &mut [u8],
) -> Result<()> {
    let now = Time(now_ns());
    let mut batch: Vec<Packet<'_>> = Vec::with_capacity(BATCH);
    let mut rest = memory;
    for sequence in 0..schedule.count() {
        let planned = schedule.packet(sequence);
        if planned.lane == Lane::Down {
            continue;
        }
        let (datagram, behind) = rest.split_at_mut(datagram_len(planned.inner_len, tunnel.mtu));
        rest = behind;
        let keyed = sessions.of(planned.client).context("a client has no session")?;
        let counter = keyed.session.reserve(1, now).context("a session may not send any more")?;
        let (header, body) = datagram.split_at_mut(TRANSPORT_HEADER_LEN);
        header[..4].copy_from_slice(&[4, 0, 0, 0]);
        header[4..8].copy_from_slice(&keyed.session.remote_index().to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        let (inner, padding) = body.split_at_mut(planned.inner_len.into());
        padding.fill(0);
        let from = SocketAddrV4::new(tunnel.inner(planned.client), INNER_PORT);
        let to = schedule.hairpin_to(planned.client).map_or(setup.server.address, |to| tunnel.inner(to));
        write_ip_udp(inner, from, SocketAddrV4::new(to, INNER_PORT), planned.inner_len.into());
        write_payload(&mut inner[IP_UDP_LEN..], sequence, trial);
        batch.push(Packet { key: &keyed.sealing, counter, buffer: body });
        if batch.len() == BATCH {
            aead.seal(&mut batch);
            batch.clear();
        }
    }
    aead.seal(&mut batch);
    Ok(())
}
