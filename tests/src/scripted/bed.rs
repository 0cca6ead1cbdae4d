//! A gateway with scripted clients before it and services behind it.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    ops::Range,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context, Result, ensure};

use super::{
    Client, Datagram, Secrets, Wire,
    client::{PATIENCE, SILENCE},
    noise,
};
use crate::{
    Gateway, Implementation, Lab, Namespace, Site,
    gateway::{Peer, host_prefix},
    site::{self, Family, SERVER_HOST, client_host, inner, outer, server_side},
};

/// Host number inside the tunnel of the first scripted client.
const FIRST_HOST: u8 = 20;

/// Host numbers of clients that are added later.
const LATE_HOSTS: Range<u8> = 150..250;

/// Host number of who is no peer.
const STRANGER_HOST: u8 = 254;

/// The running gateway and its site.
#[derive(Debug)]
pub struct Bed {
    /// The gateway.
    pub gateway: Gateway,
    /// The namespaces.
    pub site: Site,
}

impl Bed {
    /// Starts a gateway that knows `client_count` clients. They are on both sides' namespaces by turns, the first
    /// over IPv4, the second over IPv6, and so on.
    pub fn build(
        lab: &mut Lab,
        implementation: Implementation,
        client_count: u8,
    ) -> Result<(Self, Vec<Client>)> {
        let site = Site::build(lab, 1).context("the site cannot be built")?;
        let mut gateway = Gateway::new(lab, &site, implementation)?;
        let mut clients = Vec::new();
        for number in 0..client_count {
            let client = client(&site, &gateway, Family::BOTH[usize::from(number % 2)], FIRST_HOST + number)?;
            gateway.peers.push(Peer {
                public_key: noise::text(&client.secrets.public),
                preshared_key: None,
                allowed_ips: client.inner.both().map(host_prefix).to_vec(),
            });
            clients.push(client);
        }
        gateway.start(lab).context("the gateway does not start")?;
        let bed = Self { gateway, site };
        bed.settle()?;
        Ok((bed, clients))
    }

    /// Resolves the neighbours of the gateway, so that no first packet waits for them.
    fn settle(&self) -> Result<()> {
        let server = &self.site.server;
        for family in Family::BOTH {
            crate::ping::wait_for_reply(server, server_side(site::GATEWAY_HOST).of(family), PATIENCE)?;
            for client in &self.site.clients {
                crate::ping::wait_for_reply(client, outer(site::GATEWAY_HOST).of(family), PATIENCE)?;
            }
        }
        Ok(())
    }

    /// A service behind the gateway.
    pub fn service(&self, family: Family) -> Result<Service> {
        Service::start(&self.site.server, family)
    }

    /// Bytes the gateway counts for a client: received and sent.
    pub fn transfer(&self, client: &Client) -> Result<(u64, u64)> {
        let line = self.shown("transfer", client)?;
        let (received, sent) = line.split_once('\t').context("two numbers")?;
        Ok((received.parse()?, sent.parse()?))
    }

    /// Where the gateway believes a client to be.
    pub fn endpoint_of(&self, client: &Client) -> Result<String> {
        self.shown("endpoints", client)
    }

    /// The client's line of `wg show INTERFACE WHAT`, without its key.
    pub fn shown(&self, what: &str, client: &Client) -> Result<String> {
        let key = noise::text(&client.secrets.public);
        let text = self.gateway.show(what)?;
        let line = text.lines().find_map(|line| line.strip_prefix(&key)?.strip_prefix('\t'));
        Ok(line.with_context(|| format!("`wg show {what}` does not name the client"))?.to_owned())
    }

    /// `wg set INTERFACE peer CLIENT WORDS`.
    pub fn set(&self, client: &Client, words: &str) -> Result<()> {
        let key = noise::text(&client.secrets.public);
        self.gateway.namespace.run(&format!("wg set {} peer {key} {words}", self.gateway.interface))?;
        Ok(())
    }

    /// Tells the gateway where the client is, as an operator does who wants it to initiate.
    pub fn dial(&self, client: &Client) -> Result<()> {
        self.set(client, &format!("endpoint {}", client.wire.local()?))
    }

