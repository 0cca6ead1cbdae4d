//! Changes of configuration, in the order and with the quirks of the kernel's `netlink.c`.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::Device;
use crate::{
    PeerId,
    constants::PEERS_MAX,
    endpoint::Endpoint,
    identity::Identity,
    keys::{PresharedKey, PrivateKey, PublicKey},
    output::{AllowedIpChange, Output},
    peer::StaticStatic,
    time::Now,
    timers::TimerKind,
};

/// What to do with the private key.
#[derive(Clone, Debug, Default)]
pub enum PrivateKeyChange {
    /// Nothing.
    #[default]
    Keep,
    /// Remove it: no more handshakes.
    Clear,
    /// Set it.
    Set(PrivateKey),
}

/// A set of changes that is applied as a whole: peers are replaced first, then the key is set, then peers change.
#[derive(Clone, Debug, Default)]
pub struct DeviceChange {
    /// Our private key.
    pub private_key: PrivateKeyChange,
    /// Remove all peers before `peers` are applied.
    pub replace_peers: bool,
    /// One after the other.
    pub peers: Vec<PeerChange>,
}

/// Whether an allowed IP is given to a peer or taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpAction {
    /// Give it to this peer, whoever had it.
    Add,
    /// Take it away if it is this peer's.
    Remove,
}

/// Changes of one peer, which is added if need be. What is `None` stays as it is.
#[derive(Clone, Debug)]
pub struct PeerChange {
    /// Whom it is about. Our own key is ignored.
    pub public_key: PublicKey,
    /// Do not add the peer if it is not there.
    pub update_only: bool,
    /// Remove the peer; nothing else counts then.
    pub remove: bool,
    /// Set the preshared key; zeros clear it.
    pub preshared_key: Option<PresharedKey>,
    /// Set where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Set the seconds between persistent keepalives; 0 switches them off.
    pub persistent_keepalive: Option<u16>,
    /// Take all allowed IPs away before `allowed_ips` are applied.
    pub replace_allowed_ips: bool,
    /// One after the other.
    pub allowed_ips: Vec<(IpNet, AllowedIpAction)>,
}

impl PeerChange {
    /// A change of nothing, which adds the peer.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            update_only: false,
            remove: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// Peers that one change makes send at once.
const WAKES_AT_ONCE: u32 = 64;
/// Time between two of those beyond. A hundred thousand peers are done in 20 s, before the first of them is due again
/// with the usual keepalive interval of 25 s; from then on their timers are as far apart.
const WAKE_SPACING: Duration = Duration::from_micros(200);

/// Keeps one change from starting all handshakes of a large device in one moment.
#[derive(Default)]
struct Pacing {
    count: u32,
}

impl Pacing {
    /// How long the next peer has to wait; `None` for not at all.
    fn next_delay(&mut self) -> Option<Duration> {
        self.count += 1;
        self.count.checked_sub(WAKES_AT_ONCE).filter(|beyond| *beyond > 0).map(|beyond| WAKE_SPACING * beyond)
    }
}

/// Why changes were refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// There would be more peers than a device can have.
    #[error("{count} peers are more than the {PEERS_MAX} one device can have: remove some first")]
    TooManyPeers {
        /// Peers there would be.
        count: usize,
    },
}

impl Device {
    /// Applies all changes or none.
    ///
    /// # Errors
    /// Says what is wrong with the change; the device is as before.
    pub fn apply(&mut self, change: DeviceChange, now: Now) -> Result<(), ApplyError> {
        let count = self.peer_count_after(&change);
        if count > PEERS_MAX {
            return Err(ApplyError::TooManyPeers { count });
        }
        if change.replace_peers {
            for id in self.peers.ids() {
                self.remove_peer(id);
            }
        }
        let mut pacing = Pacing::default();
        match change.private_key {
            PrivateKeyChange::Keep => {}
            PrivateKeyChange::Clear => self.replace_private_key(None, &mut pacing, now),
            PrivateKeyChange::Set(key) => self.replace_private_key(Some(key), &mut pacing, now),
        }
        for peer in &change.peers {
            self.apply_peer(peer, &mut pacing, now);
        }
        self.announce_allowed_ips();
        Ok(())
    }

