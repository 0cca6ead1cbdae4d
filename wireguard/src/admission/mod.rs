//! The door that handshake messages come through: what a stranger can make us do, and no more.
//!
//! Any number of threads sort messages at once, and none of them touches the [`crate::Device`]. The order is that
//! of cost: length and type, mac1, then under load mac2 and the sender's rate, and only then the first curve
//! arithmetic (kernel `wg_receive_handshake_packet`).

mod cookie_secret;
mod counters;
mod rate_limit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chacha20::ChaCha20Rng;
use cookie_secret::CookieSecret;
pub(crate) use counters::AdmissionCounters;
use rate_limit::RateLimit;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    constants::{UNDER_LOAD_LINGER, UNDER_LOAD_QUEUED},
    cookie::MAC_LEN,
    drop_reason::DropReason,
    endpoint::Endpoint,
    identity::Identity,
    message::{CookieReply, HandshakeInitiation, HandshakeResponse, MessageType},
    noise::responder::IncomingInitiation,
    time::Time,
};

/// A handshake message that was let in: for [`crate::Device::receive`].
pub struct Incoming {
    pub(crate) source: Endpoint,
    /// The device's epoch when the message was looked at; it is void in any other.
    pub(crate) epoch: u64,
    pub(crate) message: IncomingMessage,
}

pub(crate) enum IncomingMessage {
    Initiation(Box<OpenedInitiation>),
    Response(HandshakeResponse),
    Cookie(CookieReply),
}

/// An initiation of which one agreement is computed: it says whose it is, and does not yet prove it.
pub(crate) struct OpenedInitiation {
    pub message: HandshakeInitiation,
    pub incoming: IncomingInitiation,
}

/// What to do with a handshake message.
pub enum Admitted {
    /// Give it to [`crate::Device::receive`].
    Message(Incoming),
    /// Send this datagram back to where the message came from, from where it was sent to, with traffic class 0.
    Reply(Vec<u8>),
}

/// Whom messages are for.
#[derive(Clone)]
struct Receiver {
    identity: Arc<Identity>,
    epoch: u64,
}

/// Sorts handshake messages for one device; shared by all threads that receive them.
pub struct Admission {
    /// `None` while the device is down or has no private key.
    receiver: RwLock<Option<Receiver>>,
    guard: Mutex<LoadGuard>,
    counters: AdmissionCounters,
}

/// What counts only under load.
struct LoadGuard {
    /// When the queue was last long.
    loaded_at: Option<Time>,
    cookie_secret: CookieSecret,
    rate_limit: RateLimit,
}

impl Admission {
    /// `rng` makes cookie secrets and nonces.
    pub(crate) fn new(rng: ChaCha20Rng) -> Self {
        let guard = LoadGuard {
            loaded_at: None,
            cookie_secret: CookieSecret::new(rng),
            rate_limit: RateLimit::default(),
        };
        Self { receiver: RwLock::default(), guard: Mutex::new(guard), counters: AdmissionCounters::default() }
    }

    /// Looks at one datagram that is no transport packet, from `source`, while `queued` more are waiting.
    ///
    /// An initiation costs one agreement here (some 40 us), so call this off the packet path.
    ///
    /// # Errors
    /// The datagram was dropped and counted; nothing may be sent.
    pub fn admit(
        &self,
        datagram: &[u8],
        source: Endpoint,
        queued: usize,
        now: Time,
    ) -> Result<Admitted, DropReason> {
        let is_under_load = self.guard().note_load(queued, now);
        self.sort(datagram, source, is_under_load, now)
    }

    /// Whether messages must carry a cookie now: 512 of them were waiting within the last second.
    pub fn is_under_load(&self, now: Time) -> bool {
        self.guard().note_load(0, now)
    }

    pub(crate) fn sort(
        &self,
        datagram: &[u8],
        source: Endpoint,
        is_under_load: bool,
        now: Time,
    ) -> Result<Admitted, DropReason> {
        let sorted = self.try_sort(datagram, source, is_under_load, now);
        match &sorted {
            Err(reason) => self.counters.dropped(*reason),
            Ok(Admitted::Reply(_)) => self.counters.replied(),
            Ok(Admitted::Message(_)) => {}
        }
        sorted
    }

