//! Datagrams of exact sizes through the tunnel and back, compared byte for byte.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Namespace, site::Family};

/// Nothing on the way takes this long; a datagram that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A UDP socket on either side of the tunnel.
#[derive(Debug)]
pub struct Echo {
    near: UdpSocket,
    far: UdpSocket,
}

impl Echo {
    /// Opens both: `near` asks and `far` answers.
    pub fn open(near: (&Namespace, IpAddr), far: (&Namespace, IpAddr)) -> Result<Self> {
        let open = |(namespace, address): (&Namespace, IpAddr)| -> Result<UdpSocket> {
            let socket = namespace
                .enter(|| UdpSocket::bind((address, 0)))?
                .with_context(|| format!("{address} in {}", namespace.name()))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        Ok(Self { near: open(near)?, far: open(far)? })
    }

    /// For each length a datagram to the far side and one back; not one may be lost or changed.
    pub fn exchange(&self, payload_lens: &[usize]) -> Result<()> {
        for (number, len) in payload_lens.iter().enumerate() {
            deliver(&self.near, &self.far, *len, number as u8).with_context(|| format!("{len} bytes out"))?;
            deliver(&self.far, &self.near, *len, !(number as u8))
                .with_context(|| format!("{len} bytes back"))?;
        }
        Ok(())
    }
}

/// Payloads that are interesting for padding, up to what fits into a tunnel of this MTU.
pub fn payload_lens(family: Family, mtu: usize) -> Vec<usize> {
    let max = mtu - header_len(family);
    let mut lens: Vec<_> = [0, 1, 3, 4, 5, 15, 16, 17, 31, 36, 64, 100, 255, 500, 1000, 1200].into();
    lens.extend((0..=17).rev().map(|less| max - less));
    lens
}

/// What an IP header without options and a UDP header take.
pub(crate) fn header_len(family: Family) -> usize {
    match family {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    }
}

fn deliver(from: &UdpSocket, to: &UdpSocket, len: usize, seed: u8) -> Result<()> {
    let sent: Vec<u8> = (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    from.send_to(&sent, to.local_addr()?)?;
    let mut buffer = vec![0; 65_536];
    let (received_len, source) = to.recv_from(&mut buffer).context("it did not arrive")?;
    ensure!(source == from.local_addr()?, "it came from {source}");
    ensure!(received_len == len, "{received_len} bytes arrived");
    ensure!(buffer[..len] == sent, "other bytes arrived than were sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_reach_the_mtu_exactly() {
        for family in Family::BOTH {
            let lens = payload_lens(family, 1420);
            assert_eq!(lens.iter().max(), Some(&(1420 - header_len(family))));
            assert_eq!(lens.iter().min(), Some(&0));
        }
    }
}
