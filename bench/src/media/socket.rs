//! UDP sockets with room for bursts, and what the kernel knows about their drops.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context as _, Result, ensure};
use rustix::net::sockopt;

use super::packet::HEADER_LEN;

/// Holds a second of 20,000 packets of 1228 bytes with the kernel's overhead for each.
const BUFFER_LEN: usize = 32 << 20;

const IPV4_UDP_HEADERS_LEN: usize = 20 + 8;
const IPV6_UDP_HEADERS_LEN: usize = 40 + 8;

/// The UDP payload of an IP packet of `packet_len` bytes to `to`, without IP options.
///
/// # Errors
/// When such a packet has no room for our header, or cannot exist.
pub fn udp_payload_len(packet_len: usize, to: IpAddr) -> Result<usize> {
    let headers_len = if to.is_ipv4() { IPV4_UDP_HEADERS_LEN } else { IPV6_UDP_HEADERS_LEN };
    let least = headers_len + HEADER_LEN;
    ensure!(
        (least..=usize::from(u16::MAX)).contains(&packet_len),
        "a packet of {packet_len} bytes to {to} is not possible: choose {least} to 65535"
    );
    Ok(packet_len - headers_len)
}

/// A socket that receives at `address`.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket =
        UdpSocket::bind(address).with_context(|| format!("cannot bind a UDP socket to {address}"))?;
    enlarge(&socket);
    Ok(socket)
}

/// A socket that exchanges packets with `to` only, from `from` or whatever address the kernel picks.
///
/// # Errors
/// When there is no route, or the address cannot be bound.
pub fn connect(to: SocketAddr, from: Option<SocketAddr>) -> Result<UdpSocket> {
    let unspecified = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = bind(from.unwrap_or_else(|| SocketAddr::new(unspecified, 0)))?;
    socket.connect(to).with_context(|| format!("cannot reach {to}"))?;
    Ok(socket)
}

/// Best effort: past the system's limit only with `CAP_NET_ADMIN`, else up to that limit. Drops are reported.
fn enlarge(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_LEN).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, BUFFER_LEN);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER_LEN).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, BUFFER_LEN);
    }
}

/// Datagrams dropped at this socket because its buffer was full, from the last column of `/proc/net/udp`.
pub(super) fn drops(socket: &UdpSocket) -> Option<u64> {
    let inode = inode(socket).ok()?.to_string();
    let table =
        if socket.local_addr().ok()?.is_ipv4() { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
    drops_in(&fs::read_to_string(table).ok()?, &inode)
}

fn inode(socket: &UdpSocket) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket.as_fd())?.st_ino)
}

/// Columns (`udp4_format_sock` in net/ipv4/udp.c): the inode is the tenth, the drops the last.
fn drops_in(table: &str, inode: &str) -> Option<u64> {
    const INODE_COLUMN: usize = 9;
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.get(INODE_COLUMN) == Some(&inode))
        .and_then(|columns| columns.last()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_that_of_the_inner_ip_packet() {
        let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        assert_eq!(udp_payload_len(1_228, v4).expect("fits"), 1_200);
        assert_eq!(udp_payload_len(1_228, v6).expect("fits"), 1_180);
        assert!(udp_payload_len(59, v4).is_err());
        assert!(udp_payload_len(70_000, v4).expect_err("too large").to_string().contains("70000"));
    }

    #[test]
    fn drops_are_read_from_the_sockets_own_line() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
            10: 0100007F:138C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 3\n  \
            11: 0100007F:138D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 42\n";
        assert_eq!(drops_in(table, "4712"), Some(42));
        assert_eq!(drops_in(table, "4713"), None);
    }

    #[test]
    fn own_socket_is_found_in_the_kernels_table() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback can be bound");
        assert_eq!(drops(&socket), Some(0));
    }
}