    /// One snapshot for all changes of a call.
    fn announce_allowed_ips(&mut self) {
        let changes = std::mem::take(&mut self.allowed_ip_changes);
        if !changes.is_empty() {
            self.outputs.push_back(Output::AllowedIpsChanged { changes });
        }
    }

    /// How many peers there would be; our own key may be counted as one.
    fn peer_count_after(&self, change: &DeviceChange) -> usize {
        let mut count = if change.replace_peers { 0 } else { self.peers.len() };
        let mut decided = BTreeMap::new();
        for peer in &change.peers {
            let exists = decided
                .entry(peer.public_key)
                .or_insert_with(|| !change.replace_peers && self.peers.id_of(&peer.public_key).is_some());
            if peer.remove {
                count -= usize::from(std::mem::replace(exists, false));
            } else if !peer.update_only {
                count += usize::from(!std::mem::replace(exists, true));
            }
        }
        count
    }

    fn apply_peer(&mut self, change: &PeerChange, pacing: &mut Pacing, now: Now) {
        let existing = self.peers.id_of(&change.public_key);
        if change.remove {
            if let Some(id) = existing {
                self.remove_peer(id);
            }
            return;
        }
        if self.public_key() == Some(change.public_key) {
            return;
        }
        let id = match existing {
            Some(id) => id,
            None if change.update_only => return,
            None => self.add_peer(change.public_key),
        };
        self.apply_peer_keys(id, change);
        self.apply_allowed_ips(id, change);
        let started = change.persistent_keepalive.is_some_and(|secs| self.set_persistent_keepalive(id, secs));
        if started && self.up {
            self.wake_paced(id, pacing, now);
        }
        self.send_staged(id, now);
        self.review(id, now);
    }

    fn add_peer(&mut self, public_key: PublicKey) -> PeerId {
        let peer = self.peers.insert(public_key);
        let added = Output::PeerAdded { peer: peer.id, activity: Arc::clone(&peer.activity) };
        let id = peer.id;
        self.outputs.push_back(added);
        self.want_agreements([id]);
        id
    }

