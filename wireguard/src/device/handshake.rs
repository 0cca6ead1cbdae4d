//! Handshakes: starting them, and what comes in of messages 1 to 3.

use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use super::{Device, IndexUse};
use crate::{
    PeerId,
    constants::{HANDSHAKE_TOS, INITIATION_INTERVAL_MIN, REKEY_TIMEOUT, ZERO_KEYS_TIMEOUT},
    drop_reason::DropReason,
    endpoint::Endpoint,
    message::{CookieReply, HandshakeInitiation, HandshakeResponse, MessageType},
    noise::{
        Timestamp, TransportKeys,
        initiator::{self, InitiatorKeys},
        responder::{IncomingInitiation, VerifiedInitiation},
    },
    output::Output,
    peer::{PendingInitiation, StaticStatic},
    session::{Session, SessionParameters},
    time::{Now, Time},
    timers::TimerKind,
};

impl Device {
    /// Handles a datagram that is no transport packet. Silent on the wire unless it is good.
    ///
    /// # Errors
    /// The datagram was dropped and counted; nothing has changed.
    pub fn receive_handshake(
        &mut self,
        datagram: &[u8],
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        let result = self.dispatch(datagram, source, now);
        if let Err(reason) = result {
            self.counters.dropped[reason as usize] += 1;
        }
        result
    }

    fn dispatch(&mut self, datagram: &[u8], source: Endpoint, now: Now) -> Result<(), DropReason> {
        let message_type = MessageType::classify(datagram).map_err(|_| DropReason::Malformed)?;
        let identity = self.identity.as_ref().filter(|_| self.up).ok_or(DropReason::NotReady)?;
        // mac1 before anything that costs more: only who knows our public key gets further.
        let carries_mac1 =
            matches!(message_type, MessageType::HandshakeInitiation | MessageType::HandshakeResponse);
        if carries_mac1 && !identity.receiver_keys.verify_mac1(datagram) {
            return Err(DropReason::InvalidMac1);
        }
        match message_type {
            MessageType::HandshakeInitiation => self.receive_initiation(&read(datagram)?, source, now),
            MessageType::HandshakeResponse => self.receive_response(&read(datagram)?, source, now),
            MessageType::CookieReply => self.receive_cookie(&read(datagram)?, now),
            MessageType::Transport => Err(DropReason::UnexpectedType),
        }
    }

