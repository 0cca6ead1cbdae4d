//! A keypair's transport state: shared by workers and control, free of any decision about peers.

mod marks;
#[cfg(test)]
mod model;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        // What `marks` is made of; a test makes it of models of the same.
        atomic::{self, AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    PeerId,
    activity::Activity,
    constants::{
        REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
        REKEY_AFTER_TIME_RECEIVING, TAG_LEN,
    },
    drop_reason::DropReason,
    keys::{KEY_LEN, SecretBytes},
    message::{MessageType, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader},
    replay::{ReplayGuard, ReplayWindow},
    time::Time,
};

use marks::{Confirmation, NonceCounter, RekeyWish};

/// What a handshake decides about a session. Public so that a data plane can be tested without handshakes.
#[repr(C)]
pub struct SessionParameters {
    /// The peer whose packets these are.
    pub peer: PeerId,
    /// Receiver index of packets to us.
    pub local_index: u32,
    /// Receiver index of packets to the peer.
    pub remote_index: u32,
    /// Whether we began the handshake.
    pub initiator: bool,
    /// When the handshake ended on our side.
    pub created_at: Time,
    /// The peer's traffic marks.
    pub activity: Arc<Activity>,
    /// ChaCha20-Poly1305 key of packets to the peer.
    pub sending_key: SecretBytes,
    /// ChaCha20-Poly1305 key of packets from the peer.
    pub receiving_key: SecretBytes,
}

/// What receiving needs. The head of the replay window is written for every batch received, and shares its cache line
/// with copies of the two parameters that are asked for.
#[repr(C, align(64))]
struct Receiving {
    created_at: Time,
    initiator: bool,
    confirmation: Confirmation,
    /// The sender's, too.
    rekey_wish: RekeyWish,
    window: ReplayWindow,
}

/// What sending reads and writes: one cache line.
#[repr(C, align(64))]
struct Sending {
    nonces: NonceCounter,
    parameters: SessionParameters,
    /// Set when sending is over for good; receiving goes on until `REJECT_AFTER_TIME`.
    ended: AtomicBool,
}

const _: () = assert!(size_of::<Sending>() == 64);

/// One session (keypair) of a peer. The keys are erased when the last owner lets go.
///
/// Sender and receiver may be on different cores, and with thousands of sessions each cache line counts: neither reads
/// the other's, and the bitmap of the replay window keeps the two apart.
#[repr(C)]
pub struct Session {
    receiving: Receiving,
    sending: Sending,
}

impl Receiving {
    fn age(&self, now: Time) -> Duration {
        now.saturating_since(self.created_at)
    }
}

impl Session {
    /// A session that has sent and received nothing.
    pub fn new(parameters: SessionParameters) -> Self {
        Self {
            receiving: Receiving {
                created_at: parameters.created_at,
                initiator: parameters.initiator,
                // The initiator has seen the responder use the key's handshake: nothing is left to confirm.
                confirmation: Confirmation::new(parameters.initiator),
                rekey_wish: RekeyWish::default(),
                window: ReplayWindow::new(),
            },
            sending: Sending { nonces: NonceCounter::default(), parameters, ended: AtomicBool::new(false) },
        }
    }

    /// The peer whose packets these are.
    pub fn peer(&self) -> PeerId {
        self.sending.parameters.peer
    }

