//! What comes in of messages 1 to 3.

use std::sync::Arc;

use super::{Device, IndexUse};
use crate::{
    admission::{Admitted, Incoming, IncomingMessage, OpenedInitiation},
    constants::INITIATION_INTERVAL_MIN,
    curve_work::Task,
    drop_reason::DropReason,
    endpoint::Endpoint,
    message::{CookieReply, HandshakeInitiation, HandshakeResponse},
    peer::StaticStatic,
    time::Now,
};

impl Device {
    /// Handles a handshake message that [`crate::Admission`] has let in.
    ///
    /// # Errors
    /// The message was dropped and counted; nothing has changed. `Ok` may mean that [`crate::CurveWork`] decides.
    pub fn receive(&mut self, incoming: Incoming, now: Now) -> Result<(), DropReason> {
        let Incoming { source, epoch, message } = incoming;
        let result = if epoch == self.epoch {
            match message {
                IncomingMessage::Initiation(opened) => self.receive_initiation(opened, source, now),
                IncomingMessage::Response(message) => self.receive_response(message, source),
                IncomingMessage::Cookie(message) => self.receive_cookie(&message, now),
            }
        } else {
            Err(DropReason::NotReady)
        };
        self.count(result)
    }

    /// Does all that a datagram that is no transport packet asks for, at once: for an owner without threads for
    /// handshakes. It is never under load.
    ///
    /// # Errors
    /// The datagram was dropped and counted; nothing has changed.
    pub fn receive_handshake(
        &mut self,
        datagram: &[u8],
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        match self.admission.sort(datagram, source, false, now.monotonic)? {
            Admitted::Message(incoming) => self.receive(incoming, now)?,
            Admitted::Reply(_) => {}
        }
        self.perform_work(now)
    }

    pub(super) fn receive_initiation(
        &mut self,
        opened: Box<OpenedInitiation>,
        source: Endpoint,
        now: Now,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NotReady)?;
        let id = self.peers.id_of(opened.incoming.initiator()).ok_or(DropReason::UnknownPeer)?;
        let peer = self.peers.peer_mut(id).ok_or(DropReason::UnknownPeer)?;
        let static_static = match &peer.static_static {
            StaticStatic::Known(static_static) => static_static,
            StaticStatic::LowOrder => return Err(DropReason::AuthenticationFailed),
            StaticStatic::Unknown => {
                let task = Task::Agree {
                    identity: Arc::clone(identity),
                    public_key: peer.public_key,
                    waiting: Some((opened, source)),
                };
                self.push_work(id, task);
                return Ok(());
            }
        };
        let OpenedInitiation { message, incoming } = *opened;
        let (verified, timestamp) =
            incoming.open_timestamp(static_static, &message).ok_or(DropReason::AuthenticationFailed)?;
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
        self.start_response(id, verified);
        self.review(id, now);
        Ok(())
    }

    fn receive_response(&mut self, message: HandshakeResponse, source: Endpoint) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NotReady)?;
        let Some(&IndexUse::Initiation(id)) = self.indices.lookup(message.receiver_index.get()) else {
            return Err(DropReason::UnknownIndex);
        };
        let peer = self.peers.peer(id).ok_or(DropReason::UnknownIndex)?;
        let initiation = peer
            .pending
            .as_ref()
            .and_then(|pending| pending.initiation.as_ref())
            .ok_or(DropReason::UnknownIndex)?;
        let task = Task::ConsumeResponse {
            identity: Arc::clone(identity),
            initiation: Arc::clone(initiation),
            preshared_key: peer.preshared_key.clone(),
            message,
            source,
        };
        self.push_work(id, task);
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

    pub(super) fn count(&mut self, result: Result<(), DropReason>) -> Result<(), DropReason> {
        if let Err(reason) = result {
            self.counters.dropped[reason as usize] += 1;
        }
        result
    }
}
