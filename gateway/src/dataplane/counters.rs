//! What became of every packet, per worker. One writer (the worker), any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use serde::Serialize;

/// Declares [`Verdict`] with the name each variant has in `wgx status`.
macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// How a packet left the engine: one way out or one reason to drop it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Verdict { $($(#[$doc])* $variant,)+ }

        impl Verdict {
            /// Every verdict, in the order of its counters.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$variant,)+];

            /// The name of the counter: stable, snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$variant => $name,)+ }
            }
        }
    };
}

verdicts! {
    /// Opened, and sent as an Ethernet frame out of an AF_XDP socket.
    OpenedToLink = "opened_to_link",
    /// Opened, and given to the kernel through the TUN device.
    OpenedToTunnel = "opened_to_tunnel",
    /// Opened, and sealed again for another peer.
    OpenedToPeer = "opened_to_peer",
    /// An authentic keepalive: nothing to deliver.
    KeepaliveReceived = "keepalive_received",
    /// Sealed, and sent as an Ethernet frame out of an AF_XDP socket.
    SealedToLink = "sealed_to_link",
    /// Sealed, and sent through the kernel's UDP socket.
    SealedToSocket = "sealed_to_socket",
    /// A handshake message or cookie reply, passed on to control.
    HandshakePassed = "handshake_passed",
    /// No session to seal with yet: passed on to control, which stages it and initiates.
    Staged = "staged",

    /// Not a WireGuard message of a known type and length.
    DropMalformed = "drop_malformed",
    /// A link gave a frame that is neither a WireGuard datagram nor a forwardable IP packet.
    DropUnparsed = "drop_unparsed",
    /// The receiver index names no session.
    DropUnknownIndex = "drop_unknown_index",
    /// The session is older than `REJECT_AFTER_TIME`.
    DropExpired = "drop_expired",
    /// The tag does not match: forged or corrupted.
    DropNotAuthentic = "drop_not_authentic",
    /// The counter was received before.
    DropReplayed = "drop_replayed",
    /// The counter is below the replay window.
    DropTooOld = "drop_too_old",
    /// The counter is at or above `REJECT_AFTER_MESSAGES`.
    DropCounterLimit = "drop_counter_limit",
    /// The opened payload is not an IPv4 or IPv6 packet of its stated length.
    DropInnerMalformed = "drop_inner_malformed",
    /// The inner source address belongs to another peer or to none.
    DropSourceNotAllowed = "drop_source_not_allowed",
    /// The outer header says CE and the inner one is not ECN-capable (RFC 6040, section 4.2).
    DropEcn = "drop_ecn",
    /// No peer has an allowed IP for the destination.
    DropNoPeer = "drop_no_peer",
    /// A datagram of our own on its way into the tunnel of the peer it is for: it would never leave.
    DropLoop = "drop_loop",
    /// The peer's endpoint is not known.
    DropNoEndpoint = "drop_no_endpoint",
    /// Larger than the frame leaves room for.
    DropTooBig = "drop_too_big",
    /// The transmit ring of the link was full.
    DropLinkFull = "drop_link_full",
    /// The TUN device took no more, or is down.
    DropTunnelFull = "drop_tunnel_full",
    /// The UDP socket took no more, or has no route.
    DropSocketFull = "drop_socket_full",
    /// The queue to control was full.
    DropMailboxFull = "drop_mailbox_full",
}

/// Number of verdicts.
pub const VERDICT_COUNT: usize = Verdict::ALL.len();

/// Packets by verdict within one batch: plain integers on the worker's stack side, added to the shared
/// counters once per batch.
#[derive(Clone, Debug)]
pub struct Tally([u64; VERDICT_COUNT]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; VERDICT_COUNT])
    }
}

impl Tally {
    /// Counts one packet.
    pub fn count(&mut self, verdict: Verdict) {
        self.add(verdict, 1);
    }

    /// Counts `packets` packets.
    pub fn add(&mut self, verdict: Verdict, packets: usize) {
        self.0[verdict as usize] += packets as u64;
    }

    /// Packets counted under `verdict`.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.0[verdict as usize]
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    verdicts: CachePadded<Verdicts>,
    batches: AtomicU64,
    idle_waits: AtomicU64,
}

#[derive(Debug)]
struct Verdicts([AtomicU64; VERDICT_COUNT]);

impl Default for Verdicts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// The counters of one worker at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerCounts {
    /// Packets by verdict name; zero counts are left out.
    pub verdicts: std::collections::BTreeMap<&'static str, u64>,
    /// Turns of the worker's loop that moved at least one packet.
    pub batches: u64,
    /// Times the worker blocked for want of packets.
    pub idle_waits: u64,
}

impl WorkerCounters {
    /// Adds a batch's tally and clears it. Only the owning worker calls this.
    pub fn add(&self, tally: &mut Tally) {
        for (shared, batch) in self.verdicts.0.iter().zip(&mut tally.0) {
            if *batch != 0 {
                // A single writer needs no atomic addition, only a store readers cannot see torn.
                shared.store(shared.load(Ordering::Relaxed) + *batch, Ordering::Relaxed);
                *batch = 0;
            }
        }
        self.batches.store(self.batches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts one block in `poll`. Only the owning worker calls this.
    pub fn count_idle_wait(&self) {
        self.idle_waits.store(self.idle_waits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Packets that had `verdict` so far.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.verdicts.0[verdict as usize].load(Ordering::Relaxed)
    }

    /// Packets received so far: each has a verdict. One opened for another peer is sealed besides, and counts twice.
    pub fn packets(&self) -> u64 {
        self.verdicts.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// All counters; not one instant's, as the worker goes on meanwhile.
    pub fn snapshot(&self) -> WorkerCounts {
        WorkerCounts {
            verdicts: Verdict::ALL
                .iter()
                .map(|verdict| (verdict.name(), self.of(*verdict)))
                .filter(|(_, count)| *count != 0)
                .collect(),
            batches: self.batches.load(Ordering::Relaxed),
            idle_waits: self.idle_waits.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_added_once_and_cleared() {
        let counters = WorkerCounters::default();
        let mut tally = Tally::default();
        tally.add(Verdict::OpenedToLink, 3);
        tally.count(Verdict::DropReplayed);
        counters.add(&mut tally);
        counters.add(&mut tally);
        assert_eq!(counters.of(Verdict::OpenedToLink), 3);
        assert_eq!(counters.packets(), 4);
        assert_eq!(counters.snapshot().verdicts, [("opened_to_link", 3), ("drop_replayed", 1)].into());
    }

    #[test]
    fn every_verdict_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Verdict::ALL.iter().map(|v| v.name()).collect();
        assert_eq!(names.len(), VERDICT_COUNT);
    }
}
