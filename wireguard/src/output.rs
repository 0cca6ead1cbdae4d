//! What a device asks its owner to do, and what it hears from workers.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{PeerId, activity::Activity, drop_reason::DropReason, endpoint::Endpoint, session::Session};

/// One thing to do. Apply them in the order in which [`crate::Device::poll_output`] gives them.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram: a handshake message, a keepalive or a staged packet, already sealed.
    Transmit {
        /// Whose packet it is.
        peer: PeerId,
        /// Where to, and from which of our addresses.
        to: Endpoint,
        /// The UDP payload.
        datagram: Vec<u8>,
        /// Outer traffic class: DSCP and ECN.
        tos: u8,
    },
    /// Packets to this session's local index may arrive from now on.
    SessionAdded(Arc<Session>),
    /// The index is free: packets to it are dropped.
    SessionRemoved {
        /// The session's local index.
        local_index: u32,
    },
    /// What to seal a peer's packets with; without a session they are staged.
    CurrentSession {
        /// The peer.
        peer: PeerId,
        /// Its session, which may refuse to send by age at any time.
        session: Option<Arc<Session>>,
    },
    /// A peer was added.
    PeerAdded {
        /// The peer.
        peer: PeerId,
        /// Its traffic marks.
        activity: Arc<Activity>,
    },
    /// A peer is gone, with all its sessions.
    PeerRemoved {
        /// The peer; the slot may be given to another one later.
        peer: PeerId,
    },
    /// Where a peer is reached has changed.
    EndpointChanged {
        /// The peer.
        peer: PeerId,
        /// Its endpoint now.
        endpoint: Option<Endpoint>,
    },
    /// Allowed IPs have changed: publish a snapshot with all of these changes, or with all of
    /// [`crate::Device::allowed_ips`].
    AllowedIpsChanged {
        /// In order; a prefix may occur more than once, the last counts. The peers were added by outputs before
        /// this one, or are gone by now.
        changes: Vec<AllowedIpChange>,
    },
}

/// A prefix that was given to a peer or taken from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIpChange {
    /// The prefix; its host bits are zero.
    pub prefix: IpNet,
    /// Whose it is now.
    pub owner: Option<PeerId>,
}

/// What a worker tells the device. Late or doubled events do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// [`Session::confirm`] returned true.
    Confirmed {
        /// The session.
        local_index: u32,
    },
    /// An authenticated packet came from another endpoint than the peer's.
    Roamed {
        /// The session.
        local_index: u32,
        /// Where it came from.
        endpoint: Endpoint,
    },
    /// [`Activity::note`] returned true.
    Activity {
        /// The peer.
        peer: PeerId,
    },
    /// [`Session::wants_rekey_on_send`] returned true.
    RekeyOnSend {
        /// The session.
        local_index: u32,
    },
    /// [`Session::wants_rekey_on_receive`] returned true.
    RekeyOnReceive {
        /// The session.
        local_index: u32,
    },
}

/// What a device has done since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounters {
    /// Initiations sent, retransmits included.
    pub initiations_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Initiations accepted.
    pub initiations_received: u64,
    /// Responses accepted.
    pub responses_received: u64,
    /// Cookies accepted.
    pub cookies_received: u64,
    /// Cookies sent: messages that came while we were under load, without a cookie.
    pub cookies_sent: u64,
    /// Handshakes completed, as initiator or confirmed as responder.
    pub handshakes_completed: u64,
    /// Handshakes given up after the last retransmit.
    pub handshakes_given_up: u64,
    /// Keepalives sent.
    pub keepalives_sent: u64,
    /// Staged packets that made place for newer ones, or whose handshake was given up.
    pub staged_dropped: u64,
    /// Packets that could not be staged: device down, no endpoint, or destination not the peer's.
    pub stage_refused: u64,
    /// Datagrams dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

impl HandshakeCounters {
    /// Datagrams dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}
