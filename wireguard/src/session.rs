//! A keypair's transport state: shared by workers and control, free of any decision about peers.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
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

/// Least time between two wishes for a new handshake, so that control's queue is not flooded by each batch.
const REKEY_WISH_INTERVAL: Duration = Duration::from_secs(1);

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
    confirmed: AtomicBool,
    /// Nanoseconds of the last wish for a new handshake, 0 for none; by the sender, too.
    rekey_wished_at: AtomicU64,
    window: ReplayWindow,
}

/// What sending reads and writes: one cache line.
#[repr(C, align(64))]
struct Sending {
    next_counter: AtomicU64,
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
                confirmed: AtomicBool::new(parameters.initiator),
                rekey_wished_at: AtomicU64::new(0),
                window: ReplayWindow::new(),
            },
            sending: Sending { next_counter: AtomicU64::new(0), parameters, ended: AtomicBool::new(false) },
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
        self.sending
            .next_counter
            .fetch_update(Relaxed, Relaxed, |next| {
                next.checked_add(u64::from(count)).filter(|&end| end <= REJECT_AFTER_MESSAGES)
            })
            .ok()
    }

    /// Whether sending is possible by age and counter.
    pub fn may_send(&self, now: Time) -> bool {
        !self.sending.ended.load(Relaxed)
            && self.age(now) < REJECT_AFTER_TIME
            && self.sending.next_counter.load(Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Whether packets may still be opened: the session is younger than `REJECT_AFTER_TIME`.
    pub fn may_receive(&self, now: Time) -> bool {
        self.receiving.age(now) < REJECT_AFTER_TIME
    }

    /// Ask after sending. When true, queue [`crate::SessionEvent::RekeyOnSend`]. True at most once a second.
    pub fn wants_rekey_on_send(&self, now: Time) -> bool {
        self.is_due_on_send(now) && self.wish_rekey(now)
    }

    /// Ask after receiving. When true, queue [`crate::SessionEvent::RekeyOnReceive`]. True at most once a second.
    pub fn wants_rekey_on_receive(&self, now: Time) -> bool {
        self.is_due_on_receive(now) && self.wish_rekey(now)
    }

    pub(crate) fn is_due_on_send(&self, now: Time) -> bool {
        (self.sending.parameters.initiator && self.age(now) > REKEY_AFTER_TIME)
            || self.sending.next_counter.load(Relaxed) > REKEY_AFTER_MESSAGES
    }

    pub(crate) fn is_due_on_receive(&self, now: Time) -> bool {
        self.receiving.initiator && self.receiving.age(now) > REKEY_AFTER_TIME_RECEIVING
    }

    fn wish_rekey(&self, now: Time) -> bool {
        let last = self.receiving.rekey_wished_at.load(Relaxed);
        (last == 0 || now.saturating_since(Time(last)) >= REKEY_WISH_INTERVAL)
            && self.receiving.rekey_wished_at.compare_exchange(last, now.0.max(1), Relaxed, Relaxed).is_ok()
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
        self.sending.next_counter.load(Relaxed)
    }

    /// Call for each run of authenticated packets. True exactly once, and only for a responder: the peer has
    /// shown that it holds the key; queue [`crate::SessionEvent::Confirmed`].
    pub fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.receiving.confirmed.swap(true, AcqRel)
    }

    /// Takes back a [`Self::confirm`] that was true but could not be queued, so that the next run confirms again.
    pub fn retract_confirmation(&self) {
        self.receiving.confirmed.store(self.receiving.initiator, Relaxed);
    }

    /// Whether the peer is known to hold the key.
    pub fn is_confirmed(&self) -> bool {
        self.receiving.confirmed.load(Relaxed)
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
        self.sending.next_counter.store(counter, Relaxed);
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
mod tests {
    use super::*;
    use crate::constants::REPLAY_WINDOW;

    const INNER: &[u8] = b"an inner packet of no particular form";

    fn session(initiator: bool) -> Session {
        let keys = [[1; 32], [2; 32]];
        let (sending, receiving) = if initiator { (0, 1) } else { (1, 0) };
        Session::new(SessionParameters {
            peer: PeerId(0),
            activity: Arc::default(),
            local_index: u32::from(initiator),
            remote_index: u32::from(!initiator),
            created_at: Time(0),
            initiator,
            sending_key: keys[sending].into(),
            receiving_key: keys[receiving].into(),
        })
    }

    fn at(secs: u64) -> Time {
        Time(0) + Duration::from_secs(secs)
    }

    #[test]
    fn sealed_packet_opens_once() {
        let (alice, bob) = (session(true), session(false));
        let sealed = alice.seal(INNER, 48, at(1)).expect("a fresh session seals");
        assert_eq!(sealed.len(), TRANSPORT_OVERHEAD + 48);
        let mut datagram = sealed.clone();
        let range = bob.open(&mut datagram, at(1)).expect("it opens");
        assert_eq!(&datagram[range.clone()][..INNER.len()], INNER);
        assert!(datagram[range][INNER.len()..].iter().all(|&byte| byte == 0), "padding is zero");
        assert_eq!(bob.open(&mut sealed.clone(), at(1)), Err(DropReason::CounterReplayed));
    }

    #[test]
    fn keepalive_is_32_bytes_and_opens_to_nothing() {
        let (alice, bob) = (session(true), session(false));
        let mut keepalive = bob.seal(&[], 0, at(0)).expect("a fresh session seals");
        assert_eq!(keepalive.len(), 32);
        assert!(alice.open(&mut keepalive, at(0)).expect("it opens").is_empty());
    }

    #[test]
    fn any_flipped_bit_is_refused_and_leaves_the_window_alone() {
        let (alice, bob) = (session(true), session(false));
        let sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(bob.open(&mut forged, at(0)).is_err(), "bit {bit}");
        }
        assert!(bob.open(&mut sealed.clone(), at(0)).is_ok());
    }

    #[test]
    fn truncated_datagrams_are_refused() {
        let (alice, bob) = (session(true), session(false));
        let sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
        for len in 0..sealed.len() {
            assert!(bob.open(&mut sealed[..len].to_vec(), at(0)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn session_ends_at_180_seconds_in_both_directions() {
        let (alice, bob) = (session(true), session(false));
        assert_eq!(alice.created_at(), at(0));
        let mut sealed = alice.seal(INNER, 48, at(179)).expect("still young");
        assert_eq!(alice.seal(INNER, 48, at(180)), None);
        assert_eq!(bob.open(&mut sealed, at(180)), Err(DropReason::SessionExpired));
        assert!(bob.open(&mut sealed, at(179)).is_ok());
    }

    #[test]
    fn counters_stop_at_the_limit_and_never_wrap() {
        let alice = session(true);
        alice.set_next_counter(REJECT_AFTER_MESSAGES - 2);
        assert_eq!(alice.reserve(3, at(0)), None);
        assert_eq!(alice.reserve(2, at(0)), Some(REJECT_AFTER_MESSAGES - 2));
        for _ in 0..REPLAY_WINDOW * 2 {
            assert_eq!(alice.reserve(u32::MAX, at(0)), None);
            assert_eq!(alice.reserve(1, at(0)), None);
        }
        assert!(!alice.may_send(at(0)));
    }

    #[test]
    fn counter_at_the_limit_is_refused_before_decryption() {
        let (alice, bob) = (session(true), session(false));
        let mut sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
        sealed[8..16].copy_from_slice(&REJECT_AFTER_MESSAGES.to_le_bytes());
        assert_eq!(bob.open(&mut sealed, at(0)), Err(DropReason::CounterLimit));
    }

    #[test]
    fn only_the_initiator_wants_a_new_handshake_by_age() {
        let (alice, bob) = (session(true), session(false));
        assert!(!alice.wants_rekey_on_send(at(120)));
        assert!(alice.wants_rekey_on_send(at(121)));
        assert!(!alice.wants_rekey_on_send(at(121)), "one wish a second");
        assert!(alice.wants_rekey_on_send(at(122)));
        assert!(!alice.wants_rekey_on_receive(at(165)));
        assert!(alice.wants_rekey_on_receive(at(166)));
        assert!(!bob.wants_rekey_on_send(at(179)) && !bob.wants_rekey_on_receive(at(179)));
        bob.set_next_counter(REKEY_AFTER_MESSAGES + 1);
        assert!(bob.wants_rekey_on_send(at(0)));
    }

    #[test]
    fn responder_is_confirmed_exactly_once() {
        let (alice, bob) = (session(true), session(false));
        assert!(alice.is_confirmed() && !alice.confirm());
        assert!(!bob.is_confirmed());
        assert!(bob.confirm());
        assert!(!bob.confirm() && bob.is_confirmed());
        bob.retract_confirmation();
        assert!(bob.confirm(), "the queue was full: again");
        alice.retract_confirmation();
        assert!(!alice.confirm());
    }

    #[test]
    fn nonces_reserved_by_many_threads_never_overlap() {
        let alice = session(true);
        let mut firsts: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500)
                            .map(|_| alice.reserve(64, at(0)).expect("far from the limit"))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        firsts.sort_unstable();
        assert_eq!(firsts, (0..2000).map(|batch| batch * 64).collect::<Vec<u64>>());
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", session(true)).contains("key"));
    }
}
