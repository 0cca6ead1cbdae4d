//! The network namespace as the kernel tells it: dumped, then followed.
//!
//! Neighbours are followed event by event. For links, addresses, routes and rules an event only says that the
//! kind is out of date, and the kind is dumped again: the kernel drops IPv4 routes without a word when a link
//! goes down, and replaces and merges others in ways a copy cannot follow. How long to wait before a dump grows
//! with how long the last one took, so that a full routing table that flaps costs a tenth of a core at most.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, IpVersion, MulticastGroup};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::decode;
use crate::dataplane::network::{Network, Route};

/// Changes that follow each other within this time are published together.
const COALESCE: Duration = Duration::from_millis(5);
/// A dump that took a time `t` is not repeated before `t` times this has passed.
const DUMP_SHARE: u32 = 10;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

type Events = Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>;

/// The network namespace this thread is in, followed by a task of the current event loop.
#[derive(Debug)]
pub struct NetworkWatch {
    network: watch::Receiver<Arc<Network>>,
    neighbours: Neighbours,
    task: tokio::task::JoinHandle<()>,
}

impl NetworkWatch {
    /// Subscribes, reads everything once and starts to follow.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket or a dump.
    pub async fn start() -> Result<Self> {
        // Subscribed before the dump, so that what changes meanwhile is among the events.
        let (connection, _, events) = rtnetlink::new_multicast_connection(&GROUPS)
            .context("cannot subscribe to changes of routes and neighbours (rtnetlink)")?;
        tokio::spawn(connection);
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open an rtnetlink socket to read routes")?;
        tokio::spawn(connection);
        let mut follower = Follower {
            handle: handle.clone(),
            network: Network::default(),
            outdated: ALL_PARTS.into(),
            dump_took: Duration::ZERO,
        };
        follower.update().await?;
        let (publisher, network) = watch::channel(Arc::new(follower.network.clone()));
        let events: Events = Box::new(events.map(|(message, _)| message));
        let task = tokio::spawn(follower.follow(events, publisher));
        Ok(Self { network, neighbours: Neighbours { handle }, task })
    }

    /// The network as last published.
    pub fn current(&mut self) -> Arc<Network> {
        Arc::clone(&self.network.borrow_and_update())
    }

    /// Waits for the next change. Cancel safe.
    ///
    /// # Errors
    /// The kernel closed the socket: what is published will not change any more.
    pub async fn changed(&mut self) -> Result<Arc<Network>> {
        self.network
            .changed()
            .await
            .map_err(|_| anyhow!("rtnetlink stopped telling about routes and neighbours"))?;
        Ok(self.current())
    }

    /// The side that speaks to the neighbour table.
    pub fn neighbours(&mut self) -> &mut Neighbours {
        &mut self.neighbours
    }
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Marks neighbours as used.
#[derive(Clone, Debug)]
pub struct Neighbours {
    handle: Handle,
}

impl Neighbours {
    /// Makes the kernel treat `address` on a link as if it had just sent a packet there: resolve it, or probe it
    /// if its entry is stale. Sends and does not wait; a next hop that does not exist is the kernel's to refuse.
    pub fn mark_used(&mut self, interface_index: u32, address: IpAddr) {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = interface_index;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.header.kind = RouteType::Unspec;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        // The acknowledgement is of no use to us, but netlink-proto needs it: it sends one queued message each time
        // it is woken, and without answers the dumps of `Follower` would wait behind these for ever.
        request.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        if self.handle.request(request).is_err() {
            debug!(interface_index, %address, "rtnetlink is closed: a neighbour is not marked as used");
        }
    }
}

/// A part of the network that is read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Links,
    Addresses,
    Routes,
    Rules,
    Neighbours,
}

const ALL_PARTS: [Part; 5] = [Part::Links, Part::Addresses, Part::Routes, Part::Rules, Part::Neighbours];

struct Follower {
    handle: Handle,
    network: Network,
    /// What is to be read anew.
    outdated: BTreeSet<Part>,
    dump_took: Duration,
}

