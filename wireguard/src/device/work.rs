//! Curve arithmetic on its way out and back.

use std::sync::Arc;

use super::Device;
use crate::{
    PeerId,
    constants::PEERS_MAX,
    curve_work::{CurveResult, CurveWork, Outcome, Task, Ticket},
    drop_reason::DropReason,
    peer::StaticStatic,
    time::Now,
    x25519::SharedSecret,
};

/// Agreements of static keys that are computed ahead at a time. Few, so that handshakes need not wait for them.
const AHEAD_MAX: usize = 16;

impl Device {
    /// Curve arithmetic to be done, the most urgent first. Do it anywhere, and give the result to
    /// [`Self::work_done`]; what is never given back is as if its message were lost.
    ///
    /// When no handshake asks for any, agreements of static keys are computed ahead, so that the first handshake
    /// of a peer costs no more than the next.
    pub fn poll_work(&mut self) -> Option<CurveWork> {
        if let Some(work) = self.work.pop_front() {
            return Some(work);
        }
        while self.agreements_ahead < AHEAD_MAX {
            let id = self.agreements_wanted.pop_front()?;
            let identity = self.identity.as_ref()?;
            let Some(peer) = self.peers.peer(id) else { continue };
            if !matches!(peer.static_static, StaticStatic::Unknown) {
                continue;
            }
            self.agreements_ahead += 1;
            let task =
                Task::Agree { identity: Arc::clone(identity), public_key: peer.public_key, waiting: None };
            let ticket = Ticket { epoch: self.epoch, peer: id, sequence: peer.sequence };
            return Some(CurveWork { ticket, task });
        }
        None
    }

    /// Takes what came of [`CurveWork`]. What has become void meanwhile is ignored.
    ///
    /// # Errors
    /// The message behind it was dropped and counted.
    pub fn work_done(&mut self, result: CurveResult, now: Now) -> Result<(), DropReason> {
        let CurveResult { ticket, outcome } = result;
        if matches!(outcome, Outcome::Agreed { waiting: None, .. }) {
            self.agreements_ahead = self.agreements_ahead.saturating_sub(1);
        }
        if self.ticket(ticket.peer) != Some(ticket) {
            return Ok(());
        }
        let id = ticket.peer;
        let result = match outcome {
            Outcome::Agreed { agreement, waiting } => {
                self.agreed(id, agreement);
                waiting.map_or(Ok(()), |(opened, source)| self.receive_initiation(opened, source, now))
            }
            Outcome::Initiated { agreement, created, local_index } => {
                if agreement.is_some() || created.is_none() {
                    self.agreed(id, agreement);
                }
                self.initiation_made(id, created, local_index, now);
                Ok(())
            }
            Outcome::Responded { created, local_index } => self.response_made(id, created, local_index, now),
            Outcome::ResponseConsumed { keys, local_index, remote_index, source } => {
                self.response_consumed(id, keys, [local_index, remote_index], source, now)
            }
        };
        self.count(result)
    }

    /// Does all that handshakes ask for on the spot: for an owner without threads for it. Nothing is computed
    /// ahead.
    ///
    /// # Errors
    /// The first message that was dropped, and counted, for what came of it.
    pub fn perform_work(&mut self, now: Now) -> Result<(), DropReason> {
        let mut first = Ok(());
        while let Some(work) = self.work.pop_front() {
            let result = self.work_done(work.perform(), now);
            first = first.and(result);
        }
        first
    }

    pub(super) fn push_work(&mut self, id: PeerId, task: Task) {
        if let Some(ticket) = self.ticket(id) {
            self.work.push_back(CurveWork { ticket, task });
        }
    }

    fn ticket(&self, id: PeerId) -> Option<Ticket> {
        let sequence = self.peers.peer(id)?.sequence;
        Some(Ticket { epoch: self.epoch, peer: id, sequence })
    }

    fn agreed(&mut self, id: PeerId, agreement: Option<SharedSecret>) {
        if let Some(peer) = self.peers.peer_mut(id) {
            peer.static_static = agreement.map_or(StaticStatic::LowOrder, StaticStatic::Known);
        }
    }

    /// Whatever was begun is void from now on: the private key or the interface's state has changed.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.work.clear();
        let receiver = self.identity.clone().filter(|_| self.up);
        self.admission.set_receiver(receiver, self.epoch);
    }

    /// Computes agreements of these peers ahead when there is time.
    pub(super) fn want_agreements(&mut self, ids: impl IntoIterator<Item = PeerId>) {
        if self.identity.is_some() && self.agreements_wanted.len() < PEERS_MAX {
            self.agreements_wanted.extend(ids);
        }
    }
}
