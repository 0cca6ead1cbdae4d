//! What control needs of the kernel's UDP sockets. `io::udp` implements it; a test may do without.

use std::io;

use wireguard::Endpoint;

/// The outer sockets, IPv4 and IPv6, on one port.
pub trait OuterSockets: Send {
    /// The port they are bound to.
    fn listen_port(&self) -> u16;

    /// Sends one datagram with this traffic class, from the endpoint's local address if it names one.
    ///
    /// # Errors
    /// The kernel has no route, or its buffer is full.
    fn send(&self, to: &Endpoint, datagram: &[u8], tos: u8) -> io::Result<()>;

    /// Binds to `port`, 0 for any, and returns the port obtained. When it fails the old sockets stay as they are.
    ///
    /// # Errors
    /// The port is in use, or not allowed to this process.
    fn set_listen_port(&mut self, port: u16) -> io::Result<u16>;

    /// Marks all datagrams sent from now on (`SO_MARK`), 0 for no mark.
    ///
    /// # Errors
    /// The process lacks `CAP_NET_ADMIN`; the old mark stays.
    fn set_fwmark(&mut self, mark: u32) -> io::Result<()>;
}