    fn try_sort(
        &self,
        datagram: &[u8],
        source: Endpoint,
        is_under_load: bool,
        now: Time,
    ) -> Result<Admitted, DropReason> {
        let message_type = MessageType::classify(datagram).map_err(|_| DropReason::Malformed)?;
        if message_type == MessageType::Transport {
            return Err(DropReason::UnexpectedType);
        }
        let receiver = self.receiver().ok_or(DropReason::NotReady)?;
        if message_type != MessageType::CookieReply {
            // mac1 before anything that costs more: only who knows our public key gets further.
            if !receiver.identity.receiver_keys.verify_mac1(datagram) {
                return Err(DropReason::InvalidMac1);
            }
            if is_under_load && let Some(reply) = self.challenge(&receiver.identity, datagram, source, now)? {
                return Ok(Admitted::Reply(reply.as_bytes().to_vec()));
            }
        }
        let message = match message_type {
            MessageType::HandshakeInitiation => {
                IncomingMessage::Initiation(open_initiation(read(datagram)?, &receiver.identity)?)
            }
            MessageType::HandshakeResponse => IncomingMessage::Response(read(datagram)?),
            MessageType::CookieReply | MessageType::Transport => IncomingMessage::Cookie(read(datagram)?),
        };
        Ok(Admitted::Message(Incoming { source, epoch: receiver.epoch, message }))
    }

    /// Under load: a cookie for who did not bring one, a limit for who did.
    fn challenge(
        &self,
        identity: &Identity,
        datagram: &[u8],
        source: Endpoint,
        now: Time,
    ) -> Result<Option<CookieReply>, DropReason> {
        let mut guard = self.guard();
        let cookie = guard.cookie_secret.cookie(source.remote, now);
        if crate::cookie::verify_mac2(&cookie, datagram) {
            let is_admitted = guard.rate_limit.admit(source.remote.ip(), now);
            return if is_admitted { Ok(None) } else { Err(DropReason::RateLimited) };
        }
        // Initiation and response have the sender's index in the same place.
        let sender_index =
            datagram.get(4..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Malformed)?;
        let mac1 = datagram
            .split_last_chunk::<{ 2 * MAC_LEN }>()
            .and_then(|(_, macs)| macs.first_chunk())
            .ok_or(DropReason::Malformed)?;
        let sender_index = u32::from_le_bytes(*sender_index);
        Ok(Some(guard.cookie_secret.reply(&identity.receiver_keys, mac1, sender_index, source.remote, now)))
    }

    /// Who receives from now on, and in which epoch.
    pub(crate) fn set_receiver(&self, identity: Option<Arc<Identity>>, epoch: u64) {
        let receiver = identity.map(|identity| Receiver { identity, epoch });
        *self.receiver.write().unwrap_or_else(PoisonError::into_inner) = receiver;
    }

    pub(crate) fn counters(&self) -> &AdmissionCounters {
        &self.counters
    }

    fn receiver(&self) -> Option<Receiver> {
        self.receiver.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn guard(&self) -> MutexGuard<'_, LoadGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoadGuard {
    fn note_load(&mut self, queued: usize, now: Time) -> bool {
        if queued >= UNDER_LOAD_QUEUED {
            self.loaded_at = Some(now);
        }
        self.loaded_at.take_if(|at| now.saturating_since(*at) >= UNDER_LOAD_LINGER);
        self.loaded_at.is_some()
    }
}

fn open_initiation(
    message: HandshakeInitiation,
    identity: &Identity,
) -> Result<Box<OpenedInitiation>, DropReason> {
    let incoming = IncomingInitiation::open_static(&message, &identity.secret, &identity.public_key)
        .ok_or(DropReason::AuthenticationFailed)?;
    Ok(Box::new(OpenedInitiation { message, incoming }))
}

fn read<T: FromBytes>(datagram: &[u8]) -> Result<T, DropReason> {
    T::read_from_bytes(datagram).map_err(|_| DropReason::Malformed)
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message_type = match self.message {
            IncomingMessage::Initiation(_) => MessageType::HandshakeInitiation,
            IncomingMessage::Response(_) => MessageType::HandshakeResponse,
            IncomingMessage::Cookie(_) => MessageType::CookieReply,
        };
        f.debug_struct("Incoming")
            .field("source", &self.source)
            .field("type", &message_type)
            .finish_non_exhaustive()
    }
}