    fn apply_peer_keys(&mut self, id: PeerId, change: &PeerChange) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        if let Some(preshared_key) = &change.preshared_key {
            peer.preshared_key = preshared_key.clone();
        }
        if let Some(remote) = change.endpoint
            && peer.endpoint.is_none_or(|endpoint| endpoint.remote != remote)
        {
            self.set_endpoint(id, Some(Endpoint::from(remote)));
        }
    }

    fn apply_allowed_ips(&mut self, id: PeerId, change: &PeerChange) {
        if change.replace_allowed_ips {
            self.remove_allowed_ips(id);
        }
        for (prefix, action) in &change.allowed_ips {
            let prefix = prefix.trunc();
            match action {
                AllowedIpAction::Add => {
                    let previous = self.allowed_ips.insert(prefix, id);
                    if previous == Some(id) {
                        continue;
                    }
                    self.allowed_ip_changes.push(AllowedIpChange { prefix, owner: Some(id) });
                    if let Some(previous) = previous.and_then(|previous| self.peers.peer_mut(previous)) {
                        previous.allowed_ips.remove(&prefix);
                    }
                    if let Some(peer) = self.peers.peer_mut(id) {
                        peer.allowed_ips.insert(prefix);
                    }
                }
                AllowedIpAction::Remove => {
                    if let Some(peer) = self.peers.peer_mut(id)
                        && peer.allowed_ips.remove(&prefix)
                    {
                        self.allowed_ips.remove(&prefix);
                        self.allowed_ip_changes.push(AllowedIpChange { prefix, owner: None });
                    }
                }
            }
        }
    }

    fn remove_allowed_ips(&mut self, id: PeerId) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let prefixes = std::mem::take(&mut peer.allowed_ips);
        for &prefix in &prefixes {
            self.allowed_ips.remove(&prefix);
            self.allowed_ip_changes.push(AllowedIpChange { prefix, owner: None });
        }
    }

    /// Whether keepalives were off and are on now.
    fn set_persistent_keepalive(&mut self, id: PeerId, secs: u16) -> bool {
        let Some(peer) = self.peers.peer_mut(id) else {
            return false;
        };
        let previous = std::mem::replace(&mut peer.persistent_keepalive, NonZeroU16::new(secs));
        self.timers.disarm(id, TimerKind::PersistentKeepalive);
        previous.is_none() && secs != 0
    }

    fn remove_peer(&mut self, id: PeerId) {
        self.zero_keys(id);
        self.timers.disarm_all(id);
        self.remove_allowed_ips(id);
        if self.peers.remove(id).is_some() {
            self.outputs.push_back(Output::PeerRemoved { peer: id });
        }
    }

    /// Sets or clears our private key. A peer with our own public key is removed; sessions may receive, but not
    /// send any more, and the next packet starts a handshake at once. Setting the same key changes nothing.
    pub fn set_private_key(&mut self, key: Option<PrivateKey>, now: Now) {
        self.replace_private_key(key, &mut Pacing::default(), now);
        self.announce_allowed_ips();
    }

    fn replace_private_key(&mut self, key: Option<PrivateKey>, pacing: &mut Pacing, now: Now) {
        if self.private_key() == key.as_ref() {
            return;
        }
        self.identity = key.map(|key| Arc::new(Identity::new(key)));
        self.begin_epoch();
        if let Some(own) = self.public_key().and_then(|public_key| self.peers.id_of(&public_key)) {
            self.remove_peer(own);
        }
        let ids = self.peers.ids();
        for &id in &ids {
            self.drop_pending_initiation(id);
            self.drop_response_in_the_making(id);
            self.timers.disarm(id, TimerKind::RetransmitHandshake);
            if let Some(peer) = self.peers.peer_mut(id) {
                peer.static_static = StaticStatic::Unknown;
                peer.handshake_sent_at = None;
                peer.keypairs.end_sending();
            }
        }
        self.agreements_wanted.clear();
        self.want_agreements(ids.iter().copied());
        self.wake_peers(&ids, pacing, now);
    }

    /// Takes the interface up or down. Going down erases all sessions and forgets staged packets.
    pub fn set_up(&mut self, up: bool, now: Now) {
        if self.up == up {
            return;
        }
        self.up = up;
        self.begin_epoch();
        let ids = self.peers.ids();
        if up {
            self.wake_peers(&ids, &mut Pacing::default(), now);
            return;
        }
        for id in ids {
            self.purge_staged(id);
            self.timers.disarm_all(id);
            self.zero_keys(id);
            if let Some(peer) = self.peers.peer_mut(id) {
                peer.handshake_sent_at = None;
                peer.new_handshake_armed_for = None;
                peer.rekeyed_on_receive = false;
                peer.activity.reset_marks();
                peer.activity.unwatch();
            }
        }
    }

    /// Sends what peers have waited for: staged packets and persistent keepalives.
    fn wake_peers(&mut self, ids: &[PeerId], pacing: &mut Pacing, now: Now) {
        if !self.up || self.identity.is_none() {
            return;
        }
        for &id in ids {
            let waits = self
                .peers
                .peer(id)
                .is_some_and(|peer| peer.persistent_keepalive.is_some() || !peer.staged.is_empty());
            if waits {
                self.wake_paced(id, pacing, now);
            }
            self.review(id, now);
        }
    }

    /// [`Self::wake`], at once or when its turn comes.
    fn wake_paced(&mut self, id: PeerId, pacing: &mut Pacing, now: Now) {
        match pacing.next_delay() {
            None => self.wake(id, now),
            Some(delay) => self.timers.arm(id, TimerKind::Wake, now.monotonic + delay),
        }
    }

    /// Sends a peer's staged packets, and a keepalive if it has persistent ones.
    pub(super) fn wake(&mut self, id: PeerId, now: Now) {
        if self.peers.peer(id).is_some_and(|peer| peer.persistent_keepalive.is_some()) {
            self.send_keepalive(id, now);
        } else {
            self.send_staged(id, now);
        }
    }
}
