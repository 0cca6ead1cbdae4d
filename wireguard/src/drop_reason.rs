//! Why a datagram was dropped: one verdict, one counter.

/// Every reason for which this crate refuses a datagram. All are silent on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[repr(usize)]
pub enum DropReason {
    /// Too short, an unknown type, non-zero reserved bytes, or a length its type does not have.
    #[error("not a WireGuard message")]
    Malformed,
    /// A transport packet where a handshake message is expected, or the other way round.
    #[error("message type does not belong here")]
    UnexpectedType,
    /// The device is down or has no private key.
    #[error("the device is down or has no private key")]
    NotReady,
    /// mac1 does not match: not meant for us.
    #[error("mac1 does not match")]
    InvalidMac1,
    /// The receiver index is not one of ours, or not of a fitting session.
    #[error("unknown receiver index")]
    UnknownIndex,
    /// The initiation is from a key that is no peer of ours.
    #[error("initiator is not a peer")]
    UnknownPeer,
    /// A tag did not verify, a Diffie-Hellman result was zero, or the preshared keys differ.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// The timestamp of an initiation is not newer than the last.
    #[error("initiation replayed")]
    InitiationReplayed,
    /// An initiation followed the last within 20 ms.
    #[error("initiation too soon after the last")]
    InitiationFlood,
    /// Under load, and the address has sent more than its share.
    #[error("too many handshake messages from one address")]
    RateLimited,
    /// A cookie reply to nothing we sent.
    #[error("cookie reply was not asked for")]
    UnexpectedCookie,
    /// The session is older than `REJECT_AFTER_TIME`.
    #[error("session expired")]
    SessionExpired,
    /// The counter was seen before.
    #[error("counter replayed")]
    CounterReplayed,
    /// The counter is behind the replay window.
    #[error("counter behind the replay window")]
    CounterTooOld,
    /// The counter is not below `REJECT_AFTER_MESSAGES`.
    #[error("counter limit reached")]
    CounterLimit,
}

impl DropReason {
    /// Number of reasons; `reason as usize` is below it.
    pub const COUNT: usize = Self::CounterLimit as usize + 1;

    /// All reasons in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::UnexpectedType,
        Self::NotReady,
        Self::InvalidMac1,
        Self::UnknownIndex,
        Self::UnknownPeer,
        Self::AuthenticationFailed,
        Self::InitiationReplayed,
        Self::InitiationFlood,
        Self::RateLimited,
        Self::UnexpectedCookie,
        Self::SessionExpired,
        Self::CounterReplayed,
        Self::CounterTooOld,
        Self::CounterLimit,
    ];
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn reasons_are_listed_at_their_own_number() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