    /// Makes another client and adds it to the running gateway.
    pub fn admit(&self, family: Family) -> Result<Client> {
        static NEXT_HOST: AtomicU8 = AtomicU8::new(0);
        let host = LATE_HOSTS.start + NEXT_HOST.fetch_add(1, Ordering::Relaxed) % LATE_HOSTS.len() as u8;
        let client = self.client(family, host)?;
        self.set(&client, &format!("allowed-ips {}", client.inner.both().map(host_prefix).join(",")))?;
        Ok(client)
    }

    /// A client the gateway does not know.
    pub fn stranger(&self, family: Family) -> Result<Client> {
        self.client(family, STRANGER_HOST)
    }

    fn client(&self, family: Family, host: u8) -> Result<Client> {
        client(&self.site, &self.gateway, family, host)
    }

    /// Writes `request` to the configuration socket, half-closes it, and reads all that is answered.
    pub fn uapi(&self, request: &str) -> Result<String> {
        let mut stream = UnixStream::connect(format!("/var/run/wireguard/{}.sock", self.gateway.interface))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Gives a client a preshared key at the gateway; zero takes it away.
    pub fn set_preshared(&self, client: &Client, preshared: &[u8; 32]) -> Result<()> {
        let (public, preshared) = (hex(&client.secrets.public), hex(preshared));
        let answer = self.uapi(&format!("set=1\npublic_key={public}\npreshared_key={preshared}\n\n"))?;
        ensure!(answer.trim() == "errno=0", "the preshared key was refused: {answer}");
        Ok(())
    }

    /// Whether `wgx` runs as the gateway.
    pub fn is_wgx(&self) -> bool {
        matches!(self.gateway.implementation(), Implementation::Wgx(_))
    }
}

/// A client in the namespace of its outer family: the first for IPv4, the second for IPv6.
fn client(site: &Site, gateway: &Gateway, family: Family, host: u8) -> Result<Client> {
    let secrets = Secrets::generate(noise::key(&gateway.keys.public)?)?;
    let place = Family::BOTH.iter().position(|each| *each == family).unwrap_or_default();
    let namespace = site.clients[place].clone();
    let local = SocketAddr::new(outer(client_host(place as u8 + 1)).of(family), 0);
    let wire = Wire::bind(&namespace, local)?;
    Ok(Client::new(secrets, wire, namespace, gateway.endpoint(family), inner(host)))
}

/// A key as the configuration socket has it.
pub fn hex(key: &[u8; 32]) -> String {
    key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A UDP service in the server's namespace.
#[derive(Debug)]
pub struct Service {
    /// Its socket.
    pub wire: Wire,
    /// Its address.
    pub address: SocketAddr,
}

impl Service {
    fn start(server: &Namespace, family: Family) -> Result<Self> {
        let wire = Wire::bind(server, SocketAddr::new(server_side(SERVER_HOST).of(family), 0))?;
        let address = wire.local()?;
        Ok(Self { wire, address })
    }

    /// The family of its address.
    pub fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The next packet, which has to have this payload.
    pub fn expect(&self, payload: &[u8]) -> Result<Datagram> {
        let datagram = self.wire.receive(PATIENCE)?;
        let datagram =
            datagram.with_context(|| format!("{:?} was not delivered", String::from_utf8_lossy(payload)))?;
        let arrived = String::from_utf8_lossy(&datagram.bytes);
        ensure!(
            datagram.bytes == payload,
            "{arrived:?} was delivered, not {:?}",
            String::from_utf8_lossy(payload)
        );
        Ok(datagram)
    }

    /// An error if anything is delivered.
    pub fn silence(&self) -> Result<()> {
        let datagram = self.wire.receive(SILENCE)?;
        ensure!(datagram.is_none(), "delivered, where nothing is due: {datagram:?}");
        Ok(())
    }

    /// Sends a packet into the tunnel.
    pub fn send(&self, client: &Client, payload: &[u8]) -> Result<()> {
        self.wire.send(payload, client.inner_address(self.family()))
    }
}
