//! What a driver says of its queues, offloads and flow hash, over the kernel's ethtool netlink family.
//!
//! Numbers of commands and attributes: `include/uapi/linux/ethtool_netlink.h`.

use std::{collections::BTreeSet, io};

use netlink_packet_core::DefaultNla;
use serde::Serialize;

use super::netlink::{Family, attribute, attributes, unsigned};

const FEATURES_GET: u8 = 11;
const CHANNELS_GET: u8 = 17;
const RSS_GET: u8 = 38;

/// `ETHTOOL_A_*_HEADER` is attribute 1 of every command.
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const NESTED: u16 = 1 << 15;

const CHANNELS_RX_MAX: u16 = 2;
const CHANNELS_COMBINED_MAX: u16 = 5;
const CHANNELS_RX_COUNT: u16 = 6;
const CHANNELS_TX_COUNT: u16 = 7;
const CHANNELS_COMBINED_COUNT: u16 = 9;

const FEATURES_HW: u16 = 2;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BITSET_BIT: u16 = 1;
const BIT_NAME: u16 = 2;

const RSS_HFUNC: u16 = 3;
const RSS_INDIR: u16 = 4;
const RSS_FLOW_HASH: u16 = 8;
const FLOW_UDP4: u16 = 6;
const FLOW_UDP6: u16 = 7;

/// Hash fields source address, destination address, source port, destination port (`RXH_*` of `ethtool.h`).
pub const FOUR_TUPLE: u64 = (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7);

/// Queues a driver has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Channels {
    /// Receive queues in use, combined ones included.
    pub rx_count: u32,
    /// Transmit queues in use, combined ones included.
    pub tx_count: u32,
    /// Most receive queues the driver can open, combined ones included.
    pub rx_count_max: u32,
    /// Whether the driver counts pairs of queues (`ethtool -L IF combined N`) or each kind (`rx N tx N`).
    pub combined: bool,
}

/// Offloads of an interface by their ethtool names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Features {
    /// On now.
    pub active: BTreeSet<String>,
    /// Can be switched on and off.
    pub changeable: BTreeSet<String>,
}

impl Features {
    /// Whether the offload called `name` is on.
    pub fn is_active(&self, name: &str) -> bool {
        self.active.contains(name)
    }
}

/// How the NIC spreads packets over its receive queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rss {
    /// Bit set of hash functions in use (`ETH_RSS_HASH_*`): 1 Toeplitz, 2 XOR, 4 CRC32.
    pub hash_functions: u64,
    /// Receive queues that appear in the indirection table.
    pub queues: BTreeSet<u32>,
    /// Fields hashed for UDP over IPv4 (`RXH_*`), where the kernel tells (6.17 and later).
    pub udp4_fields: Option<u64>,
    /// The same for IPv6.
    pub udp6_fields: Option<u64>,
}

/// Queue counts; `None` when the driver has no such operation.
///
/// # Errors
///
/// Whatever the kernel says, except `EOPNOTSUPP`.
pub fn channels(index: u32) -> io::Result<Option<Channels>> {
    Ok(ask(CHANNELS_GET, index)?.map(|reply| parse_channels(&reply)))
}

/// Offloads; `None` when the kernel has no ethtool netlink (before 5.9).
///
/// # Errors
///
/// Whatever the kernel says, except `EOPNOTSUPP`.
pub fn features(index: u32) -> io::Result<Option<Features>> {
    Ok(ask(FEATURES_GET, index)?.map(|reply| Features {
        active: attribute(&reply, FEATURES_ACTIVE).map(bit_names).unwrap_or_default(),
        changeable: attribute(&reply, FEATURES_HW).map(bit_names).unwrap_or_default(),
    }))
}

/// Flow hash and indirection table; `None` when the driver or kernel does not tell.
///
/// # Errors
///
/// Whatever the kernel says, except `EOPNOTSUPP`.
pub fn rss(index: u32) -> io::Result<Option<Rss>> {
    Ok(ask(RSS_GET, index)?.map(|reply| parse_rss(&reply)))
}