    /// The peer's traffic marks: call [`Activity::sent`] and [`Activity::received`] once per batch.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.sending.parameters.activity
    }

    /// Receiver index of packets to us.
    pub fn local_index(&self) -> u32 {
        self.sending.parameters.local_index
    }

    /// Receiver index of packets to the peer.
    pub fn remote_index(&self) -> u32 {
        self.sending.parameters.remote_index
    }

    /// When the handshake ended on our side.
    pub fn created_at(&self) -> Time {
        self.sending.parameters.created_at
    }

    /// Whether we began the handshake.
    pub fn is_initiator(&self) -> bool {
        self.sending.parameters.initiator
    }

    /// ChaCha20-Poly1305 key of packets to the peer.
    pub fn sending_key(&self) -> &[u8; KEY_LEN] {
        &self.sending.parameters.sending_key
    }

    /// ChaCha20-Poly1305 key of packets from the peer.
    pub fn receiving_key(&self) -> &[u8; KEY_LEN] {
        &self.sending.parameters.receiving_key
    }

    /// Reserves `count` consecutive nonces and returns the first.
    ///
    /// `None` when the session may send no more, by age, by `REJECT_AFTER_MESSAGES`, or because the private key
    /// changed: stage the packets with [`crate::Device::stage`].
    pub fn reserve(&self, count: u32, now: Time) -> Option<u64> {
        if !self.may_send(now) {
            return None;
        }
        self.sending.nonces.reserve(count)
    }

    /// Whether sending is possible by age and counter.
    pub fn may_send(&self, now: Time) -> bool {
        !self.sending.ended.load(Relaxed)
            && self.age(now) < REJECT_AFTER_TIME
            && self.sending.nonces.reserved_count() < REJECT_AFTER_MESSAGES
    }

    /// Whether packets may still be opened: the session is younger than `REJECT_AFTER_TIME`.
    pub fn may_receive(&self, now: Time) -> bool {
        self.receiving.age(now) < REJECT_AFTER_TIME
    }

    /// Ask after sending. When true, queue [`crate::SessionEvent::RekeyOnSend`]. True at most once a second.
    pub fn wants_rekey_on_send(&self, now: Time) -> bool {
        self.is_due_on_send(now) && self.receiving.rekey_wish.wish(now)
    }

    /// Ask after receiving. When true, queue [`crate::SessionEvent::RekeyOnReceive`]. True at most once a second.
    pub fn wants_rekey_on_receive(&self, now: Time) -> bool {
        self.is_due_on_receive(now) && self.receiving.rekey_wish.wish(now)
    }

    pub(crate) fn is_due_on_send(&self, now: Time) -> bool {
        (self.sending.parameters.initiator && self.age(now) > REKEY_AFTER_TIME)
            || self.sending.nonces.reserved_count() > REKEY_AFTER_MESSAGES
    }

    pub(crate) fn is_due_on_receive(&self, now: Time) -> bool {
        self.receiving.initiator && self.receiving.age(now) > REKEY_AFTER_TIME_RECEIVING
    }

    fn age(&self, now: Time) -> Duration {
        now.saturating_since(self.sending.parameters.created_at)
    }

    /// Locks the replay window: show it the counters of authenticated packets only, a whole run at once.
    pub fn replay(&self) -> ReplayGuard<'_> {
        self.receiving.window.lock()
    }

    /// Brings into the cache what receiving a packet with `counter` needs. The result means nothing: it is there to
    /// be waited for by nobody.
    pub fn touch_receiving(&self, counter: u64) -> u64 {
        self.receiving.window.touch(counter)
    }

    /// Brings into the cache what sending needs. The result means nothing.
    pub fn touch_sending(&self) -> u64 {
        self.sending.nonces.reserved_count()
    }

    /// Call for each run of authenticated packets. True exactly once, and only for a responder: the peer has
    /// shown that it holds the key; queue [`crate::SessionEvent::Confirmed`].
    pub fn confirm(&self) -> bool {
        self.receiving.confirmation.confirm()
    }

    /// Takes back a [`Self::confirm`] that was true but could not be queued, so that the next run confirms again.
    pub fn retract_confirmation(&self) {
        self.receiving.confirmation.reset(self.receiving.initiator);
    }

    /// Whether the peer is known to hold the key.
    pub fn is_confirmed(&self) -> bool {
        self.receiving.confirmation.is_confirmed()
    }

    /// Forbids sending from now on: our private key changed.
    pub(crate) fn end_sending(&self) {
        self.sending.ended.store(true, Relaxed);
    }

    /// Seals one inner packet into a whole transport datagram; the slow path and tests.
    ///
    /// `padded_len` is from [`crate::padded_len`]; a shorter one means no padding. `None` as in [`Self::reserve`].
    pub fn seal(&self, inner: &[u8], padded_len: usize, now: Time) -> Option<Vec<u8>> {
        let counter = self.reserve(1, now)?;
        let body_len = padded_len.max(inner.len());
        let mut datagram = Vec::with_capacity(TRANSPORT_OVERHEAD + body_len);
        datagram.extend_from_slice(TransportHeader::new(self.remote_index(), counter).as_bytes());
        datagram.extend_from_slice(inner);
        datagram.resize(TRANSPORT_HEADER_LEN + body_len, 0);
        let cipher = ChaCha20Poly1305::new(self.sending_key().into());
        let tag = cipher
            .encrypt_inout_detached(
                &nonce(counter).into(),
                &[],
                (&mut datagram[TRANSPORT_HEADER_LEN..]).into(),
            )
            .expect("an inner packet is shorter than the cipher's limit");
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// Opens one transport datagram in place; the slow path and tests. Replay is checked, marks are not made.
    ///
    /// Returns where the inner packet lies, padding included: empty for a keepalive. Its header says its length.
    ///
    /// # Errors
    /// The datagram must be dropped. Unless the tag was good it is unchanged.
    pub fn open(&self, datagram: &mut [u8], now: Time) -> Result<Range<usize>, DropReason> {
        match MessageType::classify(datagram) {
            Ok(MessageType::Transport) => {}
            Ok(_) => return Err(DropReason::UnexpectedType),
            Err(_) => return Err(DropReason::Malformed),
        }
        let (header, body) =
            TransportHeader::read_from_prefix(datagram).map_err(|_| DropReason::Malformed)?;
        let inner_len = body.len().checked_sub(TAG_LEN).ok_or(DropReason::Malformed)?;
        if header.receiver_index.get() != self.local_index() {
            return Err(DropReason::UnknownIndex);
        }
        if !self.may_receive(now) {
            return Err(DropReason::SessionExpired);
        }
        let counter = header.counter.get();
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterLimit);
        }
        let (inner, tag) = datagram[TRANSPORT_HEADER_LEN..].split_at_mut(inner_len);
        let tag: [u8; TAG_LEN] = (&*tag).try_into().map_err(|_| DropReason::Malformed)?;
        ChaCha20Poly1305::new(self.receiving_key().into())
            .decrypt_inout_detached(&nonce(counter).into(), &[], inner.into(), &tag.into())
            .map_err(|_| DropReason::AuthenticationFailed)?;
        self.replay().accept(counter)?;
        Ok(TRANSPORT_HEADER_LEN..TRANSPORT_HEADER_LEN + inner_len)
    }

    #[cfg(test)]
    pub(crate) fn set_next_counter(&self, counter: u64) {
        self.sending.nonces.set(counter);
    }
}

/// The AEAD nonce of a transport packet: four zero bytes and the counter in little-endian (paper 5.4.6).
pub fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer())
            .field("local_index", &self.local_index())
            .field("remote_index", &self.remote_index())
            .field("created_at", &self.created_at())
            .field("initiator", &self.is_initiator())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
