//! A scripted client: a key pair, a socket, and the steps of the protocol, one by one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    Datagram, IncomingInitiation, Initiation, Secrets, Service, Session, Timestamp, Wire,
    inner::{self, Inner},
    layout::{INITIATION, RESPONSE, TRANSPORT, kind},
};
use crate::{
    Namespace,
    site::{Addresses, Family},
};

/// Time for an answer that has to come. On a busy machine scheduling alone takes long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Time for an initiation that has to be the first: after five seconds there is another.
pub const FIRST_INITIATION: Duration = Duration::from_millis(4500);

/// Time after which an answer that must not come has not come. What would answer wrongly answers at once.
pub const SILENCE: Duration = Duration::from_millis(100);

/// Gateways refuse a peer's initiations that follow each other within 20 ms.
const INITIATION_SPACING: Duration = Duration::from_millis(30);

/// The port inside the tunnel that packets of a client come from.
pub const INNER_PORT: u16 = 7000;

/// The client. It does nothing by itself: what it does not say stays unsaid, what arrives stays in the socket.
#[derive(Debug)]
pub struct Client {
    /// Its keys, and the gateway's public key.
    pub secrets: Secrets,
    /// Its socket.
    pub wire: Wire,
    /// Where it is.
    pub namespace: Namespace,
    /// Where it finds the gateway.
    pub gateway: SocketAddr,
    /// Its addresses inside the tunnel.
    pub inner: Addresses,
    last_timestamp: Timestamp,
    /// When the gateway can have read the last initiation at the latest.
    initiated_at: Mutex<Option<Instant>>,
}

impl Client {
    /// A client whose socket is `wire`.
    pub fn new(
        secrets: Secrets,
        wire: Wire,
        namespace: Namespace,
        gateway: SocketAddr,
        inner: Addresses,
    ) -> Self {
        let last_timestamp = Timestamp::at(Duration::ZERO);
        Self { secrets, wire, namespace, gateway, inner, last_timestamp, initiated_at: Mutex::new(None) }
    }

    /// The family of the outer addresses.
    pub fn family(&self) -> Family {
        if self.gateway.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Opens another socket, on a port of its own, and uses it from now on; returns the one used before.
    pub fn move_to_new_port(&mut self) -> Result<Wire> {
        let ip = self.wire.local()?.ip();
        self.move_to(ip)
    }

    /// Opens another socket at `ip` and uses it from now on; returns the one used before.
    pub fn move_to(&mut self, ip: IpAddr) -> Result<Wire> {
        let wire = Wire::bind(&self.namespace, SocketAddr::new(ip, 0))?;
        Ok(std::mem::replace(&mut self.wire, wire))
    }

    /// Sends bytes to the gateway.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.wire.send(bytes, self.gateway)
    }

    /// A right initiation, later than all before it. Waits until the gateway may accept another.
    pub fn initiation(&mut self) -> Result<Initiation> {
        if let Some(at) = *self.initiated_at() {
            thread::sleep(INITIATION_SPACING.saturating_sub(at.elapsed()));
        }
        let timestamp = Timestamp::now().max(self.last_timestamp.later_by(Duration::from_nanos(1)));
        self.initiation_at(timestamp)
    }

    /// An initiation that is right but perhaps for its timestamp.
    pub fn initiation_at(&mut self, timestamp: Timestamp) -> Result<Initiation> {
        self.last_timestamp = timestamp.max(self.last_timestamp);
        *self.initiated_at() = Some(Instant::now());
        Initiation::new(&self.secrets, timestamp, random_index()?)
    }

    /// The greatest timestamp used so far.
    pub fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Sends an initiation and takes the response. The gateway may not send before it hears from us.
    pub fn handshake(&mut self) -> Result<Session> {
        let initiation = self.initiate()?;
        self.response_to(initiation)
    }

    /// Sends a right initiation.
    pub fn initiate(&mut self) -> Result<Initiation> {
        let initiation = self.initiation()?;
        self.send(&initiation.message)?;
        Ok(initiation)
    }

    /// Takes the response to an initiation that was sent.
    pub fn response_to(&mut self, initiation: Initiation) -> Result<Session> {
        let response = self.expect(RESPONSE, PATIENCE)?;
        initiation.complete(&self.secrets, &response.bytes)
    }

