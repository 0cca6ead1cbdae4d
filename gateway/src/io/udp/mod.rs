//! The kernel's UDP sockets: where handshakes always arrive, where data arrives that XDP left alone, and the
//! lowest rung of the io ladder.

mod options;
mod port;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
pub use port::{UdpCounters, UdpPort, UdpStatistics};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use wireguard::Endpoint;

/// Times a random port is drawn until both families have it.
const PORT_DRAWS_MAX: usize = 16;

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
        let source = endpoint.local.map(|local| local.ip);
        match family.send(endpoint.remote, source, datagram, tos) {
            // The address was taken off this host: any other is better than none.
            Err(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENETUNREACH)
                if source.is_some() =>
            {
                family.send(endpoint.remote, None, datagram, tos).map_err(io::Error::from)
            }
            outcome => outcome.map_err(io::Error::from),
        }
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
        Ok(Self { socket, state })
    }

    fn send(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
        datagram: &[u8],
        tos: u8,
    ) -> Result<(), Errno> {
        let iov = [io::IoSlice::new(datagram)];
        let fd = self.socket.as_raw_fd();
        let to = SockaddrStorage::from(remote);
        let send = |messages: &[ControlMessage<'_>]| {
            sendmsg(fd, &iov, messages, MsgFlags::MSG_DONTWAIT, Some(&to)).map(|_| ())
        };
        let traffic_class = i32::from(tos);
        match (source, remote) {
            (Some(IpAddr::V4(source)), SocketAddr::V4(_)) => {
                let info = options::packet_info_v4(source);
                send(&[ControlMessage::Ipv4Tos(&tos), ControlMessage::Ipv4PacketInfo(&info)])
            }
            (Some(IpAddr::V6(source)), SocketAddr::V6(_)) => {
                let info = options::packet_info_v6(source);
                send(&[ControlMessage::Ipv6TClass(&traffic_class), ControlMessage::Ipv6PacketInfo(&info)])
            }
            (_, SocketAddr::V4(_)) => send(&[ControlMessage::Ipv4Tos(&tos)]),
            (_, SocketAddr::V6(_)) => send(&[ControlMessage::Ipv6TClass(&traffic_class)]),
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