/// Sends a request of which the interface is the only argument.
fn ask(command: u8, index: u32) -> io::Result<Option<Vec<u8>>> {
    let answer = Family::open("ethtool").and_then(|mut family| {
        let device = DefaultNla::new(HEADER_DEV_INDEX, index.to_ne_bytes().to_vec());
        let mut header = vec![0; netlink_packet_core::Emitable::buffer_len(&device)];
        netlink_packet_core::Emitable::emit(&device, &mut header);
        family.call(command, &[DefaultNla::new(HEADER | NESTED, header)])
    });
    match answer {
        Ok(reply) => Ok(Some(reply)),
        // ENOENT: no such family. EOPNOTSUPP: no such command, or the driver does not implement it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_channels(reply: &[u8]) -> Channels {
    let number = |kind| attribute(reply, kind).and_then(unsigned).unwrap_or_default() as u32;
    let combined = number(CHANNELS_COMBINED_COUNT);
    Channels {
        rx_count: number(CHANNELS_RX_COUNT) + combined,
        tx_count: number(CHANNELS_TX_COUNT) + combined,
        rx_count_max: number(CHANNELS_RX_MAX).max(number(CHANNELS_COMBINED_MAX)),
        combined: number(CHANNELS_COMBINED_MAX) != 0,
    }
}

fn parse_rss(reply: &[u8]) -> Rss {
    let fields = |flow| {
        let flows = attribute(reply, RSS_FLOW_HASH)?;
        attribute(flows, flow).and_then(unsigned)
    };
    let table = attribute(reply, RSS_INDIR).unwrap_or_default();
    Rss {
        hash_functions: attribute(reply, RSS_HFUNC).and_then(unsigned).unwrap_or_default(),
        queues: table.chunks_exact(4).filter_map(unsigned).map(|queue| queue as u32).collect(),
        udp4_fields: fields(FLOW_UDP4),
        udp6_fields: fields(FLOW_UDP6),
    }
}

/// Names in a verbose bit set. Sets without a mask list only the bits that are set; in a set with a mask, as
/// `hw`, being listed is what counts too.
fn bit_names(bitset: &[u8]) -> BTreeSet<String> {
    let bits = attribute(bitset, BITSET_BITS).unwrap_or_default();
    attributes(bits)
        .filter(|(kind, _)| *kind == BITSET_BIT)
        .filter_map(|(_, bit)| attribute(bit, BIT_NAME))
        .map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn combined_queues_count_as_receive_and_transmit_queues() {
        let mut reply = attribute_bytes(CHANNELS_COMBINED_MAX, &8u32.to_ne_bytes());
        reply.extend(attribute_bytes(CHANNELS_COMBINED_COUNT, &4u32.to_ne_bytes()));
        reply.extend(attribute_bytes(CHANNELS_RX_COUNT, &1u32.to_ne_bytes()));
        let channels = parse_channels(&reply);
        assert_eq!(channels, Channels { rx_count: 5, tx_count: 4, rx_count_max: 8, combined: true });
    }

    #[test]
    fn the_flow_hash_is_unknown_when_the_kernel_does_not_tell() {
        let table: Vec<u8> = [0u32, 1, 0, 3].iter().flat_map(|queue| queue.to_ne_bytes()).collect();
        let reply = attribute_bytes(RSS_INDIR, &table);
        let rss = parse_rss(&reply);
        assert_eq!(rss.queues, [0, 1, 3].into());
        assert_eq!(rss.udp4_fields, None);

        let flows = attribute_bytes(FLOW_UDP4, &(FOUR_TUPLE as u32).to_ne_bytes());
        let rss = parse_rss(&attribute_bytes(RSS_FLOW_HASH | NESTED, &flows));
        assert_eq!(rss.udp4_fields, Some(FOUR_TUPLE));
    }

    #[test]
    fn features_of_loopback_have_names() {
        let features = features(1).expect("ask").expect("kernel with ethtool netlink");
        assert!(features.is_active("loopback"), "{features:?}");
    }
}
