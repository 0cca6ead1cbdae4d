//! Stages from a sealed datagram to a frame for the server.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aead::Packet;
use arrayvec::ArrayVec;
use bench::load::Direction;
use gateway::dataplane::encap::write_ethernet;
use gateway::dataplane::engine::BATCH_MAX;
use gateway::dataplane::fib::{NextHop, RepeatedLookup};
use gateway::dataplane::inner::{decapsulate_ecn, decrement_ttl};
use gateway::io::Frame;
use gateway_ebpf::parse::{self, ETHERNET_LEN, IPV4_LEN, Ip, UDP_LEN};
use gateway_ebpf::steer::is_forwardable;
use wireguard::message::{TRANSPORT_HEADER_LEN, TransportHeader};
use zerocopy::FromBytes;

use super::{Bed, Tools, entrance};
use crate::traffic::Arrival;
use crate::world::SERVER;

const OUTER_LEN: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;

fn message(arrival: &Arrival) -> &[u8] {
    &arrival.frame[OUTER_LEN..]
}

fn header(message: &[u8]) -> &TransportHeader {
    TransportHeader::ref_from_prefix(message).expect("a message has a header").0
}

/// Ethernet, IP and UDP headers; is it for us.
pub(super) fn classify_datagram(bed: &mut Bed) -> Vec<Duration> {
    classify(bed, Direction::Decrypt)
}

pub(super) fn classify(bed: &mut Bed, direction: Direction) -> Vec<Duration> {
    let (link, roles) = entrance(direction);
    let (mut datagrams, mut packets) = (Vec::with_capacity(BATCH_MAX), Vec::with_capacity(BATCH_MAX));
    bed.on_frames(
        |arrival| &arrival.frame,
        |tools, frames, _| {
            tools.engine.classify(tools.pool, frames, link, roles, &mut datagrams, &mut packets);
            frames.extend(datagrams.drain(..).map(|datagram| datagram.frame));
            frames.append(&mut packets);
        },
    )
}

/// The session of each run of messages.
pub(super) fn look_up_session(bed: &mut Bed) -> Vec<Duration> {
    bed.on_frames(message, |tools, frames, _| {
        let mut runs: ArrayVec<u32, BATCH_MAX> = ArrayVec::new();
        for frame in &*frames {
            let receiver = header(tools.pool.data(frame)).receiver_index.get();
            if runs.last() != Some(&receiver) {
                runs.push(receiver);
            }
        }
        let mut slots = runs.clone();
        tools.tables.sessions.slots_of(&mut slots);
        for (slot, receiver) in slots.into_iter().zip(runs) {
            black_box(tools.tables.sessions.at(slot, receiver));
        }
    })
}

/// The AEAD, one call per batch.
pub(super) fn open(bed: &mut Bed) -> Vec<Duration> {
    let mut authentic = Vec::with_capacity(BATCH_MAX);
    let times = bed.on_frames(message, |tools, frames, batch| {
        let mut packets: ArrayVec<Packet<'_>, BATCH_MAX> = ArrayVec::new();
        for (arrival, buffer) in batch.iter().zip(tools.pool.data_mut_each(frames)) {
            let counter = header(buffer).counter.get();
            let key = &tools.opening[arrival.client].opening;
            packets.push(Packet { key, counter, buffer: &mut buffer[TRANSPORT_HEADER_LEN..] });
        }
        tools.aead.open(&mut packets, &mut authentic);
    });
    assert!(authentic.iter().all(|is_authentic| *is_authentic), "a message did not open");
    times
}

/// The replay window of each run of messages.
pub(super) fn replay(bed: &mut Bed) -> Vec<Duration> {
    bed.on_frames(message, |tools, frames, batch| {
        let mut packets = batch.iter().zip(&*frames).peekable();
        while let Some((arrival, frame)) = packets.next() {
            let mut window = tools.shadow.clients[arrival.client].session.replay();
            let mut accept = |frame| {
                let counter = header(tools.pool.data(frame)).counter.get();
                let _ = black_box(window.accept(counter));
            };
            accept(frame);
            while let Some((_, frame)) = packets.next_if(|(next, _)| next.client == arrival.client) {
                accept(frame);
            }
        }
    })
}

/// The inner header, and the ECN field of the outer one.
pub(super) fn parse_inner(bed: &mut Bed) -> Vec<Duration> {
    on_inner(bed, |tools, _, frame| {
        let packet = tools.pool.data_mut(frame);
        if let Ok(inner) = parse::ip(packet) {
            black_box(decapsulate_ecn(0, &inner, packet));
            black_box(inner);
        }
    })
}

/// Whose the inner source is.
pub(super) fn look_up_source(bed: &mut Bed) -> Vec<Duration> {
    on_parsed(bed, |tools, arrival, inner, _| {
        black_box(tools.opening[arrival.client].is_source_allowed(inner.source, tools.tables));
    })
}

/// Where the inner destination is reached.
pub(super) fn route(bed: &mut Bed) -> Vec<Duration> {
    let tables = Arc::clone(&bed.tables);
    let mut fib = RepeatedLookup::new(&tables.fib);
    on_parsed(bed, |_, _, inner, _| {
        black_box(is_forwardable(&inner.source) && is_forwardable(&inner.destination));
        black_box(fib.next_hop(inner.destination));
    })
}

/// TTL and Ethernet header of what leaves by a link.
pub(super) fn rewrite(bed: &mut Bed) -> Vec<Duration> {
    let NextHop::Link(hop) = bed.tables.fib.lookup(SERVER.into()) else { panic!("the server is on a link") };
    on_inner(bed, |tools, _, frame| {
        decrement_ttl(tools.pool.data_mut(frame));
        frame.grow_front(ETHERNET_LEN);
        write_ethernet(tools.pool.data_mut(frame), &hop, false);
    })
}

/// Times `stage` on each inner packet.
fn on_inner(bed: &mut Bed, mut stage: impl FnMut(&mut Tools<'_>, &Arrival, &mut Frame)) -> Vec<Duration> {
    bed.on_frames(
        |arrival| &arrival.inner,
        |tools, frames, batch| {
            for (arrival, frame) in batch.iter().zip(frames) {
                stage(tools, arrival, frame);
            }
        },
    )
}

/// Times `stage` on each inner header, parsed before.
pub(super) fn on_parsed(
    bed: &mut Bed,
    mut stage: impl FnMut(&Tools<'_>, &Arrival, &Ip, &mut Frame),
) -> Vec<Duration> {
    let parsed: Vec<Ip> =
        bed.arrivals.iter().map(|arrival| parse::ip(&arrival.inner).expect("an IP packet")).collect();
    let mut parsed = parsed.iter();
    on_inner(bed, |tools, arrival, frame| {
        let inner = parsed.next().expect("as many as arrivals");
        stage(tools, arrival, inner, frame);
    })
}
