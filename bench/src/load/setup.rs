//! What the load generator is told before its first trial: where it sits, and whom it talks to.

use std::{fmt, net::Ipv4Addr};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blake2::{Blake2s256, Digest as _};
use serde::{Deserialize, Serialize};
use wireguard::{KEY_LEN, PrivateKey, PublicKey};

/// UDP source port of the first client; the others follow.
pub const FIRST_PORT: u16 = 10_000;
/// Clients one generator can be: each has a port of its own.
pub const CLIENTS_MAX: u32 = 50_000;
/// Queues of an interface one generator can serve.
pub const QUEUES_MAX: u32 = 16;
/// UDP port of the server, and of clients inside the tunnel.
pub const INNER_PORT: u16 = 5004;

/// Everything a generator needs to know of the world around it. IPv4 outside and inside.
///
/// ```text
/// clients (namespace) interface ── uplink gateway downlink ── interface (namespace) server
/// ```
/// Both interfaces are veth ends with `queue_count` queues, up, addressed, without offloads, and with no XDP program. The
/// kernel of each side goes on answering ARP: only IPv4 UDP packets are the generator's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Facing the gateway's uplink; all clients share this interface and address, each with a port of its own.
    pub clients: Side,
    /// Facing the gateway's downlink.
    pub server: Side,
    /// Clients there are: as many handshakes. A [`Trial`](super::Trial) may use fewer.
    pub client_count: u32,
    /// Queues of each interface. All packets of a client go by one of them: clients take turns.
    pub queue_count: u32,
    /// What packets come and go by.
    pub driver: Driver,
    /// The gateway under test; `None` sends plain UDP packets, as long as sealed ones would be, for what forwards
    /// without WireGuard.
    pub tunnel: Option<Tunnel>,
    /// Whom watched trials leave out and where they look; without it there are none.
    pub watched: Option<Watched>,
}

/// Where others are in the way of what is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The gateway's process, where it has one; the generator knows its own.
    pub process: Option<u32>,
    /// Processors of gateway and generator, by the kernel's numbers.
    pub cpus: Vec<u32>,
}

/// What the generator's packets come and go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Frames made and taken down inside the kernel: several times as many as by [`Driver::AfXdp`], and a sink that costs
    /// the gateway's processor hardly more than a wire. All by the queue that belongs to the generator's CPU, and so one
    /// queue only. The gateway's interfaces need NAPI: an XDP program, or generic receive offload.
    LiveFrames,
    /// AF_XDP sockets on both interfaces, one per queue.
    AfXdp,
}

/// One end of the path under test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Network namespace, as `ip netns` names it; `None` for the one the generator was started in.
    pub namespace: Option<String>,
    /// The interface there.
    pub interface: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// MAC address of the gateway's interface on the other end.
    pub gateway_mac: Mac,
}

/// A gateway that speaks WireGuard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its address towards the clients.
    pub address: Ipv4Addr,
    /// Its UDP port.
    pub port: u16,
    /// Its public key, in base64.
    pub public_key: String,
    /// Where the clients' keys come from.
    pub seed: KeySeed,
    /// Address of the first client inside the tunnel, the only one it is allowed; the others follow.
    pub first_inner: Ipv4Addr,
    /// MTU of the tunnel, which bounds padding, in bytes.
    pub mtu: u16,
}

impl Setup {
    /// Checks what the types leave open.
    ///
    /// # Errors
    /// Names the field and the value.
    pub fn check(&self) -> Result<()> {
        ensure!(
            (1..=CLIENTS_MAX).contains(&self.client_count),
            "client_count is {}: there are 1 to {CLIENTS_MAX} clients",
            self.client_count
        );
        ensure!(
            (1..=QUEUES_MAX).contains(&self.queue_count),
            "queue_count is {}: interfaces have 1 to {QUEUES_MAX} queues",
            self.queue_count
        );
        ensure!(
            self.driver == Driver::AfXdp || self.queue_count == 1,
            "queue_count is {}: live frames are for one queue",
            self.queue_count
        );
        if let Some(tunnel) = &self.tunnel {
            tunnel.gateway_key()?;
            ensure!(
                u32::from(tunnel.first_inner).checked_add(self.client_count).is_some(),
                "{} clients from {} on do not fit into IPv4",
                self.client_count,
                tunnel.first_inner
            );
            ensure!(
                (576..=1420).contains(&tunnel.mtu),
                "a tunnel's mtu of {} is not supported: 576 to 1420",
                tunnel.mtu
            );
        }
        Ok(())
    }
}

