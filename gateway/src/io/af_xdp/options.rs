//! What `getsockopt(2)` tells of an AF_XDP socket and `setsockopt(2)` changes (`Documentation/networking/af_xdp.rst`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use serde::Serialize;

use super::BURST;

/// Offsets in the mapping of a ring, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingOffsets {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) descriptors: usize,
    pub(super) flags: usize,
}

/// `struct xdp_statistics` of `linux/if_xdp.h`: what the kernel dropped or missed, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelStatistics {
    /// Dropped for reasons other than a full or empty ring.
    pub rx_dropped: u64,
    /// Dropped because a fill descriptor was invalid.
    pub rx_invalid_descriptors: u64,
    /// Not sent because a transmit descriptor was invalid.
    pub tx_invalid_descriptors: u64,
    /// Dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Failed to take a frame from the fill ring.
    pub fill_ring_empty: u64,
    /// Failed to take a descriptor from the transmit ring.
    pub tx_ring_empty: u64,
}

/// The offsets of the socket's transmit ring.
pub(super) fn ring_offsets(fd: BorrowedFd<'_>) -> io::Result<RingOffsets> {
    let offsets: libc::xdp_mmap_offsets = option(fd, libc::XDP_MMAP_OFFSETS)?;
    let tx = offsets.tx;
    Ok(RingOffsets {
        producer: tx.producer as usize,
        consumer: tx.consumer as usize,
        descriptors: tx.desc as usize,
        flags: tx.flags as usize,
    })
}

/// Whether the socket moves frames without copying them.
pub(super) fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let options: libc::xdp_options = option(fd, libc::XDP_OPTIONS)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// The kernel's counters.
pub(super) fn statistics(fd: BorrowedFd<'_>) -> io::Result<KernelStatistics> {
    let statistics: libc::xdp_statistics = option(fd, libc::XDP_STATISTICS)?;
    Ok(KernelStatistics {
        rx_dropped: statistics.rx_dropped,
        rx_invalid_descriptors: statistics.rx_invalid_descs,
        tx_invalid_descriptors: statistics.tx_invalid_descs,
        rx_ring_full: statistics.rx_ring_full,
        fill_ring_empty: statistics.rx_fill_ring_empty_descs,
        tx_ring_empty: statistics.tx_ring_empty_descs,
    })
}

/// `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h`, since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Lets one `sendto(2)` in copy mode send up to `packets` (from 32 to the length of the transmit ring) instead of 32.
///
/// # Errors
/// The kernel does not know the option or the number is out of range: 32 it stays.
pub(super) fn set_transmit_budget(fd: BorrowedFd<'_>, packets: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, packets)
}

