//! The data plane on memory: any packets and datagrams; every frame comes back, and what comes out was put in.

use std::{cell::RefCell, net::SocketAddr};

use wireguard::InnerHeader;

use crate::{
    input::Input,
    laboratory::{Arriving, CLIENT, CLIENT_INNER_V6, Laboratory, OTHER, Peer, SERVER, SERVER_V6, Sent},
    laboratory::{ipv4, ipv6, opened, opened_datagram, sealed},
};

thread_local! {
    /// Making one takes as long as a thousand packets. Counters and the replay window go on from input to input.
    static LABORATORY: RefCell<Laboratory> = RefCell::new(Laboratory::new());
}

/// Passes batches through the engine in both directions. The laboratory counts the frames.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    LABORATORY.with_borrow_mut(|lab| {
        while input.has_step() {
            if input.value() {
                outbound(&mut input, lab);
            } else {
                inbound(&mut input, lab);
            }
            // Whom control would serve.
            drop((lab.events(), lab.handshakes()));
        }
    });
}

/// An IP packet of ours or none, damaged or whole.
fn packet(input: &mut Input) -> Vec<u8> {
    let (client, other) = (CLIENT.inner, OTHER.inner);
    let ttl = input.value();
    let len = 40 + input.below(100);
    let mut packet = match input.below(8) {
        0 => return input.bytes(200).to_vec(),
        1 => ipv4(client, SERVER, len, ttl),
        2 => ipv4(SERVER, client, len, ttl),
        3 => ipv4(SERVER, other, len, ttl),
        4 => ipv4(client, other, len, ttl),
        5 => ipv6(CLIENT_INNER_V6, SERVER_V6, len, ttl),
        6 => ipv6(SERVER_V6, CLIENT_INNER_V6, len, ttl),
        _ => ipv4(SERVER, client, 1300 + input.below(300), ttl),
    };
    input.corrupt(&mut packet);
    packet
}

fn outbound(input: &mut Input, lab: &mut Laboratory) {
    let packets: Vec<Vec<u8>> = (0..input.below(40)).map(|_| packet(input)).collect();
    for sent in lab.outbound(&packets) {
        let inner = match sent {
            Sent::Link { frame, .. } => opened(whose(payload(&frame)), &frame),
            Sent::Socket { datagram, .. } => opened_datagram(whose(&datagram), &datagram),
            Sent::Tunnel(_) => panic!("a packet from the tunnel went back to it"),
        };
        let is_ours = packets.iter().any(|packet| packet.starts_with(&inner));
        assert!(is_ours, "sealed {inner:02x?}, which nobody sent");
    }
}

/// The peer a sealed datagram is for, by its receiver index: addresses follow whatever packet came last.
fn whose(datagram: &[u8]) -> &'static Peer {
    match datagram[4..8] {
        [1, 16, 0, 0] => &OTHER,
        _ => &CLIENT,
    }
}

/// The datagram in a frame.
fn payload(frame: &[u8]) -> &[u8] {
    let outer = gateway_ebpf::parse::outer(frame).expect("a whole UDP frame");
    &frame[outer.udp.payload_offset..][..outer.udp.payload_len]
}

fn inbound(input: &mut Input, lab: &mut Laboratory) {
    let mut plain = Vec::new();
    let arriving: Vec<Arriving> = (0..input.below(40))
        .map(|_| {
            let source = SocketAddr::from(([203, 0, 113, input.value()], 40000));
            let ecn = input.value::<u8>() & 3;
            let bytes = match input.below(4) {
                0 => input.bytes(200).to_vec(),
                kind => {
                    let packet = packet(input);
                    let peer = if input.value() { &CLIENT } else { &OTHER };
                    let mut bytes = sealed(peer, lab.next_counter(), &packet).bytes;
                    // The header of a packet cut short may reach into the padding.
                    let mut padded = packet;
                    padded.resize(padded.len().next_multiple_of(16), 0);
                    plain.push(padded);
                    if kind == 1 {
                        input.corrupt(&mut bytes);
                    }
                    bytes
                }
            };
            Arriving { bytes, source, ecn }
        })
        .collect();
    for sent in lab.inbound(&arriving) {
        let (len, addresses) = match sent {
            Sent::Link { frame, interface_index: crate::laboratory::UPLINK } => {
                facts(&opened(whose(payload(&frame)), &frame))
            }
            Sent::Link { frame, .. } => facts(&frame[14..]),
            Sent::Tunnel(packet) => facts(&packet),
            Sent::Socket { datagram, .. } => facts(&opened_datagram(whose(&datagram), &datagram)),
        };
        let is_known = plain.iter().any(|packet| {
            InnerHeader::parse(packet)
                .is_some_and(|header| (header.len, [header.source, header.destination]) == (len, addresses))
        });
        assert!(is_known, "{len} bytes of {addresses:?} were never sealed");
        let allowed = [CLIENT.inner, OTHER.inner, CLIENT_INNER_V6];
        assert!(allowed.contains(&addresses[0]), "{} is nobody's source", addresses[0]);
    }
}

/// Length and addresses, which no router changes.
fn facts(packet: &[u8]) -> (usize, [std::net::IpAddr; 2]) {
    let header = InnerHeader::parse(packet).expect("what leaves is an IP packet");
    (header.len, [header.source, header.destination])
}
