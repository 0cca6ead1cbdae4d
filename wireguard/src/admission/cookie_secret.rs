//! The cookies we hand out (paper section 5.4.7, kernel `cookie.c`): nothing is stored per address.

use std::net::{IpAddr, SocketAddr};

use chacha20::{ChaCha20Rng, rand_core::Rng};
use zeroize::Zeroizing;

use crate::{
    constants::COOKIE_SECRET_MAX_AGE,
    cookie::{MAC_LEN, ReceiverKeys},
    message::CookieReply,
    noise::kdf::mac,
    time::Time,
};

/// A secret that changes every two minutes; whoever returns a cookie made of it owns the address.
pub(super) struct CookieSecret {
    rng: ChaCha20Rng,
    secret: Zeroizing<[u8; 32]>,
    made_at: Option<Time>,
}

impl CookieSecret {
    pub(super) fn new(rng: ChaCha20Rng) -> Self {
        Self { rng, secret: Zeroizing::default(), made_at: None }
    }

    /// The cookie of an address and port. The secret before the last is not kept: a cookie given out just before
    /// the change costs its owner one more round trip.
    pub(super) fn cookie(&mut self, source: SocketAddr, now: Time) -> [u8; MAC_LEN] {
        if self.made_at.is_none_or(|at| now.saturating_since(at) >= COOKIE_SECRET_MAX_AGE) {
            self.rng.fill_bytes(self.secret.as_mut_slice());
            self.made_at = Some(now);
        }
        let port = source.port().to_be_bytes();
        match source.ip().to_canonical() {
            IpAddr::V4(address) => mac(self.secret.as_slice(), &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(self.secret.as_slice(), &[&address.octets(), &port]),
        }
    }

    /// The reply to a message with `mac1` from `source`, for its sender's index.
    pub(super) fn reply(
        &mut self,
        keys: &ReceiverKeys,
        mac1: &[u8; MAC_LEN],
        receiver_index: u32,
        source: SocketAddr,
        now: Time,
    ) -> CookieReply {
        let cookie = self.cookie(source, now);
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        keys.seal_cookie(&cookie, nonce, mac1, receiver_index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chacha20::rand_core::SeedableRng;

    use super::*;

    fn source(text: &str) -> SocketAddr {
        text.parse().expect("an address and port")
    }

    #[test]
    fn cookie_is_bound_to_address_and_port() {
        let mut secret = CookieSecret::new(ChaCha20Rng::from_seed([1; 32]));
        let cookie = secret.cookie(source("192.0.2.1:1000"), Time(0));
        assert_eq!(secret.cookie(source("192.0.2.1:1000"), Time(1)), cookie);
        assert_eq!(secret.cookie(source("[::ffff:192.0.2.1]:1000"), Time(1)), cookie);
        assert_ne!(secret.cookie(source("192.0.2.1:1001"), Time(1)), cookie);
        assert_ne!(secret.cookie(source("192.0.2.2:1000"), Time(1)), cookie);
        assert_ne!(secret.cookie(source("[2001:db8::1]:1000"), Time(1)), cookie);
    }

    #[test]
    fn secret_changes_after_two_minutes() {
        let mut secret = CookieSecret::new(ChaCha20Rng::from_seed([1; 32]));
        let first = secret.cookie(source("192.0.2.1:1000"), Time(0));
        let old = Time(0) + COOKIE_SECRET_MAX_AGE;
        assert_eq!(secret.cookie(source("192.0.2.1:1000"), Time(old.0 - 1)), first);
        let second = secret.cookie(source("192.0.2.1:1000"), old);
        assert_ne!(second, first);
        assert_eq!(secret.cookie(source("192.0.2.1:1000"), old + Duration::from_secs(119)), second);
    }
}
