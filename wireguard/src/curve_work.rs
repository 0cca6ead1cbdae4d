//! The curve arithmetic of handshakes, some 40 us for each agreement, as work that any thread can do.
//!
//! A [`crate::Device`] never computes on a curve itself: it gives out [`CurveWork`] and takes back what came of it,
//! while timers and operators are served. What has become void meanwhile (the peer is gone, the private key is
//! another, a newer handshake has begun) is dropped when it comes back.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::{
    PeerId,
    admission::OpenedInitiation,
    endpoint::Endpoint,
    identity::Identity,
    keys::{KEY_LEN, PresharedKey, PublicKey},
    message::{HandshakeInitiation, HandshakeResponse},
    noise::{
        Timestamp, TransportKeys,
        initiator::{self, Initiation, InitiatorKeys},
        responder::VerifiedInitiation,
    },
    x25519::{Secret, SharedSecret},
};

/// Whom a piece of work is for. Slots are used again, sequence numbers and epochs are not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub epoch: u64,
    pub peer: PeerId,
    pub sequence: u64,
}

/// 32 random bytes that become an ephemeral private key.
pub(crate) type EphemeralSeed = Zeroizing<[u8; KEY_LEN]>;

/// A piece of curve arithmetic to be done.
pub struct CurveWork {
    pub(crate) ticket: Ticket,
    pub(crate) task: Task,
}

/// A piece of curve arithmetic that is done: for [`crate::Device::work_done`].
pub struct CurveResult {
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Task {
    /// Compute the agreement of both static keys; an initiation may wait for it.
    Agree {
        identity: Arc<Identity>,
        public_key: PublicKey,
        waiting: Option<(Box<OpenedInitiation>, Endpoint)>,
    },
    /// Make message 1.
    Initiate {
        identity: Arc<Identity>,
        public_key: PublicKey,
        static_static: Option<SharedSecret>,
        ephemeral: EphemeralSeed,
        timestamp: Timestamp,
        local_index: u32,
    },
    /// Make message 2.
    Respond {
        verified: Box<VerifiedInitiation>,
        preshared_key: PresharedKey,
        ephemeral: EphemeralSeed,
        local_index: u32,
    },
    /// Verify message 2.
    ConsumeResponse {
        identity: Arc<Identity>,
        initiation: Arc<Initiation>,
        preshared_key: PresharedKey,
        message: HandshakeResponse,
        source: Endpoint,
    },
}

pub(crate) enum Outcome {
    /// `None` for a key of low order.
    Agreed {
        agreement: Option<SharedSecret>,
        waiting: Option<(Box<OpenedInitiation>, Endpoint)>,
    },
    /// `agreement` if it was not known before.
    Initiated {
        agreement: Option<SharedSecret>,
        created: Option<(Initiation, HandshakeInitiation)>,
        local_index: u32,
    },
    Responded {
        created: Option<(HandshakeResponse, TransportKeys)>,
        local_index: u32,
    },
    ResponseConsumed {
        keys: Option<TransportKeys>,
        local_index: u32,
        remote_index: u32,
        source: Endpoint,
    },
}

impl CurveWork {
    /// Whether no message waits for it: it is done ahead, so that the first handshake of a peer is quick.
    pub fn is_ahead(&self) -> bool {
        matches!(self.task, Task::Agree { waiting: None, .. })
    }

    /// Does the work: up to three multiplications on the curve, 0.15 ms.
    pub fn perform(self) -> CurveResult {
        CurveResult { ticket: self.ticket, outcome: self.task.perform() }
    }
}

impl Task {
    fn perform(self) -> Outcome {
        match self {
            Self::Agree { identity, public_key, waiting } => {
                Outcome::Agreed { agreement: identity.secret.agree(&public_key), waiting }
            }
            Self::Initiate { identity, public_key, static_static, ephemeral, timestamp, local_index } => {
                let is_known = static_static.is_some();
                let agreement = static_static.or_else(|| identity.secret.agree(&public_key));
                let created = agreement.as_ref().and_then(|static_static| {
                    initiator::create_initiation(
                        &InitiatorKeys { local: &identity.public_key, remote: &public_key, static_static },
                        Secret::from_bytes(&ephemeral),
                        timestamp,
                        local_index,
                    )
                });
                Outcome::Initiated { agreement: agreement.filter(|_| !is_known), created, local_index }
            }
            Self::Respond { verified, preshared_key, ephemeral, local_index } => {
                let created = verified.respond(&Secret::from_bytes(&ephemeral), &preshared_key, local_index);
                Outcome::Responded { created, local_index }
            }
            Self::ConsumeResponse { identity, initiation, preshared_key, message, source } => {
                Outcome::ResponseConsumed {
                    keys: initiation.consume_response(&identity.secret, &preshared_key, &message),
                    local_index: message.receiver_index.get(),
                    remote_index: message.sender_index.get(),
                    source,
                }
            }
        }
    }
}

impl fmt::Debug for CurveWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurveWork").field("peer", &self.ticket.peer).finish_non_exhaustive()
    }
}

impl fmt::Debug for CurveResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurveResult").field("peer", &self.ticket.peer).finish_non_exhaustive()
    }
}
