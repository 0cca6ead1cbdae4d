//! The constants of the WireGuard paper (section 6.1) and of the kernel, under their own names.

#![expect(clippy::duration_suboptimal_units, reason = "the paper gives all times in seconds")]

use std::time::Duration;

/// Packets sealed under one key after which either side starts a new handshake.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// First counter that may not be used: the replay window must never wrap (kernel `messages.h`).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - REPLAY_WINDOW - 1;
/// Age of a key after which its initiator starts a new handshake when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a key may neither send nor receive.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Age of a key after which its initiator starts a new handshake when it only receives.
pub const REKEY_AFTER_TIME_RECEIVING: Duration = Duration::from_secs(165);
/// Time an initiation waits for its response; also the least time between two initiations to a peer.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bound of the jitter that is added to handshake timers.
pub const REKEY_TIMEOUT_JITTER: Duration = Duration::from_millis(333);
/// Retransmits of an initiation after which we give up: `REKEY_ATTEMPT_TIME` / `REKEY_TIMEOUT` as the kernel
/// counts it, so the first initiation is followed by at most one more than this.
pub const HANDSHAKE_RETRANSMITS_MAX: u32 = 90 / 5;
/// Silence after received data that is answered with a keepalive.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after sent data that is answered with a new handshake, before jitter.
pub const NEW_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Age of the newest key at which all key material of a peer is erased.
pub const ZERO_KEYS_TIMEOUT: Duration = Duration::from_secs(540);
/// Least time between two initiations accepted from one peer (`INITIATIONS_PER_SECOND` = 50).
pub const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Time a received cookie is used: `COOKIE_SECRET_MAX_AGE` less `COOKIE_SECRET_LATENCY`.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120 - 5);

/// Age of the secret behind the cookies we hand out at which it is replaced.
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);
/// Handshake messages that may wait to be looked at (kernel `MAX_QUEUED_INCOMING_HANDSHAKES`).
pub const HANDSHAKE_QUEUE_MAX: usize = 4096;
/// Waiting handshake messages from which on we are under load.
pub const UNDER_LOAD_QUEUED: usize = HANDSHAKE_QUEUE_MAX / 8;
/// How long we stay under load after the queue was last that long.
pub const UNDER_LOAD_LINGER: Duration = Duration::from_secs(1);
/// Handshake messages per second that an address may send while we are under load (kernel `ratelimiter.c`).
pub const RATE_LIMIT_PER_SECOND: u64 = 20;
/// Handshake messages that it may send at once.
pub const RATE_LIMIT_BURST: u64 = 5;
/// Addresses whose rate is watched at a time; further ones are refused.
pub const RATE_LIMIT_ENTRIES_MAX: usize = 65_536;

/// Bits of the replay window (RFC 6479).
pub const REPLAY_WINDOW_BITS: u64 = 8192;
/// Distance behind the greatest counter at which a packet is still accepted: one word of the bitmap is spare.
pub const REPLAY_WINDOW: u64 = REPLAY_WINDOW_BITS - 64;

/// Peers of one device.
pub const PEERS_MAX: usize = 1 << 20;
/// Packets that wait for a key, per peer; the oldest is dropped first.
pub const STAGED_PACKETS_MAX: usize = 128;
/// Packets are padded to a multiple of this many bytes.
pub const PADDING_MULTIPLE: usize = 16;
/// Tunnel MTU until told otherwise: 1500 less the overhead over IPv6.
pub const MTU_DEFAULT: usize = 1420;
/// Outer traffic class of handshake messages: AF41, ECN 0, as the kernel sends them.
pub const HANDSHAKE_TOS: u8 = 0x88;

/// Name of the Noise protocol, first input of the transcript hash.
pub const CONSTRUCTION: &[u8; 37] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Identifier of WireGuard, second input of the transcript hash.
pub const IDENTIFIER: &[u8; 34] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// Label of the key of mac1.
pub const LABEL_MAC1: &[u8; 8] = b"mac1----";
/// Label of the key that seals cookies.
pub const LABEL_COOKIE: &[u8; 8] = b"cookie--";

/// Bytes of a Poly1305 tag.
pub const TAG_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out, as protocol and kernel have them: no expression above may drift.
    #[test]
    fn limits_are_those_of_the_kernel() {
        assert_eq!(REJECT_AFTER_MESSAGES, 18_446_744_073_709_543_486);
        assert_eq!(REKEY_AFTER_MESSAGES, 1_152_921_504_606_846_976);
        assert_eq!(REPLAY_WINDOW, 8128);
        assert_eq!(HANDSHAKE_RETRANSMITS_MAX, 18);
        assert_eq!(COOKIE_LIFETIME, Duration::from_secs(115));
        assert_eq!((HANDSHAKE_QUEUE_MAX, UNDER_LOAD_QUEUED), (4096, 512));
        assert_eq!(PEERS_MAX, 1_048_576);
    }
}