    fn receive_initiation(
        &mut self,
        message: &HandshakeInitiation,
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NotReady)?;
        let incoming = IncomingInitiation::open_static(message, &identity.secret, &identity.public_key)
            .ok_or(DropReason::AuthenticationFailed)?;
        let id = self.peers.id_of(incoming.initiator()).ok_or(DropReason::UnknownPeer)?;
        let peer = self.peers.peer_mut(id).ok_or(DropReason::UnknownPeer)?;
        Self::ensure_static_static(identity, peer);
        let StaticStatic::Known(static_static) = &peer.static_static else {
            return Err(DropReason::AuthenticationFailed);
        };
        let (verified, timestamp) =
            incoming.open_timestamp(static_static, message).ok_or(DropReason::AuthenticationFailed)?;
        if timestamp <= peer.latest_timestamp {
            return Err(DropReason::InitiationReplayed);
        }
        if peer
            .initiation_consumed_at
            .is_some_and(|at| now.monotonic.saturating_since(at) < INITIATION_INTERVAL_MIN)
        {
            return Err(DropReason::InitiationFlood);
        }
        peer.latest_timestamp = timestamp;
        peer.initiation_consumed_at = Some(now.monotonic);
        peer.activity.received(now.monotonic, size_of::<HandshakeInitiation>() as u64, false);
        self.counters.initiations_received += 1;
        self.set_endpoint(id, Some(source));
        self.respond(id, verified, now);
        self.review(id, now);
        Ok(())
    }

    /// Sends a response; the new session waits as `next` until the initiator uses it.
    fn respond(&mut self, id: PeerId, verified: VerifiedInitiation, now: Now) {
        let ephemeral = self.random_ephemeral();
        let Some(local_index) = self.indices.insert(IndexUse::Session(id)) else {
            return;
        };
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let Some((mut message, keys)) = verified.respond(&ephemeral, &peer.preshared_key, local_index) else {
            self.indices.remove(local_index);
            return;
        };
        let remote_index = message.receiver_index.get();
        peer.cookies.add_macs(&peer.receiver_keys, message.as_mut_bytes(), now.monotonic);
        peer.handshake_sent_at = Some(now.monotonic);
        let session = self.new_session(id, keys, [local_index, remote_index], false, now.monotonic);
        if let (Some(session), Some(peer)) = (session, self.peers.peer_mut(id)) {
            let retired = peer.keypairs.add_as_responder(Arc::clone(&session));
            self.outputs.push_back(Output::SessionAdded(session));
            self.retire(retired);
        }
        self.counters.responses_sent += 1;
        self.transmit(id, message.as_bytes().to_vec(), HANDSHAKE_TOS, false, now);
    }

    fn receive_response(
        &mut self,
        message: &HandshakeResponse,
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NotReady)?;
        let local_index = message.receiver_index.get();
        let Some(&IndexUse::Initiation(id)) = self.indices.lookup(local_index) else {
            return Err(DropReason::UnknownIndex);
        };
        let peer = self.peers.peer_mut(id).ok_or(DropReason::UnknownIndex)?;
        let pending = peer.pending.as_ref().ok_or(DropReason::UnknownIndex)?;
        let keys = pending
            .initiation
            .consume_response(&identity.secret, &peer.preshared_key, message)
            .ok_or(DropReason::AuthenticationFailed)?;
        peer.pending = None;
        peer.activity.received(now.monotonic, size_of::<HandshakeResponse>() as u64, false);
        self.counters.responses_received += 1;
        self.indices.replace(local_index, IndexUse::Session(id));
        self.set_endpoint(id, Some(source));

        let remote_index = message.sender_index.get();
        let session = self.new_session(id, keys, [local_index, remote_index], true, now.monotonic);
        if let (Some(session), Some(peer)) = (session, self.peers.peer_mut(id)) {
            let retired = peer.keypairs.add_as_initiator(Arc::clone(&session));
            self.outputs.push_back(Output::SessionAdded(Arc::clone(&session)));
            self.outputs.push_back(Output::CurrentSession { peer: id, session: Some(session) });
            self.retire(retired);
        }
        self.handshake_completed(id, now);
        // The responder may not send before it hears from us under the new key.
        self.send_keepalive(id, now);
        self.review(id, now);
        Ok(())
    }

    fn receive_cookie(&mut self, message: &CookieReply, now: Now) -> Result<(), DropReason> {
        let index = message.receiver_index.get();
        let id = self.indices.lookup(index).ok_or(DropReason::UnknownIndex)?.peer();
        let peer = self.peers.peer_mut(id).ok_or(DropReason::UnknownIndex)?;
        peer.cookies.consume(&peer.receiver_keys, message, now.monotonic)?;
        self.counters.cookies_received += 1;
        Ok(())
    }

    /// Makes a session of `[local, remote]` indices and starts the clock that erases it.
    fn new_session(
        &mut self,
        id: PeerId,
        keys: TransportKeys,
        [local_index, remote_index]: [u32; 2],
        initiator: bool,
        created_at: Time,
    ) -> Option<Arc<Session>> {
        let activity = Arc::clone(&self.peers.peer(id)?.activity);
        self.timers.arm(id, TimerKind::ZeroKeys, created_at + ZERO_KEYS_TIMEOUT);
        Some(Arc::new(Session::new(SessionParameters {
            peer: id,
            activity,
            local_index,
            remote_index,
            created_at,
            initiator,
            sending_key: keys.sending,
            receiving_key: keys.receiving,
        })))
    }

    /// The initiator has used the session we responded with.
    pub(super) fn session_confirmed(&mut self, local_index: u32, now: Now) {
        let Some(id) = self.session_peer(local_index) else {
            return;
        };
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let Some(retired) = peer.keypairs.confirm(local_index) else {
            return;
        };
        let session = peer.keypairs.current.clone();
        self.outputs.push_back(Output::CurrentSession { peer: id, session });
        self.retire(retired);
        // Two handshakes crossed and this one won: what is pending of ours is not needed any more.
        self.drop_pending_initiation(id);
        self.handshake_completed(id, now);
        self.send_staged(id, now);
        self.review(id, now);
    }

    fn handshake_completed(&mut self, id: PeerId, now: Now) {
        self.timers.disarm(id, TimerKind::RetransmitHandshake);
        self.counters.handshakes_completed += 1;
        if let Some(peer) = self.peers.peer_mut(id) {
            peer.retransmit_count = 0;
            peer.rekeyed_on_receive = false;
            peer.last_handshake = Some(now.unix);
        }
    }

    /// Starts a handshake, or a new attempt of one, at most one in `REKEY_TIMEOUT`.
    pub(super) fn initiate(&mut self, id: PeerId, retransmit: bool, now: Now) {
        if !self.up || self.identity.is_none() {
            return;
        }
        let Some(peer) = self.peers.peer_mut(id).filter(|peer| peer.endpoint.is_some()) else {
            return;
        };
        if !retransmit {
            peer.retransmit_count = 0;
        }
        if let Some(sent_at) = peer.handshake_sent_at
            && now.monotonic.saturating_since(sent_at) < REKEY_TIMEOUT
        {
            // Too soon. Usually a handshake is on its way; in case it is a response that got lost, come back.
            if !self.timers.is_armed(id, TimerKind::RetransmitHandshake) {
                let deadline = sent_at + REKEY_TIMEOUT + self.jitter();
                self.timers.arm(id, TimerKind::RetransmitHandshake, deadline);
            }
            return;
        }
        self.send_initiation(id, now);
    }

    fn send_initiation(&mut self, id: PeerId, now: Now) {
        let ephemeral = self.random_ephemeral();
        self.drop_pending_initiation(id);
        let Some(local_index) = self.indices.insert(IndexUse::Initiation(id)) else {
            return;
        };
        let (Some(identity), Some(peer)) = (&self.identity, self.peers.peer_mut(id)) else {
            return;
        };
        Self::ensure_static_static(identity, peer);
        let created = match &peer.static_static {
            StaticStatic::Known(static_static) => initiator::create_initiation(
                &InitiatorKeys { local: &identity.public_key, remote: &peer.public_key, static_static },
                ephemeral,
                Timestamp::whitened(now.unix),
                local_index,
            ),
            StaticStatic::Unknown | StaticStatic::LowOrder => None,
        };
        let Some((initiation, mut message)) = created else {
            self.indices.remove(local_index);
            return;
        };
        peer.cookies.add_macs(&peer.receiver_keys, message.as_mut_bytes(), now.monotonic);
        peer.handshake_sent_at = Some(now.monotonic);
        peer.pending = Some(PendingInitiation { local_index, initiation });
        self.counters.initiations_sent += 1;
        self.transmit(id, message.as_bytes().to_vec(), HANDSHAKE_TOS, false, now);
        let deadline = now.monotonic + REKEY_TIMEOUT + self.jitter();
        self.timers.arm(id, TimerKind::RetransmitHandshake, deadline);
        self.review(id, now);
    }

    pub(super) fn rekey_on_send(&mut self, local_index: u32, now: Now) {
        if let Some(id) = self.session_peer(local_index)
            && let Some(current) = self.peers.peer(id).and_then(|peer| peer.keypairs.current.as_ref())
            && current.local_index() == local_index
            && current.is_due_on_send(now.monotonic)
        {
            self.initiate(id, false, now);
        }
    }

    pub(super) fn rekey_on_receive(&mut self, local_index: u32, now: Now) {
        if let Some(id) = self.session_peer(local_index)
            && let Some(peer) = self.peers.peer_mut(id).filter(|peer| !peer.rekeyed_on_receive)
            && let Some(current) = peer.keypairs.current.as_ref()
            && current.is_due_on_receive(now.monotonic)
        {
            peer.rekeyed_on_receive = true;
            self.initiate(id, false, now);
        }
    }
}

fn read<T: FromBytes>(datagram: &[u8]) -> Result<T, DropReason> {
    T::read_from_bytes(datagram).map_err(|_| DropReason::Malformed)
}
