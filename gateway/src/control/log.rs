//! What keeps the log short whatever peers do.

use std::fmt;
use std::time::Duration;

use wireguard::{PublicKey, Time};

/// A peer as wireguard-go names it in its log: enough of the key to tell peers apart, not the whole of it.
#[derive(Clone, Copy, Debug)]
pub struct ShortKey(pub PublicKey);

impl fmt::Display for ShortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0.to_string();
        write!(f, "peer({}…{})", &key[..4], &key[39..43])
    }
}

/// At most so many lines within a second; what is left out is counted and told with the next line.
#[derive(Debug)]
pub struct LineLimit {
    per_second: u32,
    since: Time,
    count: u32,
    suppressed: u64,
}

impl LineLimit {
    /// A limit of `per_second` lines.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, since: Time(0), count: 0, suppressed: 0 }
    }

    /// The number of lines left out so far if there may be another one now.
    pub fn admit(&mut self, now: Time) -> Option<u64> {
        if now.saturating_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.count = 0;
        }
        if self.count == self.per_second {
            self.suppressed += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shortened_as_wireguard_go_does() {
        assert_eq!(ShortKey(PublicKey::from_bytes([0xff; 32])).to_string(), "peer(////…///8)");
    }

    #[test]
    fn lines_over_the_limit_are_counted() {
        let mut limit = LineLimit::new(2);
        let at = |millis: u64| Time((10_000 + millis) * 1_000_000);
        let admitted: Vec<_> = [0, 1, 2, 999, 1000, 1001].map(|millis| limit.admit(at(millis))).into();
        assert_eq!(admitted, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }
}
