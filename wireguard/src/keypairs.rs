//! The three sessions a peer may have at once, and how they follow each other (kernel `noise.c`).

use std::sync::Arc;

use crate::session::Session;

/// Sessions of one peer. `current` sends; all receive; `next` waits for its confirmation.
#[derive(Default)]
pub(crate) struct Keypairs {
    pub previous: Option<Arc<Session>>,
    pub current: Option<Arc<Session>>,
    pub next: Option<Arc<Session>>,
}

/// At most three sessions that a change has pushed out.
pub(crate) type Retired = Vec<Arc<Session>>;

impl Keypairs {
    /// A session we initiated is usable at once. An unconfirmed `next` keeps receiving as `previous`.
    pub(crate) fn add_as_initiator(&mut self, session: Arc<Session>) -> Retired {
        let mut retired = Retired::new();
        retired.extend(self.previous.take());
        let replaced = self.current.replace(session);
        if let Some(next) = self.next.take() {
            retired.extend(replaced);
            self.previous = Some(next);
        } else {
            self.previous = replaced;
        }
        retired
    }

    /// A session we responded to may not send before the initiator has used it.
    pub(crate) fn add_as_responder(&mut self, session: Arc<Session>) -> Retired {
        let mut retired = Retired::new();
        retired.extend(self.previous.take());
        retired.extend(self.next.replace(session));
        retired
    }

    /// The initiator has used `next`; `None` if `local_index` is not its index.
    pub(crate) fn confirm(&mut self, local_index: u32) -> Option<Retired> {
        let next = self.next.take_if(|next| next.local_index() == local_index)?;
        let retired = self.previous.take().into_iter().collect();
        self.previous = self.current.replace(next);
        Some(retired)
    }

    pub(crate) fn clear(&mut self) -> Retired {
        [self.previous.take(), self.current.take(), self.next.take()].into_iter().flatten().collect()
    }

    /// The private key changed: what the peer still sends is opened, but nothing more is sealed.
    pub(crate) fn end_sending(&self) {
        for session in [&self.current, &self.next].into_iter().flatten() {
            session.end_sending();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Keypairs, Retired};
    use crate::{PeerId, Session, SessionParameters, Time};

    fn session(local_index: u32) -> std::sync::Arc<Session> {
        std::sync::Arc::new(Session::new(SessionParameters {
            peer: PeerId(0),
            activity: std::sync::Arc::default(),
            local_index,
            remote_index: 0,
            created_at: Time(0),
            initiator: false,
            sending_key: [0; 32].into(),
            receiving_key: [0; 32].into(),
        }))
    }

    fn indices(retired: &Retired) -> Vec<u32> {
        retired.iter().map(|session| session.local_index()).collect()
    }

    /// (previous, current, next), 0 for none.
    fn slots(keypairs: &Keypairs) -> [u32; 3] {
        [&keypairs.previous, &keypairs.current, &keypairs.next]
            .map(|slot| slot.as_ref().map_or(0, |session| session.local_index()))
    }

    #[test]
    fn initiated_sessions_push_the_current_one_back() {
        let mut keypairs = Keypairs::default();
        assert!(indices(&keypairs.add_as_initiator(session(1))).is_empty());
        assert!(indices(&keypairs.add_as_initiator(session(2))).is_empty());
        assert_eq!(slots(&keypairs), [1, 2, 0]);
        assert_eq!(indices(&keypairs.add_as_initiator(session(3))), [1]);
        assert_eq!(slots(&keypairs), [2, 3, 0]);
    }

    #[test]
    fn response_demotes_an_unconfirmed_session_instead_of_the_current_one() {
        let mut keypairs = Keypairs::default();
        keypairs.add_as_initiator(session(1));
        keypairs.add_as_initiator(session(2));
        assert_eq!(indices(&keypairs.add_as_responder(session(3))), [1]);
        assert_eq!(slots(&keypairs), [0, 2, 3]);
        assert_eq!(indices(&keypairs.add_as_initiator(session(4))), [2]);
        assert_eq!(slots(&keypairs), [3, 4, 0]);
    }

    #[test]
    fn confirmation_moves_next_to_current_once() {
        let mut keypairs = Keypairs::default();
        keypairs.add_as_initiator(session(1));
        keypairs.add_as_responder(session(2));
        assert_eq!(indices(&keypairs.add_as_responder(session(3))), [2]);
        assert!(keypairs.confirm(2).is_none(), "2 was replaced");
        assert_eq!(keypairs.confirm(3).as_ref().map(indices), Some(vec![]));
        assert_eq!(slots(&keypairs), [1, 3, 0]);
        assert!(keypairs.confirm(3).is_none());
        assert_eq!(indices(&keypairs.clear()), [1, 3]);
    }
}
