//! A UDP socket in a namespace that shows the traffic class of what it receives and chooses that of what it sends.

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
        sockopt::{IpRecvTos, Ipv4Tos, Ipv6RecvTClass, Ipv6TClass, ReceiveTimestampns},
    },
    sys::time::TimeSpec,
};

use crate::Namespace;

/// No UDP datagram is longer.
const DATAGRAM_MAX: usize = 65_535;

/// What arrived.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The UDP payload.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub from: SocketAddr,
    /// The outer TOS or traffic class.
    pub tos: u8,
    /// When the kernel got it, however late we were to read it.
    pub at: Instant,
}

/// The socket.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
}

impl Wire {
    /// Opens a socket in `namespace`; port 0 is any port.
    pub fn bind(namespace: &Namespace, local: SocketAddr) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind(local))?;
        let socket = socket.with_context(|| format!("{local} in {} cannot be bound", namespace.name()))?;
        if local.is_ipv4() {
            setsockopt(&socket, IpRecvTos, &true)?;
        } else {
            setsockopt(&socket, Ipv6RecvTClass, &true)?;
        }
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(Self { socket })
    }

    /// Its own address.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends one datagram.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> Result<()> {
        self.socket.send_to(bytes, to).with_context(|| format!("{} bytes to {to}", bytes.len()))?;
        Ok(())
    }

    /// Sets the outer TOS or traffic class of what is sent from now on.
    pub fn use_tos(&self, tos: u8) -> Result<()> {
        if self.local()?.is_ipv4() {
            setsockopt(&self.socket, Ipv4Tos, &i32::from(tos))?;
        } else {
            setsockopt(&self.socket, Ipv6TClass, &i32::from(tos))?;
        }
        Ok(())
    }

    /// The next datagram, or `None` if none comes within `timeout`.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Datagram>> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left))?;
            match self.receive_one() {
                Err(Errno::EAGAIN) if Instant::now() >= end => return Ok(None),
                // An ICMP error that an earlier datagram provoked is reported here.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                other => return other.map(Some).context("a socket of the test cannot be read"),
            }
        }
    }

    fn receive_one(&self) -> Result<Datagram, Errno> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let mut control = nix::cmsg_space!(i32, i32, TimeSpec);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let mut at = Instant::now();
        let mut tos = 0;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4Tos(value) => tos = value,
                ControlMessageOwned::Ipv6TClass(value) => tos = value as u8,
                ControlMessageOwned::ScmTimestampns(stamp) => {
                    let waited = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from(stamp));
                    at = at.checked_sub(waited.unwrap_or_default()).unwrap_or(at);
                }
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(socket_address).ok_or(Errno::EAFNOSUPPORT)?;
        let len = message.bytes;
        buffer.truncate(len);
        Ok(Datagram { bytes: buffer, from, tos, at })
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
