//! A `wgx` gateway and one foreign peer, in a site that is built once and configured often.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    Gateway, Implementation, Io, Lab, Site,
    gateway::endpoint_line,
    interop::Role,
    keys::{Keys, Secret},
    peer::{Echo, Program, RemotePeer, State},
    ping,
    site::{Family, SERVER_HOST, server_side},
};

/// Time for a handshake on a busy machine, and for one initiation that is sent again.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// What the two sides are configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What the peer is in the handshake; only the initiator knows the other's endpoint.
    pub role: Role,
    /// The family outside the tunnel.
    pub outer: Family,
    /// Whether there is a preshared key.
    pub psk: bool,
}

/// Both sides, running.
#[derive(Debug)]
pub struct Pair {
    /// The peer.
    pub remote: RemotePeer,
    /// `wgx`.
    pub gateway: Gateway,
    /// The namespaces.
    pub site: Site,
    /// The rung `wgx` was told to use.
    pub io: Io,
}

impl Pair {
    /// Builds the site and starts both programs, which do not know each other yet.
    pub fn start(lab: &mut Lab, program: Program, io: Io) -> Result<Self> {
        Self::start_with(lab, program, &[], io)
    }

    /// As [`Pair::start`], with options of the peer's program.
    pub fn start_with(
        lab: &mut Lab,
        program: Program,
        options: &'static [&'static str],
        io: Io,
    ) -> Result<Self> {
        let site = Site::build(lab, 1).context("the site cannot be built")?;
        let mut gateway = Gateway::new(lab, &site, Implementation::Wgx(io))?;
        gateway.start(lab).context("the gateway does not start")?;
        let rung = gateway.status()?.rung().to_owned();
        ensure!(rung == io.to_string(), "the gateway is on the rung {rung}");
        let remote = RemotePeer::start(lab, &site, program, options).context("the peer does not start")?;
        Ok(Self { remote, gateway, site, io })
    }

    /// A pair over IPv4 whose first ping, by the peer, was answered.
    pub fn connected(lab: &mut Lab, program: Program, io: Io) -> Result<Self> {
        let mut pair = Self::start(lab, program, io)?;
        pair.connect(lab, Connection { role: Role::Initiator, outer: Family::V4, psk: false })?;
        pair.wait_for_reply(Role::Initiator, Family::V4)?;
        Ok(pair)
    }

    /// Configures both sides anew with fresh keys: whatever was between them is gone.
    ///
    /// The responder is ready before the initiator can be asked to send.
    pub fn connect(&mut self, lab: &Lab, connection: Connection) -> Result<()> {
        self.gateway.keys = Keys::generate()?;
        self.remote.keys = Keys::generate()?;
        self.remote.preshared_key = connection.psk.then(Secret::preshared).transpose()?;
        self.gateway.peers = vec![self.remote.as_peer()];
        let to_remote = self.remote.endpoint(connection.outer);
        let to_gateway = self.gateway.endpoint(connection.outer);
        match connection.role {
            Role::Initiator => {
                self.configure_gateway(lab, None)?;
                self.remote.configure(lab, &self.gateway.keys.public, Some(to_gateway))
            }
            Role::Responder => {
                self.remote.configure(lab, &self.gateway.keys.public, None)?;
                self.configure_gateway(lab, Some(to_remote))
            }
        }
    }

    /// `wg setconf` at the gateway, with an endpoint for its last peer or none.
    pub fn configure_gateway(&self, lab: &Lab, endpoint: Option<SocketAddr>) -> Result<()> {
        let text = self.gateway.configuration() + &endpoint_line(endpoint);
        let file = lab.write_secret("gateway.conf", &text)?;
        let interface = &self.gateway.interface;
        self.gateway.namespace.run(&format!("wg setconf {interface} {}", file.display()))?;
        Ok(())
    }

    /// `wg set INTERFACE WORDS` at the gateway.
    pub fn set_gateway(&self, words: &str) -> Result<()> {
        self.gateway.namespace.run(&format!("wg set {} {words}", self.gateway.interface))?;
        Ok(())
    }

    /// One ping from the side that `role` makes the initiator, which waits for its handshake.
    pub fn first_ping(&self, role: Role, inner: Family) -> Result<()> {
        let (from, to) = self.ends(role, inner);
        let outcome = from.attempt(&format!("ping -n -c 1 -W 4 {to}"), HANDSHAKE_TIMEOUT)?;
        ensure!(outcome.status.success(), "the packet that made the handshake is lost: {}", outcome.stdout);
        Ok(())
    }

    /// Pings from the side that `role` makes the initiator until one is answered.
    pub fn wait_for_reply(&self, role: Role, inner: Family) -> Result<()> {
        let (from, to) = self.ends(role, inner);
        ping::wait_for_reply(from, to, HANDSHAKE_TIMEOUT)
    }

    /// Ten datagrams each way in both families, none lost.
    ///
    /// Not by `ping`: after its last request it waits for two round trips only, which on a busy machine is a loss.
    pub fn exchange_both_ways(&self) -> Result<()> {
        for inner in Family::BOTH {
            self.echo(inner)?.exchange(&[56; 10]).with_context(|| format!("{inner:?} inside"))?;
        }
        Ok(())
    }

    /// Sockets at the peer and at the server.
    pub fn echo(&self, inner: Family) -> Result<Echo> {
        let server = server_side(SERVER_HOST).of(inner);
        Echo::open((&self.remote.namespace, self.remote.inner.of(inner)), (&self.site.server, server))
    }

    /// What `wgx` says about the peer.
    pub fn gateway_state(&self) -> Result<State> {
        State::read(&self.gateway.interface)
    }

    fn ends(&self, role: Role, inner: Family) -> (&crate::Namespace, std::net::IpAddr) {
        match role {
            Role::Initiator => (&self.remote.namespace, server_side(SERVER_HOST).of(inner)),
            Role::Responder => (&self.site.server, self.remote.inner.of(inner)),
        }
    }
}
