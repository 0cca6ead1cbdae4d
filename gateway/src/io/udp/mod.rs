//! The kernel's UDP sockets: where handshakes always arrive, where data arrives that XDP left alone, and the
//! lowest rung of the io ladder.

mod options;
mod port;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
pub use port::{UdpCounters, UdpPort, UdpStatistics};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use wireguard::Endpoint;

/// Times a random port is drawn until both families have it.
const PORT_DRAWS_MAX: usize = 16;

/// Datagrams the kernel cuts one `sendmsg` into, at most (`UDP_MAX_SEGMENTS`, include/linux/udp.h).
const SEGMENTS_MAX: usize = 64;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error("UDP port {0} is in use; choose another ListenPort, or stop the program that holds it")]
    InUse(u16),
    /// Anything else.
    #[error("opening UDP port {port} ({family}) failed: {error}")]
    Refused {
        /// The port that was asked for; 0 for any.
        port: u16,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// An IPv4 and an IPv6 socket on one port. Shared by everyone who sends.
#[derive(Debug)]
pub struct UdpSockets {
    port: u16,
    v4: OneFamily,
    /// Absent on a host without IPv6.
    v6: Option<OneFamily>,
}

/// A socket with what quinn-udp found out about its offloads.
#[derive(Debug)]
pub(super) struct OneFamily {
    pub(super) socket: UdpSocket,
    pub(super) state: UdpSocketState,
    /// Whether the kernel cuts one `sendmsg` into datagrams. Off once a device on the way out could not.
    segments: AtomicBool,
}

impl UdpSockets {
    /// Opens both sockets on `port`, or on any port free in both families when it is 0, and marks what they
    /// send with `fwmark` unless that is 0.
    ///
    /// # Errors
    /// [`BindError`]: the port is taken, or the kernel refuses a socket or the mark (which needs
    /// `CAP_NET_ADMIN`).
    pub fn bind(port: u16, fwmark: u32) -> Result<Self, BindError> {
        let mut draws = 1;
        loop {
            match Self::bind_once(port, fwmark) {
                Err(BindError::InUse(_)) if port == 0 && draws < PORT_DRAWS_MAX => draws += 1,
                outcome => return outcome,
            }
        }
    }

    fn bind_once(port: u16, fwmark: u32) -> Result<Self, BindError> {
        let v4 = OneFamily::bind(Domain::IPV4, port, fwmark)?;
        let port = v4
            .socket
            .local_addr()
            .map_err(|error| BindError::Refused { port, family: "IPv4", error })?
            .port();
        let v6 = match OneFamily::bind(Domain::IPV6, port, fwmark) {
            Ok(v6) => Some(v6),
            Err(BindError::Refused { error, .. }) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { port, v4, v6 })
    }

    /// The port both sockets have.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Marks all datagrams sent from now on with `fwmark`, or with none when it is 0. If one of the sockets
    /// refuses, neither is marked anew.
    ///
    /// # Errors
    /// The process lacks `CAP_NET_ADMIN`.
    pub fn set_fwmark(&self, fwmark: u32) -> io::Result<()> {
        // Whether a mark may be set does not depend on the family, so only the first call can fail.
        self.each().try_for_each(|family| SockRef::from(&family.socket).set_mark(fwmark))
    }

    /// Sends one datagram with outer traffic class `tos`, from the endpoint's local address while this host
    /// has it.
    ///
    /// # Errors
    /// What the kernel said: no route, a full buffer, a datagram too long.
    pub fn send(&self, endpoint: &Endpoint, datagram: &[u8], tos: u8) -> io::Result<()> {
        let family = self.of(endpoint.remote).ok_or(Errno::EAFNOSUPPORT)?;
        Ok(family.send(endpoint, &[datagram], tos)?)
    }

    pub(super) fn of(&self, remote: SocketAddr) -> Option<&OneFamily> {
        if remote.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &OneFamily> {
        std::iter::once(&self.v4).chain(&self.v6)
    }
}

impl OneFamily {
    fn bind(domain: Domain, port: u16, fwmark: u32) -> Result<Self, BindError> {
        let (any, family): (IpAddr, _) = match domain {
            Domain::IPV4 => (Ipv4Addr::UNSPECIFIED.into(), "IPv4"),
            _ => (Ipv6Addr::UNSPECIFIED.into(), "IPv6"),
        };
        Self::open(domain, SocketAddr::new(any, port), fwmark).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(port),
            _ => BindError::Refused { port, family, error },
        })
    }

    fn open(domain: Domain, address: SocketAddr, fwmark: u32) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        if fwmark != 0 {
            socket.set_mark(fwmark)?;
        }
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        options::allow_fragmentation(socket.as_fd(), domain == Domain::IPV6)?;
        options::disable_timestamps(&socket)?;
        options::enlarge_buffers(&socket);
        let segments = AtomicBool::new(state.max_gso_segments() > 1);
        Ok(Self { socket, state, segments })
    }

    /// Whether several datagrams may go in one [`OneFamily::send`].
    pub(super) fn has_segmentation(&self) -> bool {
        self.segments.load(Ordering::Relaxed)
    }

    /// Sends `datagrams`, at most [`SEGMENTS_MAX`], which all have the length of the first but for a shorter last
    /// one; from the endpoint's local address while this host has it.
    ///
    /// quinn-udp's own sending takes any `EINVAL` for an old kernel and gives up segmentation and ECN for good;
    /// here a source that is gone or a datagram beyond the MTU says the same.
    pub(super) fn send(&self, endpoint: &Endpoint, datagrams: &[&[u8]], tos: u8) -> Result<(), Errno> {
        let source = endpoint.local.map(|local| local.ip);
        match self.send_from(endpoint.remote, source, datagrams, tos) {
            // The address was taken off this host: any other is better than none.
            Err(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENETUNREACH)
                if source.is_some() =>
            {
                self.send_from(endpoint.remote, None, datagrams, tos)
            }
            // The device computes no checksums, so the kernel does not segment for it (net/ipv4/udp.c).
            Err(Errno::EIO) if datagrams.len() > 1 => {
                self.segments.store(false, Ordering::Relaxed);
                Err(Errno::EIO)
            }
            outcome => outcome,
        }
    }

    fn send_from(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
        datagrams: &[&[u8]],
        tos: u8,
    ) -> Result<(), Errno> {
        let traffic_class = i32::from(tos);
        let segment_len = datagrams.first().map_or(0, |first| first.len() as u16);
        let (info_v4, info_v6) = match source {
            Some(IpAddr::V4(source)) => (Some(options::packet_info_v4(source)), None),
            Some(IpAddr::V6(source)) => (None, Some(options::packet_info_v6(source))),
            None => (None, None),
        };
        let mut messages = ArrayVec::<ControlMessage<'_>, 3>::new();
        if remote.is_ipv4() {
            messages.push(ControlMessage::Ipv4Tos(&tos));
            messages.extend(info_v4.as_ref().map(ControlMessage::Ipv4PacketInfo));
        } else {
            messages.push(ControlMessage::Ipv6TClass(&traffic_class));
            messages.extend(info_v6.as_ref().map(ControlMessage::Ipv6PacketInfo));
        }
        if datagrams.len() > 1 {
            messages.push(ControlMessage::UdpGsoSegments(&segment_len));
        }
        let slices: ArrayVec<io::IoSlice<'_>, SEGMENTS_MAX> =
            datagrams.iter().map(|datagram| io::IoSlice::new(datagram)).collect();
        let to = SockaddrStorage::from(remote);
        loop {
            match sendmsg(self.socket.as_raw_fd(), &slices, &messages, MsgFlags::MSG_DONTWAIT, Some(&to)) {
                Err(Errno::EINTR) => {}
                outcome => return outcome.map(|_| ()),
            }
        }
    }
}

impl AsFd for OneFamily {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
