//! Who may have the control loop's ear: what conversations share.
//!
//! The answer to a `get` is made piece by piece, and yet tells one state: no `set` is applied while one is under
//! way. A client that is slow to read must not hold up changes, though: it is left when somebody has waited.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::sleep;
use tracing::warn;
use wireguard::Time;

use super::Command;
use crate::control::log::LineLimit;
use crate::control::uapi::error::UapiError;

/// Requests of more than [`super::conversation::LARGE_LEN`] bytes that are read at the same time.
const LARGE_REQUESTS_MAX: usize = 2;
/// How long a `get` may take when nobody waits for it.
const GET_TIME_MAX: Duration = Duration::from_mins(1);
/// How long one may go on when a `set` waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lines about refused requests, per second.
const REFUSAL_LINES_PER_SECOND: u32 = 10;

/// What conversations share.
pub struct Floor {
    pub commands: mpsc::Sender<Command>,
    turns: RwLock<()>,
    /// How many sets wait or are applied.
    sets: watch::Sender<usize>,
    large: Semaphore,
    started: Instant,
    refusal_lines: Mutex<LineLimit>,
}

/// Counts a `set` for as long as it lives.
pub struct CountedSet<'a>(&'a watch::Sender<usize>);

impl Drop for CountedSet<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Floor {
    pub fn new(commands: mpsc::Sender<Command>) -> Self {
        Self {
            commands,
            turns: RwLock::new(()),
            sets: watch::Sender::new(0),
            large: Semaphore::new(LARGE_REQUESTS_MAX),
            started: Instant::now(),
            refusal_lines: Mutex::new(LineLimit::new(REFUSAL_LINES_PER_SECOND)),
        }
    }

    /// Waits until the peers will not change.
    pub async fn for_get(&self) -> RwLockReadGuard<'_, ()> {
        self.turns.read().await
    }

    /// Waits until no `get` is under way.
    pub async fn for_set(&self) -> (CountedSet<'_>, RwLockWriteGuard<'_, ()>) {
        self.sets.send_modify(|count| *count += 1);
        let counted = CountedSet(&self.sets);
        (counted, self.turns.write().await)
    }

    /// Resolves when a `get` that begins now has taken too long.
    pub async fn patience(&self) {
        let mut sets = self.sets.subscribe();
        let is_waited_for = async {
            // The sender lives as long as `self`, so this ends only when somebody waits.
            let _ = sets.wait_for(|count| *count > 0).await;
            sleep(PATIENCE).await;
        };
        tokio::select! {
            () = is_waited_for => {}
            () = sleep(GET_TIME_MAX) => {}
        }
    }

    /// Waits until a large request may be read on.
    pub async fn for_large_request(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.large.acquire().await.ok()
    }

    /// Logs why a request was refused, unless there are too many of these.
    pub fn log_refusal(&self, error: &UapiError) {
        let now = Time(self.started.elapsed().as_nanos() as u64);
        let admitted = self.refusal_lines.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        match admitted {
            Some(0) => warn!(%error, "refused a UAPI request"),
            Some(suppressed) => warn!(%error, suppressed, "refused a UAPI request"),
            None => {}
        }
    }
}