impl Follower {
    async fn follow(mut self, mut events: Events, publisher: watch::Sender<Arc<Network>>) {
        while let Some(event) = events.next().await {
            let mut is_changed = self.note(event);
            let wait =
                if self.outdated.is_empty() { COALESCE } else { COALESCE.max(self.dump_took * DUMP_SHARE) };
            let deadline = tokio::time::Instant::now() + wait;
            while let Ok(event) = tokio::time::timeout_at(deadline, events.next()).await {
                let Some(event) = event else { return };
                is_changed |= self.note(event);
            }
            if !self.outdated.is_empty() {
                while let Err(error) = self.update().await {
                    // What was read before stays in force meanwhile.
                    warn!(
                        error = format!("{error:#}"),
                        "cannot read routes and neighbours anew: trying again"
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                is_changed = true;
            }
            if is_changed && **publisher.borrow() != self.network {
                publisher.send_replace(Arc::new(self.network.clone()));
            }
        }
    }

    /// Takes one event in. True when the network changed by it at once.
    fn note(&mut self, event: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        let message = match event.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                debug!("rtnetlink events were lost: reading everything anew");
                self.outdated = ALL_PARTS.into();
                return false;
            }
            _ => return false,
        };
        let outdated: &[Part] = match message {
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => {
                &[Part::Links, Part::Addresses, Part::Routes]
            }
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                &[Part::Addresses, Part::Routes]
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => &[Part::Routes],
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => &[Part::Rules],
            RouteNetlinkMessage::NewNeighbour(message) => return self.set_neighbour(&message, true),
            RouteNetlinkMessage::DelNeighbour(message) => return self.set_neighbour(&message, false),
            _ => &[],
        };
        self.outdated.extend(outdated);
        false
    }

    fn set_neighbour(&mut self, message: &NeighbourMessage, is_there: bool) -> bool {
        let Some((key, mac)) = decode::neighbour(message) else { return false };
        let former = match mac.filter(|_| is_there) {
            Some(mac) => self.network.neighbours.insert(key, mac),
            None => self.network.neighbours.remove(&key),
        };
        former != mac.filter(|_| is_there)
    }

    /// Reads what is out of date.
    async fn update(&mut self) -> Result<()> {
        let started = Instant::now();
        for part in self.outdated.clone() {
            self.read(part).await?;
            self.outdated.remove(&part);
        }
        self.dump_took = started.elapsed();
        Ok(())
    }

    async fn read(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Links => {
                let links = collect(self.handle.link().get().execute(), "links").await?;
                self.network.links =
                    links.iter().filter_map(decode::link).map(|link| (link.index, link)).collect();
            }
            Part::Addresses => {
                let addresses = collect(self.handle.address().get().execute(), "addresses").await?;
                self.network.addresses = addresses.iter().filter_map(decode::address).collect();
            }
            Part::Routes => self.network.routes = self.routes().await?,
            Part::Rules => {
                self.network.plain_rules =
                    self.has_plain_rules(IpVersion::V4).await? && self.has_plain_rules(IpVersion::V6).await?;
            }
            Part::Neighbours => {
                let neighbours = collect(self.handle.neighbours().get().execute(), "neighbours").await?;
                self.network.neighbours = neighbours
                    .iter()
                    .filter_map(decode::neighbour)
                    .filter_map(|(key, mac)| mac.map(|mac| (key, mac)))
                    .collect();
            }
        }
        Ok(())
    }

    async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let messages = self.handle.route().get(request).execute();
            let messages = collect(messages, "routes").await?;
            routes.extend(messages.iter().filter_map(decode::route));
        }
        mark_siblings(&mut routes);
        Ok(routes)
    }

    async fn has_plain_rules(&self, version: IpVersion) -> Result<bool> {
        let rules = collect(self.handle.rule().get(version).execute(), "policy rules").await?;
        Ok(decode::are_plain(&rules))
    }
}

/// Older kernels list the next hops of an IPv6 multipath route as routes of their own.
fn mark_siblings(routes: &mut [Route]) {
    let key = |route: &Route| (route.table, route.destination, route.metric);
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<_> = routes
        .iter()
        .filter(|route| route.destination.addr().is_ipv6())
        .map(key)
        .filter(|key| !seen.insert(*key))
        .collect();
    for route in routes.iter_mut().filter(|route| twice.contains(&key(route))) {
        route.multipath = true;
    }
}

async fn collect<M>(messages: impl Stream<Item = Result<M, rtnetlink::Error>>, what: &str) -> Result<Vec<M>> {
    let mut messages = std::pin::pin!(messages);
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => all.push(message),
            // The family is switched off (`ipv6.disable=1`): there is nothing to list.
            Err(rtnetlink::Error::NetlinkError(error))
                if matches!(-error.raw_code(), libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot list {what} by rtnetlink")),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
