//! Faults put into the devices, to see that the checker finds them.

use std::net::SocketAddr;

use wireguard::MessageType;

use crate::{
    eavesdropper::MARKER_TAG,
    node::{Node, Sent},
    world::World,
};

/// What a broken implementation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ReusedNonce,
    DoubleDelivery,
    AnswerToNoise,
    Plaintext,
    ForeignSource,
    ShortPadding,
    ReservedBits,
    LeakedDscp,
    ForgedMac,
    LostData,
    ChangedPacket,
}

impl Fault {
    /// Changes what a node sends.
    pub fn spoil_wire(self, sent: &mut Sent, recorded: &[Sent]) {
        let kind = MessageType::classify(&sent.datagram);
        let is_data = kind == Ok(MessageType::Transport) && sent.datagram.len() > 64;
        match self {
            Self::ReusedNonce if is_data => {
                let same = |old: &&Sent| old.datagram[..8] == sent.datagram[..8];
                if let Some(old) = recorded.iter().find(same) {
                    sent.datagram[8..16].copy_from_slice(&old.datagram[8..16]);
                }
            }
            Self::Plaintext if is_data => sent.datagram[40..44].copy_from_slice(&MARKER_TAG),
            Self::ShortPadding if is_data => {
                sent.datagram.pop();
            }
            Self::ReservedBits => sent.datagram[2] = 1,
            Self::LeakedDscp if is_data => sent.tos |= 0x20,
            Self::ForgedMac if kind == Ok(MessageType::HandshakeInitiation) => sent.datagram[120] ^= 1,
            Self::LostData if is_data => sent.datagram[20] ^= 1,
            _ => {}
        }
    }

    /// Changes what a node does with a datagram.
    pub fn spoil_node(self, node: &mut Node, harmless: bool, from: SocketAddr) {
        match self {
            Self::DoubleDelivery => node.delivered.extend(node.delivered.clone()),
            Self::AnswerToNoise if harmless => {
                node.outbox.push(Sent { to: from, datagram: vec![0; 32], tos: 0 });
            }
            Self::ChangedPacket => {
                for delivered in &mut node.delivered {
                    delivered.packet[15] ^= 1;
                }
            }
            _ => {}
        }
    }
}

#[test]
fn each_injected_fault_is_found() {
    let faults = [
        (Fault::ReusedNonce, "P4: node"),
        (Fault::DoubleDelivery, "P4: a packet came twice"),
        (Fault::AnswerToNoise, "P1.3"),
        (Fault::Plaintext, "plaintext"),
        (Fault::ForeignSource, "P11: node"),
        (Fault::ChangedPacket, "changed"),
        (Fault::ShortPadding, "P9"),
        (Fault::ReservedBits, "P1"),
        (Fault::LeakedDscp, "P9: TOS"),
        (Fault::ForgedMac, "mac1"),
        (Fault::LostData, "liveness"),
    ];
    for (fault, words) in faults {
        let found = (0..8).filter_map(|seed| World::new(seed, Some(fault)).run(60).err());
        let found: Vec<_> = found.collect();
        assert!(found.iter().any(|broken| broken.contains(words)), "{fault:?}: {found:?}");
    }
}