    /// A handshake, confirmed by a keepalive: both sides can send.
    pub fn connect(&mut self) -> Result<Session> {
        let mut session = self.handshake()?;
        self.send(&session.keepalive())?;
        Ok(session)
    }

    /// The next datagram of a type; those of other types are passed over.
    pub fn expect(&self, wanted: u32, patience: Duration) -> Result<Datagram> {
        let end = Instant::now() + patience;
        let mut others = Vec::new();
        while let Some(datagram) = self.wire.receive(end.saturating_duration_since(Instant::now()))? {
            self.note(&datagram);
            if kind(&datagram.bytes) == wanted {
                return Ok(datagram);
            }
            others.push(kind(&datagram.bytes));
        }
        bail!("no message of type {wanted} came within {patience:?}, only types {others:?}")
    }

    /// The next datagram, whatever it is.
    pub fn next(&self, patience: Duration) -> Result<Datagram> {
        let datagram =
            self.wire.receive(patience)?.with_context(|| format!("nothing came within {patience:?}"))?;
        self.note(&datagram);
        Ok(datagram)
    }

    /// The gateway may have read an initiation just before it responds: its spacing counts from then.
    fn note(&self, datagram: &Datagram) {
        if kind(&datagram.bytes) == RESPONSE {
            *self.initiated_at() = Some(datagram.at);
        }
    }

    fn initiated_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.initiated_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if anything comes.
    pub fn silence(&self, duration: Duration) -> Result<()> {
        match self.wire.receive(duration)? {
            None => Ok(()),
            Some(datagram) => {
                let (kind, len) = (kind(&datagram.bytes), datagram.bytes.len());
                bail!("{len} bytes of type {kind:#x} were sent to us, where silence is due")
            }
        }
    }

    /// Takes the gateway's next initiation.
    pub fn incoming_initiation(&self, patience: Duration) -> Result<(Datagram, IncomingInitiation)> {
        let datagram = self.expect(INITIATION, patience)?;
        let incoming = IncomingInitiation::open(&self.secrets, &datagram.bytes)?;
        Ok((datagram, incoming))
    }

    /// Responds to an initiation.
    pub fn respond(&self, incoming: IncomingInitiation) -> Result<Session> {
        let (response, session) = incoming.respond(&self.secrets, random_index()?, None)?;
        self.send(&response)?;
        Ok(session)
    }

    /// The next data message of a session that is no keepalive, with what was in it.
    pub fn data(&self, session: &Session, patience: Duration) -> Result<(Datagram, u64, Inner)> {
        let end = Instant::now() + patience;
        loop {
            let datagram = self.expect(TRANSPORT, end.saturating_duration_since(Instant::now()))?;
            let (counter, plaintext) = session.open(&datagram.bytes)?;
            if !plaintext.is_empty() {
                return Ok((datagram, counter, Inner::parse(&plaintext)?));
            }
        }
    }

    /// A packet from inside the tunnel to a service behind the gateway.
    pub fn packet(&self, service: &Service, payload: &[u8]) -> Vec<u8> {
        self.packet_with_tos(service, 0, payload)
    }

    /// The same with a traffic class.
    pub fn packet_with_tos(&self, service: &Service, tos: u8, payload: &[u8]) -> Vec<u8> {
        inner::udp(self.inner_address(service.family()), service.address, tos, payload)
    }

    /// Where packets of this client seem to come from inside the tunnel.
    pub fn inner_address(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.inner.of(family), INNER_PORT)
    }

    /// A packet of ours is delivered to the service, and one of the service to us.
    pub fn exchange(&self, session: &mut Session, service: &Service, payload: &[u8]) -> Result<()> {
        self.send(&session.seal(&self.packet(service, payload)))?;
        service.expect(payload)?;
        service.send(self, payload)?;
        let (_, _, inner) = self.data(session, PATIENCE)?;
        ensure!(inner.payload == payload, "the service's packet arrived as {:?}", inner.payload);
        Ok(())
    }
}

/// An index of ours.
pub fn random_index() -> Result<u32> {
    getrandom::u32().map_err(|error| anyhow!("no random bytes: {error}"))
}
