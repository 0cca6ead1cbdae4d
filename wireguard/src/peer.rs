//! What a device knows of one peer.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    PeerId,
    activity::Activity,
    cookie::{CookieJar, ReceiverKeys},
    endpoint::Endpoint,
    keypairs::Keypairs,
    keys::{PresharedKey, PublicKey},
    noise::{Timestamp, initiator::Initiation},
    time::{Time, UnixTime},
    x25519::SharedSecret,
};

/// Agreement of our static key with the peer's, computed ahead when there is time, at the latest for the first
/// handshake: at a change of our key a device with many peers must not stand still.
#[derive(Default)]
pub(crate) enum StaticStatic {
    #[default]
    Unknown,
    /// The peer's key is of low order: no handshake is possible.
    LowOrder,
    Known(SharedSecret),
}

/// An initiation of ours that waits for its response.
pub(crate) struct PendingInitiation {
    pub local_index: u32,
    /// `None` while it is being made.
    pub initiation: Option<Arc<Initiation>>,
}

pub(crate) struct Peer {
    pub id: PeerId,
    /// Position in the order in which peers were added.
    pub sequence: u64,
    pub public_key: PublicKey,
    pub preshared_key: PresharedKey,
    pub static_static: StaticStatic,
    /// Keys of mac1 and cookies for messages to the peer.
    pub receiver_keys: ReceiverKeys,
    pub cookies: CookieJar,
    pub endpoint: Option<Endpoint>,
    pub persistent_keepalive: Option<NonZeroU16>,
    /// The prefixes of the device's table that are this peer's.
    pub allowed_ips: BTreeSet<IpNet>,
    pub activity: Arc<Activity>,
    pub keypairs: Keypairs,
    pub pending: Option<PendingInitiation>,
    /// Local index of the response that is being made. The work has it weakly: once it is gone, there is no need.
    pub responding: Option<Arc<u32>>,
    /// Newest timestamp of an initiation, and when it came.
    pub latest_timestamp: Timestamp,
    pub initiation_consumed_at: Option<Time>,
    /// When we last sent an initiation or a response.
    pub handshake_sent_at: Option<Time>,
    /// Retransmits of the pending initiation.
    pub retransmit_count: u32,
    /// The receiving side asks for a new handshake once per session.
    pub rekeyed_on_receive: bool,
    pub last_handshake: Option<UnixTime>,
    /// Inner packets without a key, oldest first; an empty one is a keepalive.
    pub staged: VecDeque<Vec<u8>>,
    /// The mark for which the new-handshake timer was armed: its jitter is drawn once.
    pub new_handshake_armed_for: Option<Time>,
    /// Last traversal at the last review.
    pub reviewed_traversal: Option<Time>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, sequence: u64, public_key: PublicKey) -> Self {
        Self {
            id,
            sequence,
            public_key,
            preshared_key: PresharedKey::default(),
            static_static: StaticStatic::Unknown,
            receiver_keys: ReceiverKeys::new(&public_key),
            cookies: CookieJar::default(),
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: BTreeSet::new(),
            activity: Arc::default(),
            keypairs: Keypairs::default(),
            pending: None,
            responding: None,
            latest_timestamp: Timestamp::default(),
            initiation_consumed_at: None,
            handshake_sent_at: None,
            retransmit_count: 0,
            rekeyed_on_receive: false,
            last_handshake: None,
            staged: VecDeque::new(),
            new_handshake_armed_for: None,
            reviewed_traversal: None,
        }
    }

    pub(crate) fn persistent_keepalive_interval(&self) -> Option<Duration> {
        self.persistent_keepalive.map(|secs| Duration::from_secs(u64::from(secs.get())))
    }
}
