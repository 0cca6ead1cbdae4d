//! The clients' sessions with the gateway under test: handshakes by the clients of a trial, over the generator's own
//! port, and their keys.

use std::{
    collections::VecDeque,
    net::SocketAddrV4,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wireguard::{
    AllowedIpAction, Device, DeviceChange, Endpoint, Now, Output, PeerChange, PrivateKeyChange, PublicKey,
    Session, Time, UnixTime,
};

use super::packet::{ETHERNET_LEN, HEADERS_LEN, IP_UDP_LEN, udp, write_ethernet, write_ip_udp};
use super::port::Port;
use crate::load::setup::{FIRST_PORT, Setup, Tunnel};
use crate::media::clock::now_ns;

/// Handshakes under way at a time: few enough that no gateway thinks itself under load.
const WINDOW: usize = 24;
/// Time for an answer before the initiation is sent again.
const PATIENCE_NS: u64 = 400_000_000;
const ATTEMPTS_MAX: u32 = 10;
/// A `Device` sends again after five seconds and some: its clock is put forward by this, as time is an argument.
const RETRANSMIT_STEP: Duration = Duration::from_secs(6);
/// A session older than this at the end of a trial is renewed before it: responders want a new one from 120 s on.
const AGE_MAX_NS: u64 = 100_000_000_000;

/// A session and its keys as the AEAD wants them.
pub struct Keyed {
    /// For counters and indices.
    pub session: Arc<Session>,
    /// Seals packets to the gateway.
    pub sealing: aead::Key,
    /// Opens packets from the gateway.
    pub opening: aead::Key,
    established_ns: u64,
}

/// All clients, some with sessions.
pub struct Sessions {
    clients: Vec<Option<Keyed>>,
}

/// A client whose handshake is under way.
struct Attempt {
    client: u32,
    device: Device,
    /// How far its clock is ahead.
    ahead: Duration,
    attempts: u32,
    sent_ns: u64,
}

impl Sessions {
    /// None yet.
    pub fn new(client_count: u32) -> Self {
        Self { clients: (0..client_count).map(|_| None).collect() }
    }

    /// A client's session.
    pub fn of(&self, client: u32) -> Option<&Keyed> {
        self.clients.get(client as usize)?.as_ref()
    }

    /// Those of the first `count` clients whose sessions would not last `lasting_ns`.
    pub fn stale(&self, count: u32, lasting_ns: u64) -> VecDeque<u32> {
        let end_ns = now_ns() + lasting_ns;
        let is_stale = |keyed: &Option<Keyed>| {
            keyed.as_ref().is_none_or(|keyed| keyed.established_ns + AGE_MAX_NS < end_ns)
        };
        (0..count).filter(|client| self.clients.get(*client as usize).is_some_and(is_stale)).collect()
    }

    /// Handshakes for these clients.
    ///
    /// # Errors
    /// The gateway does not answer one of them.
    pub fn renew(
        &mut self,
        mut stale: VecDeque<u32>,
        setup: &Setup,
        tunnel: &Tunnel,
        port: &mut Port,
    ) -> Result<()> {
        let exchange = Exchange { setup, tunnel, gateway: tunnel.gateway_key()? };
        let mut pending: Vec<Attempt> = Vec::with_capacity(WINDOW);
        while !(stale.is_empty() && pending.is_empty()) {
            while pending.len() < WINDOW
                && let Some(client) = stale.pop_front()
            {
                let mut attempt = exchange.begin(client)?;
                exchange.pump(&mut attempt, port);
                pending.push(attempt);
            }
            for (client, datagram) in received(port) {
                let Some(at) = pending.iter().position(|attempt| attempt.client == client) else { continue };
                if let Some(keyed) = exchange.answer(&mut pending[at], &datagram, port) {
                    self.clients[client as usize] = Some(keyed);
                    pending.swap_remove(at);
                }
            }
            for attempt in &mut pending {
                if now_ns() > attempt.sent_ns + PATIENCE_NS {
                    exchange.again(attempt, port)?;
                }
            }
        }
        Ok(())
    }
}

/// The datagrams of one burst to clients.
fn received(port: &mut Port) -> Vec<(u32, Vec<u8>)> {
    let mut datagrams = Vec::new();
    let count = port.receive(|_, frame| {
        if let Some((port, payload)) = udp(frame)
            && let Some(client) = port.checked_sub(FIRST_PORT)
        {
            datagrams.push((client.into(), payload.to_vec()));
        }
    });
    if count == 0 {
        port.maintain();
    }
    datagrams
}

/// What all handshakes of a setup share.
struct Exchange<'a> {
    setup: &'a Setup,
    tunnel: &'a Tunnel,
    gateway: PublicKey,
}

