//! A site with everything started: gateway, both clients, and pings answered between all of them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Client, Gateway, Implementation, Lab, Site, ping,
    site::{Family, SERVER_HOST, server_side},
};

/// Time for handshakes and neighbour discovery. A lost initiation is sent again after five seconds.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// A running site.
#[derive(Debug)]
pub struct World {
    /// The clients; the first reaches the gateway over IPv4, the second over IPv6.
    pub clients: Vec<Client>,
    /// The gateway.
    pub gateway: Gateway,
    /// The namespaces.
    pub site: Site,
}

impl World {
    /// Builds and starts it with one queue per interface.
    pub fn build(lab: &mut Lab, implementation: Implementation) -> Result<Self> {
        Self::build_with_queues(lab, implementation, 1)
    }

    /// Builds and starts it.
    pub fn build_with_queues(
        lab: &mut Lab,
        implementation: Implementation,
        queue_count: u32,
    ) -> Result<Self> {
        let world = Self::start(lab, implementation, queue_count)?;
        world.settle(SETTLE_TIMEOUT)?;
        Ok(world)
    }

    /// Builds and starts it without waiting for the first answer.
    pub fn start(lab: &mut Lab, implementation: Implementation, queue_count: u32) -> Result<Self> {
        let site = Site::build(lab, queue_count).context("the site cannot be built")?;
        let mut gateway = Gateway::new(lab, &site, implementation)?;
        let mut clients = vec![Client::new(lab, &site, 1)?, Client::new(lab, &site, 2)?];
        for client in &clients {
            gateway.expect(client);
        }
        gateway.start(lab).context("the gateway does not start")?;
        for (client, family) in clients.iter_mut().zip(Family::BOTH) {
            client.start(lab, &gateway, gateway.endpoint(family)).context("a client does not start")?;
        }
        Ok(Self { clients, gateway, site })
    }

    /// Waits until every client reaches the server in both families.
    pub fn settle(&self, timeout: Duration) -> Result<()> {
        for client in &self.clients {
            for address in server_side(SERVER_HOST).both() {
                ping::wait_for_reply(&client.namespace, address, timeout)?;
            }
        }
        Ok(())
    }
}
