//! The replay window against its definition.

use std::collections::BTreeSet;

use wireguard::{
    ReplayError, ReplayWindow,
    constants::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW},
};

use crate::input::Input;

/// Shows counters to the window: near the greatest, near its edge, near the limit, and anywhere.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let window = ReplayWindow::new();
    let mut seen = BTreeSet::new();
    while input.has_step() {
        let greatest: u64 = seen.last().copied().unwrap_or_default();
        let distance = u64::from(input.value::<u8>());
        let counter: u64 = match input.below(6) {
            0 => greatest.saturating_add(distance),
            1 => greatest.saturating_sub(distance),
            2 => greatest.saturating_sub(REPLAY_WINDOW - 128).saturating_sub(distance),
            3 => greatest.saturating_add(distance * 64),
            4 => REJECT_AFTER_MESSAGES.saturating_sub(128).saturating_add(distance),
            _ => input.value(),
        };
        let expected = if counter >= REJECT_AFTER_MESSAGES {
            Err(ReplayError::Limit)
        } else if greatest.saturating_sub(counter) > REPLAY_WINDOW {
            Err(ReplayError::TooOld)
        } else if seen.insert(counter) {
            Ok(())
        } else {
            Err(ReplayError::Seen)
        };
        assert_eq!(window.lock().accept(counter), expected, "counter {counter} behind {greatest}");
    }
}
