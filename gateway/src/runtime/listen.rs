//! The UDP sockets as control changes them: new ones are bound before the old ones go.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wireguard::Endpoint;

use crate::control::sockets::OuterSockets;
use crate::io::udp::{BindError, UdpSockets};

/// The sockets everyone sends through, and the mark they were given.
#[derive(Debug)]
pub(super) struct ListenSockets {
    published: Arc<ArcSwap<UdpSockets>>,
    fwmark: u32,
}

impl ListenSockets {
    pub(super) fn new(published: Arc<ArcSwap<UdpSockets>>) -> Self {
        Self { published, fwmark: 0 }
    }
}

impl OuterSockets for ListenSockets {
    fn listen_port(&self) -> u16 {
        self.published.load().port()
    }

    fn send(&self, to: &Endpoint, datagram: &[u8], tos: u8) -> io::Result<()> {
        self.published.load().send(to, datagram, tos)
    }

    fn set_listen_port(&mut self, port: u16) -> io::Result<u16> {
        if port != 0 && port == self.listen_port() {
            return Ok(port);
        }
        let sockets = UdpSockets::bind(port, self.fwmark).map_err(|error| match error {
            BindError::InUse(_) => io::Error::from(io::ErrorKind::AddrInUse),
            BindError::Refused { error, .. } => error,
        })?;
        let port = sockets.port();
        self.published.store(Arc::new(sockets));
        Ok(port)
    }

    fn set_fwmark(&mut self, mark: u32) -> io::Result<()> {
        self.published.load().set_fwmark(mark)?;
        self.fwmark = mark;
        Ok(())
    }
}
