//! Where a peer is reached, and which of our addresses it knows us by.

use std::net::{IpAddr, SocketAddr};

/// Our side of a path: what an authenticated packet was sent to, and where it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// Our address.
    pub ip: IpAddr,
    /// Kernel index of the interface.
    pub interface_index: u32,
}

/// A peer's outer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address and port of the peer.
    pub remote: SocketAddr,
    /// Source for replies; `None` lets the kernel choose. Forgotten when handshakes go unanswered.
    pub local: Option<LocalAddress>,
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}
