//! The curve arithmetic of handshakes, some 40 us for each agreement, as work that any thread can do.
//!
//! A [`crate::Device`] never computes on a curve itself: it gives out [`CurveWork`] and takes back what came of it,
//! while timers and operators are served. What has become void meanwhile (the peer is gone, the private key is
//! another, a newer handshake has begun) is dropped when it comes back.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    PeerId,
    admission::OpenedInitiation,
    endpoint::Endpoint,
    identity::Identity,
    keys::{PresharedKey, PublicKey, SecretBytes},
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
pub(crate) type EphemeralSeed = SecretBytes;

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
        /// Gone once nobody waits for the response.
        wanted: Weak<u32>,
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

    /// Whether something may still come of it: not of a response whose peer is gone or has sent a newer initiation.
    pub fn is_wanted(&self) -> bool {
        !matches!(&self.task, Task::Respond { wanted, .. } if wanted.strong_count() == 0)
    }

    /// Does the work: up to three multiplications on the curve, 0.15 ms; none if it [is not wanted](Self::is_wanted)
    /// any more.
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
            Self::Respond { verified, preshared_key, ephemeral, local_index, wanted } => {
                let respond =
                    |_| verified.respond(&Secret::from_bytes(&ephemeral), &preshared_key, local_index);
                let created = wanted.upgrade().and_then(respond);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{initiator::InitiatorKeys, responder::IncomingInitiation};

    fn response_work(wanted: &Arc<u32>) -> CurveWork {
        let (alice, bob) = (Secret::from_bytes(&[1; 32]), Secret::from_bytes(&[2; 32]));
        let (alice_public, bob_public) = (alice.public_key(), bob.public_key());
        let static_static = alice.agree(&bob_public).expect("high order");
        let keys = InitiatorKeys { local: &alice_public, remote: &bob_public, static_static: &static_static };
        let timestamp = Timestamp::default();
        let (_, message) = initiator::create_initiation(&keys, Secret::from_bytes(&[3; 32]), timestamp, 7)
            .expect("high order");
        let incoming = IncomingInitiation::open_static(&message, &bob, &bob_public).expect("it verifies");
        let (verified, _) = incoming.open_timestamp(&static_static, &message).expect("it verifies");
        let task = Task::Respond {
            verified: Box::new(verified),
            preshared_key: PresharedKey::default(),
            ephemeral: [4; 32].into(),
            local_index: **wanted,
            wanted: Arc::downgrade(wanted),
        };
        CurveWork { ticket: Ticket { epoch: 0, peer: PeerId(0), sequence: 0 }, task }
    }

    fn responded(result: CurveResult) -> Option<TransportKeys> {
        let Outcome::Responded { created, .. } = result.outcome else { panic!("not what was asked for") };
        created.map(|(_, keys)| keys)
    }

    #[test]
    fn response_that_nobody_waits_for_is_not_computed() {
        let wanted = Arc::new(9);
        let works = [(); 2].map(|()| response_work(&wanted));
        let [first, second] = works;
        assert!(first.is_wanted() && responded(first.perform()).is_some());
        drop(wanted);
        assert!(!second.is_wanted() && responded(second.perform()).is_none());
    }

    #[test]
    fn secrets_stay_where_they_are_when_work_and_results_move() {
        let wanted = Arc::new(9);
        let work = response_work(&wanted);
        let seed = |work: &CurveWork| match &work.task {
            Task::Respond { ephemeral, .. } => ephemeral.as_ptr(),
            _ => panic!("not what was asked for"),
        };
        let place = seed(&work);
        let (sender, receiver) = std::sync::mpsc::channel();
        sender.send(Box::new(work)).unwrap();
        let work = receiver.recv().unwrap();
        assert_eq!(seed(&work), place);

        let keys = responded(work.perform()).unwrap();
        let places = [keys.sending.as_ptr(), keys.receiving.as_ptr()];
        let moved = Box::new(Some(keys));
        let keys = moved.as_ref().as_ref().unwrap();
        assert_eq!([keys.sending.as_ptr(), keys.receiving.as_ptr()], places);
        let shared = Secret::from_bytes(&[1; 32]).agree(&Secret::from_bytes(&[2; 32]).public_key());
        let place = shared.as_ref().map(|shared| shared.as_ptr());
        assert_eq!(Box::new(shared).as_ref().as_ref().map(|shared| shared.as_ptr()), place);
    }
}