/// `SO_PREFER_BUSY_POLL` and `SO_BUSY_POLL_BUDGET` of `asm-generic/socket.h`, since Linux 5.11.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// What has a system call on the socket poll the queue's NAPI instance: option, name and value. A call that does not
/// block polls once whatever the number of microseconds, which only must not be 0 (`__xsk_recvmsg`, net/xdp/xsk.c).
const BUSY_POLL: [(libc::c_int, &str, u32); 3] = [
    (SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL", 1),
    (libc::SO_BUSY_POLL, "SO_BUSY_POLL", 20),
    (SO_BUSY_POLL_BUDGET, "SO_BUSY_POLL_BUDGET", BURST as u32),
];

/// A socket option that the kernel refused.
#[derive(Debug)]
pub(super) struct RefusedOption {
    pub(super) option: &'static str,
    pub(super) value: u32,
    pub(super) source: io::Error,
}

/// Has each `sendto(2)` and `recvfrom(2)` poll the NAPI instance the socket receives from, which thereby prefers being
/// polled to interrupts (`Documentation/networking/napi.rst`, "Busy polling").
///
/// # Errors
/// The first option refused: `ENOPROTOOPT` before Linux 5.11, `EPERM` without `CAP_NET_ADMIN`.
pub(super) fn prefer_busy_poll(fd: BorrowedFd<'_>) -> Result<(), RefusedOption> {
    BUSY_POLL.into_iter().try_for_each(|(name, option, value)| {
        set_option(fd, libc::SOL_SOCKET, name, value).map_err(|source| RefusedOption {
            option,
            value,
            source,
        })
    })
}

/// The NAPI instance that system calls on the socket poll; `None` while the kernel knows of none, and polls nothing.
///
/// Linux 6.14 and later find it out when the socket is bound, in zero-copy mode only (`xsk_bind`, net/xdp/xsk.c);
/// before 6.13 a packet that was received told it, in both modes; 6.13 itself never learns it.
pub(super) fn napi_id(fd: BorrowedFd<'_>) -> Option<u32> {
    let id: libc::c_int = option_of(fd, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID).ok()?;
    u32::try_from(id).ok().filter(|id| *id != 0)
}

/// Types of which any bytes make a value.
///
/// # Safety
/// The type consists of integers only.
unsafe trait Integers: Sized {}
// SAFETY: an integer.
unsafe impl Integers for libc::c_int {}
// SAFETY: integers only (`linux/if_xdp.h`).
unsafe impl Integers for libc::xdp_mmap_offsets {}
// SAFETY: integers only (`linux/if_xdp.h`).
unsafe impl Integers for libc::xdp_options {}
// SAFETY: integers only (`linux/if_xdp.h`).
unsafe impl Integers for libc::xdp_statistics {}

fn option<T: Integers>(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    option_of(fd, libc::SOL_XDP, name)
}

fn option_of<T: Integers>(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    // SAFETY: integers are valid as zeros.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is writable memory of `len` bytes, and any bytes make a value (`Integers`).
    let status =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if status == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_uint,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is readable memory of `len` bytes for the time of the call.
    let status = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};

    use rustix::net::{AddressFamily, SocketType, sockopt};

    use super::super::{link::TRANSMIT_BUDGET, ring_len};
    use super::*;
    use crate::report;

    /// A socket with a transmit ring of a link's length, bound to nothing; `None` where that is not allowed, and then
    /// `test` counts as skipped.
    fn socket_with_ring(test: &str) -> Option<OwnedFd> {
        match rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None) {
            Ok(socket) => {
                set_option(socket.as_fd(), libc::SOL_XDP, libc::XDP_TX_RING, ring_len::TX).expect("a ring");
                Some(socket)
            }
            Err(error) => {
                report::skip(test, &format!("needs an AF_XDP socket, and so CAP_NET_RAW: {error}"));
                None
            }
        }
    }

    #[test]
    fn the_kernel_takes_a_transmit_budget_that_fits_the_ring_and_no_other() {
        let test = "the_kernel_takes_a_transmit_budget_that_fits_the_ring_and_no_other";
        let Some(socket) = socket_with_ring(test) else { return };
        match set_transmit_budget(socket.as_fd(), TRANSMIT_BUDGET) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                report::skip(test, "needs Linux 6.17");
            }
            outcome => {
                outcome.expect("from 32 to the ring's length");
                for packets in [31, ring_len::TX + 1] {
                    assert!(set_transmit_budget(socket.as_fd(), packets).is_err(), "{packets}");
                }
            }
        }
    }

    #[test]
    fn a_socket_that_polls_prefers_it_to_interrupts() {
        let Some(socket) = socket_with_ring("a_socket_that_polls_prefers_it_to_interrupts") else { return };
        prefer_busy_poll(socket.as_fd()).expect("Linux 5.11 and CAP_NET_ADMIN");
        // The kernel takes SO_BUSY_POLL_BUDGET but does not tell it (`sk_getsockopt`, net/core/sock.c).
        for (option, name, value) in
            BUSY_POLL.into_iter().filter(|(option, ..)| *option != SO_BUSY_POLL_BUDGET)
        {
            let set: libc::c_int = option_of(socket.as_fd(), libc::SOL_SOCKET, option).expect(name);
            assert_eq!(u32::try_from(set), Ok(value), "{name}");
        }
    }

    #[test]
    fn an_option_that_the_kernel_does_not_know_changes_nothing() {
        let test = "an_option_that_the_kernel_does_not_know_changes_nothing";
        let Some(socket) = socket_with_ring(test) else { return };
        let before = sockopt::socket_send_buffer_size(&socket).expect("a size");
        let error = set_option(socket.as_fd(), libc::SOL_XDP, 999, 512).expect_err("no such option");
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
        assert_eq!(sockopt::socket_send_buffer_size(&socket).expect("a size"), before);
    }
}