impl Tunnel {
    /// The gateway's public key.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64.
    pub fn gateway_key(&self) -> Result<PublicKey> {
        let bytes = STANDARD.decode(&self.public_key).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; KEY_LEN] =
            bytes.with_context(|| format!("`{}` is no public key in base64", self.public_key))?;
        Ok(PublicKey::from_bytes(bytes))
    }

    /// The address of a client inside the tunnel.
    pub fn inner(&self, client: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first_inner).wrapping_add(client))
    }
}

/// What the keys of all clients are derived from: worth as much as they are, so it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeySeed(String);

impl KeySeed {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; KEY_LEN];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness for keys: {error}"))?;
        Ok(Self(STANDARD.encode(bytes)))
    }

    /// The private key of a client.
    pub fn private_key(&self, client: u32) -> PrivateKey {
        let digest = Blake2s256::new()
            .chain_update(b"wgx-load client key")
            .chain_update(self.0.as_bytes())
            .chain_update(client.to_le_bytes())
            .finalize();
        PrivateKey::from_bytes(digest.into())
    }

    /// The public key of a client: what the gateway under test is configured with.
    pub fn public_key(&self, client: u32) -> PublicKey {
        self.private_key(client).public_key()
    }
}

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed(redacted)")
    }
}

/// A MAC address, in text `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl std::str::FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Option<Vec<u8>> = text
            .trim()
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
            .collect();
        let bytes = parts.and_then(|parts| parts.try_into().ok());
        bytes.map(Self).with_context(|| format!("`{text}` is no MAC address such as 02:00:00:00:00:01"))
    }
}

impl TryFrom<String> for Mac {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.0.map(|byte| format!("{byte:02x}")).join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        let side = |interface: &str, last| Side {
            namespace: Some("ns".into()),
            interface: interface.into(),
            mac: Mac([2, 0, 0, 0, 0, last]),
            address: Ipv4Addr::new(192, 0, 2, last),
            gateway_mac: Mac([2, 0, 0, 0, 1, last]),
        };
        let seed = KeySeed::random().unwrap();
        let public_key = seed.public_key(7).to_string();
        Setup {
            clients: side("eth0", 2),
            server: side("eth0", 3),
            client_count: 10,
            queue_count: 1,
            driver: Driver::LiveFrames,
            tunnel: Some(Tunnel {
                address: Ipv4Addr::new(192, 0, 2, 1),
                port: 51820,
                public_key,
                seed,
                first_inner: Ipv4Addr::new(10, 64, 0, 254),
                mtu: 1420,
            }),
            watched: Some(Watched { process: Some(7), cpus: vec![0, 1] }),
        }
    }

    #[test]
    fn setup_survives_its_line_of_json() {
        let setup = setup();
        setup.check().unwrap();
        let line = serde_json::to_string(&setup).unwrap();
        assert!(line.contains(r#""mac":"02:00:00:00:00:02""#) && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Setup>(&line).unwrap(), setup);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refused = |change: fn(&mut Setup)| {
            let mut setup = setup();
            change(&mut setup);
            setup.check().unwrap_err().to_string()
        };
        assert!(refused(|setup| setup.client_count = 0).contains("client_count is 0"));
        assert!(refused(|setup| setup.client_count = CLIENTS_MAX + 1).contains("50001"));
        assert!(refused(|setup| setup.queue_count = 0).contains("queue_count is 0"));
        assert!(refused(|setup| setup.queue_count = 2).contains("one queue"));
        assert!(
            refused(|setup| setup.tunnel.as_mut().unwrap().public_key = "AAAA".into()).contains("`AAAA`")
        );
        assert!(refused(|setup| setup.tunnel.as_mut().unwrap().mtu = 9000).contains("9000"));
        assert!("02:00".parse::<Mac>().unwrap_err().to_string().contains("`02:00`"));
    }

    #[test]
    fn each_client_has_a_key_and_an_address_of_its_own() {
        let tunnel = setup().tunnel.unwrap();
        let keys: std::collections::BTreeSet<_> =
            (0..100).map(|client| tunnel.seed.public_key(client)).collect();
        assert_eq!(keys.len(), 100);
        assert_eq!(tunnel.inner(2), Ipv4Addr::new(10, 64, 1, 0));
        assert_ne!(KeySeed::random().unwrap().public_key(0), tunnel.seed.public_key(0));
    }

    #[test]
    fn debug_output_does_not_show_the_seed() {
        let setup = setup();
        let seed = &setup.tunnel.as_ref().unwrap().seed.0;
        assert!(!format!("{setup:?}").contains(seed.as_str()));
    }
}