impl Exchange<'_> {
    fn endpoint(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.tunnel.address, self.tunnel.port)
    }

    /// A client that wants to send a keepalive, and so needs a session.
    fn begin(&self, client: u32) -> Result<Attempt> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow!("no randomness for a handshake: {error}"))?;
        let mut attempt = Attempt {
            client,
            device: Device::new(seed),
            ahead: Duration::ZERO,
            attempts: 1,
            sent_ns: now_ns(),
        };
        let now = attempt.now();
        attempt.device.set_up(true, now);
        let mut peer = PeerChange::new(self.gateway);
        peer.endpoint = Some(self.endpoint().into());
        peer.persistent_keepalive = Some(u16::MAX);
        let everything = "0.0.0.0/0".parse().context("an IPv4 prefix")?;
        peer.allowed_ips = vec![(everything, AllowedIpAction::Add)];
        let private_key = PrivateKeyChange::Set(self.tunnel.seed.private_key(client));
        let change = DeviceChange { private_key, peers: vec![peer], ..DeviceChange::default() };
        attempt.device.apply(change, now)?;
        Ok(attempt)
    }

    /// Does what the client's device asks for; a session, once there is one.
    fn pump(&self, attempt: &mut Attempt, port: &mut Port) -> Option<Keyed> {
        // What cannot be answered yet is sent again.
        let _ = attempt.device.perform_work(attempt.now());
        let mut keyed = None;
        while let Some(output) = attempt.device.poll_output() {
            match output {
                Output::Transmit { datagram, .. } => self.send(attempt.client, &datagram, port),
                Output::CurrentSession { session: Some(session), .. } => keyed = Some(Keyed::new(session)),
                _ => {}
            }
        }
        keyed
    }

    fn send(&self, client: u32, datagram: &[u8], port: &mut Port) {
        let from = SocketAddrV4::new(self.setup.clients.address, client_port(client));
        port.push(client, HEADERS_LEN + datagram.len(), |frame| {
            write_ethernet(frame, self.setup.clients.mac, self.setup.clients.gateway_mac);
            write_ip_udp(&mut frame[ETHERNET_LEN..], from, self.endpoint(), IP_UDP_LEN + datagram.len());
            frame[HEADERS_LEN..].copy_from_slice(datagram);
        });
        port.flush();
    }

    /// Takes what the gateway says; a session, if that was the response.
    fn answer(&self, attempt: &mut Attempt, datagram: &[u8], port: &mut Port) -> Option<Keyed> {
        let is_cookie = datagram.first() == Some(&3);
        let source = Endpoint::from(std::net::SocketAddr::V4(self.endpoint()));
        // Data, or an answer to an earlier initiation.
        attempt.device.receive_handshake(datagram, source, attempt.now()).ok()?;
        if is_cookie {
            attempt.retransmit();
        }
        self.pump(attempt, port)
    }

    fn again(&self, attempt: &mut Attempt, port: &mut Port) -> Result<()> {
        ensure!(
            attempt.attempts < ATTEMPTS_MAX,
            "client {} gets no session from {} after {} initiations: does the gateway know the public key {}?",
            attempt.client,
            self.endpoint(),
            attempt.attempts,
            self.tunnel.seed.public_key(attempt.client)
        );
        attempt.retransmit();
        self.pump(attempt, port);
        Ok(())
    }
}

/// The UDP port of a client.
pub fn client_port(client: u32) -> u16 {
    FIRST_PORT + client as u16
}

impl Attempt {
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: Time(now_ns()) + self.ahead,
            // Not put forward: a later handshake with an earlier timestamp would be a replay.
            unix: UnixTime { secs: unix.as_secs(), nanos: unix.subsec_nanos() },
        }
    }

    fn retransmit(&mut self) {
        self.attempts += 1;
        self.sent_ns = now_ns();
        self.ahead += RETRANSMIT_STEP;
        self.device.handle_timeout(self.now());
    }
}

impl Keyed {
    fn new(session: Arc<Session>) -> Self {
        let (sealing, opening) =
            (aead::Key::new(session.sending_key()), aead::Key::new(session.receiving_key()));
        Self { session, sealing, opening, established_ns: now_ns() }
    }
}
