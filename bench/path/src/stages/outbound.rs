//! Stages from an inner packet to a sealed datagram in its outer headers.

use std::hint::black_box;
use std::time::Duration;

use aead::{Packet, TAG_LEN};
use arrayvec::ArrayVec;
use bench::load::Direction;
use gateway::dataplane::engine::BATCH_MAX;
use wireguard::message::{TRANSPORT_HEADER_LEN, TransportHeader};
use wireguard::padded_len;
use zerocopy::IntoBytes;

use super::Bed;
use super::inbound::{classify, on_parsed};
use crate::traffic::Arrival;
use crate::world::NOW;

/// Ethernet and IP headers, TTL.
pub(super) fn classify_packet(bed: &mut Bed) -> Vec<Duration> {
    classify(bed, Direction::Encrypt)
}

/// Whose the inner destination is.
pub(super) fn look_up_peer(bed: &mut Bed) -> Vec<Duration> {
    on_parsed(bed, |tools, _, inner, _| {
        black_box(tools.tables.allowed_ips.lookup(inner.destination));
    })
}

/// Nonces, session and path of each run of packets for one peer.
pub(super) fn reserve(bed: &mut Bed) -> Vec<Duration> {
    bed.on_frames(inner, |tools, _, batch| {
        for run in batch.chunk_by(|one, next| one.client == next.client) {
            let peer = &tools.opening[run[0].client].peer;
            let session = &tools.shadow.clients[run[0].client].session;
            let sending = peer.current().and_then(|index| tools.tables.sessions.lookup(index));
            black_box((peer.path(), sending, session.reserve(run.len() as u32, NOW)));
        }
    })
}

/// Padding, message header and the AEAD, one call per batch.
pub(super) fn seal(bed: &mut Bed) -> Vec<Duration> {
    let mut counter = 0;
    bed.on_frames(inner, |tools, frames, batch| {
        for (arrival, frame) in batch.iter().zip(&mut *frames) {
            let (inner_len, mtu) = (frame.len(), tools.tables.tunnel_mtu);
            assert!(frame.set_len(padded_len(inner_len, mtu) + TAG_LEN), "a packet fits its frame");
            assert!(frame.grow_front(TRANSPORT_HEADER_LEN), "a frame has headroom");
            let message = tools.pool.data_mut(frame);
            let remote = tools.sealing[arrival.client].session.remote_index();
            message[..TRANSPORT_HEADER_LEN].copy_from_slice(TransportHeader::new(remote, counter).as_bytes());
            message[TRANSPORT_HEADER_LEN + inner_len..].fill(0);
        }
        let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = ArrayVec::new();
        for (arrival, message) in batch.iter().zip(tools.pool.data_mut_each(frames)) {
            let key = &tools.sealing[arrival.client].key;
            packets.push(Packet { key, counter, buffer: &mut message[TRANSPORT_HEADER_LEN..] });
            counter += 1;
        }
        tools.aead.seal(&mut packets);
    })
}

/// The outer headers.
pub(super) fn encap(bed: &mut Bed) -> Vec<Duration> {
    bed.on_frames(inner, |tools, frames, batch| {
        for (arrival, frame) in batch.iter().zip(frames) {
            let Some(link) = &tools.paths[arrival.client].link else { panic!("a client is behind a link") };
            assert!(frame.grow_front(link.header.len()), "a frame has headroom");
            link.header.write(tools.pool.data_mut(frame), 0, 0);
        }
    })
}

fn inner(arrival: &Arrival) -> &[u8] {
    &arrival.inner
}
