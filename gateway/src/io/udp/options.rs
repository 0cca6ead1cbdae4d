//! Socket options that neither quinn-udp nor socket2 sets.
#![expect(unsafe_code, reason = "one system-call wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};

/// Receive buffer: 10 ms of a 10 Gb/s link, the longest a socket worker may be away.
const RECEIVE_BUFFER_LEN: usize = 16 << 20;
/// Send buffer: 1 ms of a 10 Gb/s link.
const SEND_BUFFER_LEN: usize = 2 << 20;

/// Lets the kernel fragment what is longer than the path: DF is not set on outer packets
/// (drivers/net/wireguard/socket.c, `ignore_df`). quinn-udp, made for QUIC, sets the contrary.
pub(super) fn allow_fragmentation(fd: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if is_v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
    }
    Ok(())
}

/// Switches off receive timestamps, which quinn-udp 0.6 asks for: with them the control messages of a GRO train
/// outgrow its buffer, and the kernel cuts off the last one, the ECN mark.
pub(super) fn disable_timestamps(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &false)?)
}

/// Asks for large buffers, beyond the sysctl limits where the process may. Smaller ones still work.
pub(super) fn enlarge_buffers(socket: &UdpSocket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_LEN).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER_LEN);
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER_LEN).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &SEND_BUFFER_LEN);
    }
}

/// `IP_PKTINFO` that asks for a source address and leaves the interface to the route.
pub(super) fn packet_info_v4(source: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

/// `IPV6_PKTINFO` that asks for a source address and leaves the interface to the route.
pub(super) fn packet_info_v6(source: Ipv6Addr) -> libc::in6_pktinfo {
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 }
}

fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives through the call.
    let status = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
