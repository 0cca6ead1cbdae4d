//! What control needs of the kernel's UDP sockets. A test may do without real ones.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wireguard::Endpoint;

use crate::io::udp::UdpSockets;

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

    /// The last change stays: what was kept to go back to can be closed.
    fn forget_former(&mut self);
}

/// The sockets that workers share, replaced as a whole.
#[derive(Debug)]
pub struct PublishedSockets {
    published: Arc<ArcSwap<UdpSockets>>,
    fwmark: u32,
    /// Open until the change that replaced them is final: their port may not be free a second time.
    former: Option<Arc<UdpSockets>>,
}

impl PublishedSockets {
    /// Takes over `published`, which were bound with `fwmark`.
    pub fn new(published: Arc<ArcSwap<UdpSockets>>, fwmark: u32) -> Self {
        Self { published, fwmark, former: None }
    }
}

impl OuterSockets for PublishedSockets {
    fn listen_port(&self) -> u16 {
        self.published.load().port()
    }

    fn send(&self, to: &Endpoint, datagram: &[u8], tos: u8) -> io::Result<()> {
        self.published.load().send(to, datagram, tos)
    }

    fn set_listen_port(&mut self, port: u16) -> io::Result<u16> {
        let sockets = match self.former.take().filter(|former| port != 0 && former.port() == port) {
            Some(former) => former,
            None => Arc::new(UdpSockets::bind(port, self.fwmark).map_err(io::Error::other)?),
        };
        let port = sockets.port();
        self.former = Some(self.published.swap(sockets));
        Ok(port)
    }

    fn set_fwmark(&mut self, mark: u32) -> io::Result<()> {
        let sockets = self.published.load();
        if let Err(error) = sockets.set_fwmark(mark) {
            // One family may have taken it.
            let _ = sockets.set_fwmark(self.fwmark);
            return Err(error);
        }
        self.fwmark = mark;
        Ok(())
    }

    fn forget_former(&mut self) {
        self.former = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> PublishedSockets {
        PublishedSockets::new(Arc::new(ArcSwap::from_pointee(UdpSockets::bind(0, 0).unwrap())), 0)
    }

    #[test]
    fn a_port_in_use_leaves_the_old_sockets() {
        let taken = UdpSockets::bind(0, 0).unwrap();
        let mut sockets = bound();
        let port = sockets.listen_port();
        let error = sockets.set_listen_port(taken.port()).unwrap_err().to_string();
        assert!(error.contains(&format!("UDP port {} is in use", taken.port())), "{error}");
        assert_eq!(sockets.listen_port(), port);
    }

    #[test]
    fn a_change_of_port_can_be_taken_back_until_it_is_final() {
        let mut sockets = bound();
        let port = sockets.listen_port();
        let other = sockets.set_listen_port(0).unwrap();
        assert_ne!(other, port);
        assert_eq!(sockets.set_listen_port(port).unwrap(), port);
        sockets.forget_former();
        UdpSockets::bind(other, 0).expect("the port given up is free");
    }
}
