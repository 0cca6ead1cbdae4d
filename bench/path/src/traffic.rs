//! What arrives at the gateway: whole Ethernet frames, sealed by clients or plain from the server.

use std::net::Ipv4Addr;

use aead::{Aead, Packet, TAG_LEN};
use bench::load::Direction;
use gateway::dataplane::encap::OuterHeader;
use gateway::dataplane::fib::LinkHop;
use gateway::dataplane::inner::{fold, words_sum};
use wireguard::message::{TRANSPORT_HEADER_LEN, TransportHeader};
use wireguard::padded_len;
use zerocopy::IntoBytes;

use crate::world::{Client, DOWNLINK, GATEWAY, LISTEN_PORT, NEIGHBOUR_MAC, SERVER, UPLINK, World};

const TTL: u8 = 64;
/// Larger than any packet made here: padding is to 16 bytes, whatever the MTU.
const PADDED_MAX: usize = 2048;

/// One frame of a client or of the server.
pub struct Arrival {
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// The inner packet.
    pub inner: Vec<u8>,
    /// Which of the world's clients it comes from or goes to.
    pub client: usize,
}

/// `count` frames of `len` bytes of inner packet each that cross the gateway in `direction`. Clients have their turns in
/// a fixed order that looks random, so that with many of them no two packets in a row are of one client; datagrams go
/// on with their sessions' counters.
pub fn arrivals(world: &mut World, direction: Direction, len: usize, count: usize) -> Vec<Arrival> {
    let aead = Aead::detect();
    let mut arrivals = Vec::with_capacity(count);
    for number in 0..count {
        let client = turn_of(number, world.clients.len());
        let other = world.clients[(client + 1) % world.clients.len()].inner;
        let inner = world.clients[client].inner;
        let (source, destination) = match direction {
            Direction::Encrypt => (SERVER, inner),
            Direction::Hairpin => (inner, other),
            Direction::Decrypt | Direction::Bidirectional => (inner, SERVER),
        };
        let inner = ipv4(source, destination, len);
        let frame = match direction {
            Direction::Encrypt => plain(&inner),
            _ => sealed(aead, &mut world.clients[client], &inner),
        };
        arrivals.push(Arrival { frame, inner, client });
    }
    arrivals
}

/// Fibonacci hashing of the packet's number.
fn turn_of(number: usize, client_count: usize) -> usize {
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    hash as usize % client_count
}

fn sealed(aead: Aead, client: &mut Client, inner: &[u8]) -> Vec<u8> {
    let counter = client.counter;
    client.counter += 1;
    let hop = LinkHop {
        interface_index: 0,
        destination_mac: mac(UPLINK),
        source_mac: NEIGHBOUR_MAC,
        mtu: 1500,
        source: None,
    };
    let header = OuterHeader::new(&hop, client.outer, (GATEWAY, LISTEN_PORT).into()).expect("one family");
    let message = header.len() + TRANSPORT_HEADER_LEN;
    let mut frame = vec![0; message + padded_len(inner.len(), PADDED_MAX) + TAG_LEN];
    frame[header.len()..message]
        .copy_from_slice(TransportHeader::new(client.session.local_index(), counter).as_bytes());
    frame[message..][..inner.len()].copy_from_slice(inner);
    aead.seal(&mut [Packet { key: &client.key, counter, buffer: &mut frame[message..] }]);
    header.write(&mut frame, 0, 0);
    frame
}

fn plain(packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend(mac(DOWNLINK));
    frame.extend(NEIGHBOUR_MAC);
    frame.extend([0x08, 0x00]);
    frame.extend(packet);
    frame
}

fn mac(link: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, link as u8]
}

/// A UDP packet of `len` bytes with a right header checksum.
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0x12, 0x34, 0, 0, TTL, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.resize(len, 0x5a);
    let checksum = !fold(words_sum(&packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}
