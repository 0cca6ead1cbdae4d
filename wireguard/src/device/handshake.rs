//! Handshakes: starting them, what comes of their curve arithmetic, and when they are complete.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{Device, IndexUse};
use crate::{
    PeerId,
    constants::{HANDSHAKE_TOS, REKEY_TIMEOUT, ZERO_KEYS_TIMEOUT},
    curve_work::Task,
    drop_reason::DropReason,
    endpoint::Endpoint,
    message::{HandshakeInitiation, HandshakeResponse},
    noise::{Timestamp, TransportKeys, initiator::Initiation, responder::VerifiedInitiation},
    output::Output,
    peer::{PendingInitiation, StaticStatic},
    session::{Session, SessionParameters},
    time::{Now, Time},
    timers::TimerKind,
};

impl Device {
    /// Has a response made. A newer initiation takes the place of one whose response is still in the making.
    pub(super) fn start_response(&mut self, id: PeerId, verified: VerifiedInitiation) {
        let ephemeral = self.random_ephemeral();
        let Some(local_index) = self.indices.insert(IndexUse::Session(id)) else {
            return;
        };
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let responding = Arc::new(local_index);
        let wanted = Arc::downgrade(&responding);
        let superseded = peer.responding.replace(responding);
        let preshared_key = peer.preshared_key.clone();
        if let Some(superseded) = superseded {
            self.indices.remove(*superseded);
        }
        let verified = Box::new(verified);
        let task = Task::Respond { verified, preshared_key, ephemeral, local_index, wanted };
        self.push_work(id, task);
    }

    /// Sends a response; the new session waits as `next` until the initiator uses it.
    pub(super) fn response_made(
        &mut self,
        id: PeerId,
        created: Option<(HandshakeResponse, TransportKeys)>,
        local_index: u32,
        now: Now,
    ) -> Result<(), DropReason> {
        let is_this = |responding: &mut Arc<u32>| **responding == local_index;
        let Some(peer) = self.peers.peer_mut(id) else {
            return Ok(());
        };
        if peer.responding.take_if(is_this).is_none() {
            return Ok(());
        }
        let Some((mut message, keys)) = created else {
            self.indices.remove(local_index);
            return Err(DropReason::AuthenticationFailed);
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
        self.review(id, now);
        Ok(())
    }

    /// The response to our initiation was good: the new session is usable at once.
    pub(super) fn response_consumed(
        &mut self,
        id: PeerId,
        keys: Option<TransportKeys>,
        [local_index, remote_index]: [u32; 2],
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        let is_pending = |pending: &mut PendingInitiation| pending.local_index == local_index;
        let peer = self.peers.peer_mut(id).ok_or(DropReason::UnknownIndex)?;
        let keys = keys.ok_or(DropReason::AuthenticationFailed)?;
        peer.pending.take_if(is_pending).ok_or(DropReason::UnknownIndex)?;
        peer.activity.received(now.monotonic, size_of::<HandshakeResponse>() as u64, false);
        self.counters.responses_received += 1;
        self.indices.replace(local_index, IndexUse::Session(id));
        self.set_endpoint(id, Some(source));

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

    /// Has an initiation made, and sees to it that there will be another if no response comes.
    fn send_initiation(&mut self, id: PeerId, now: Now) {
        let is_being_made = |pending: &PendingInitiation| pending.initiation.is_none();
        if self.peers.peer(id).and_then(|peer| peer.pending.as_ref()).is_some_and(is_being_made) {
            // Another would only queue up behind it, and make it void.
            let deadline = now.monotonic + REKEY_TIMEOUT + self.jitter();
            self.timers.arm(id, TimerKind::RetransmitHandshake, deadline);
            return;
        }
        let ephemeral = self.random_ephemeral();
        self.drop_pending_initiation(id);
        let (Some(identity), Some(peer)) = (&self.identity, self.peers.peer_mut(id)) else {
            return;
        };
        let static_static = match &peer.static_static {
            StaticStatic::LowOrder => return,
            StaticStatic::Unknown => None,
            StaticStatic::Known(static_static) => Some(static_static.clone()),
        };
        let Some(local_index) = self.indices.insert(IndexUse::Initiation(id)) else {
            // All indices are taken: try again later.
            let deadline = now.monotonic + REKEY_TIMEOUT + self.jitter();
            self.timers.arm(id, TimerKind::RetransmitHandshake, deadline);
            return;
        };
        peer.handshake_sent_at = Some(now.monotonic);
        peer.pending = Some(PendingInitiation { local_index, initiation: None });
        let task = Task::Initiate {
            identity: Arc::clone(identity),
            public_key: peer.public_key,
            static_static,
            ephemeral,
            timestamp: Timestamp::whitened(now.unix),
            local_index,
        };
        self.push_work(id, task);
        let deadline = now.monotonic + REKEY_TIMEOUT + self.jitter();
        self.timers.arm(id, TimerKind::RetransmitHandshake, deadline);
    }

    /// Sends an initiation, unless it is not wanted any more.
    pub(super) fn initiation_made(
        &mut self,
        id: PeerId,
        created: Option<(Initiation, HandshakeInitiation)>,
        local_index: u32,
        now: Now,
    ) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let Some(pending) = peer.pending.as_mut().filter(|pending| pending.local_index == local_index) else {
            return;
        };
        let Some((initiation, mut message)) = created else {
            // A key of low order: nothing may be sent, and trying again is of no use.
            self.drop_pending_initiation(id);
            self.timers.disarm(id, TimerKind::RetransmitHandshake);
            return;
        };
        pending.initiation = Some(Arc::new(initiation));
        // It was asked for a moment ago, and is sent now: that is what the next one keeps its distance from.
        peer.handshake_sent_at = Some(now.monotonic);
        peer.cookies.add_macs(&peer.receiver_keys, message.as_mut_bytes(), now.monotonic);
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
