//! Raw ICMP sockets to send errors through. The kernel chooses the source address and the route, and its connection
//! tracking translates what a packet quoted in an error was translated from.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{Unreachable, UnreachablePort};

/// Type of service of ICMP errors: internetwork control (RFC 1812, section 4.3.2.5).
const TOS_INTERNETWORK_CONTROL: u32 = 0xc0;

/// `BPF_RET | BPF_K` with length 0 (linux/filter.h): nothing is received.
const RECEIVE_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Sockets for errors of both families.
#[derive(Debug)]
pub struct IcmpSockets {
    v4: Socket,
    /// Tells broadcast addresses from others: connecting to one is refused.
    probe: Socket,
    /// Absent on a host without IPv6.
    v6: Option<Socket>,
}

impl IcmpSockets {
    /// Opens them.
    ///
    /// # Errors
    /// The process lacks `CAP_NET_RAW`, or has no file descriptors left.
    pub fn open() -> io::Result<Self> {
        let v4 = open(Domain::IPV4, Protocol::ICMPV4)?;
        v4.set_tos_v4(TOS_INTERNETWORK_CONTROL)?;
        let v6 = match open(Domain::IPV6, Protocol::ICMPV6) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            opened => Some(opened?),
        };
        Ok(Self { v4, probe: open(Domain::IPV4, Protocol::ICMPV4)?, v6 })
    }

    fn send(&self, error: &Unreachable) -> io::Result<usize> {
        let to = SocketAddr::new(error.to, 0).into();
        match (error.to, &self.v6) {
            (IpAddr::V4(_), _) => {
                // Only the kernel knows which addresses are broadcast addresses of its subnets: EACCES.
                self.probe.connect(&SocketAddr::new(error.about, 0).into())?;
                self.v4.send_to(&error.message, &to)
            }
            (IpAddr::V6(_), Some(v6)) => v6.send_to(&error.message, &to),
            (IpAddr::V6(_), None) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn open(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.attach_filter(&[RECEIVE_NOTHING])?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl UnreachablePort for IcmpSockets {
    fn transmit(&mut self, errors: &mut Vec<Unreachable>) {
        for error in errors.drain(..) {
            // An error about an error is nobody's business (RFC 1122, section 3.2.2): the packet is counted.
            let _ = self.send(&error);
        }
    }
}
