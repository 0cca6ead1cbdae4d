//! A link that plays prepared frames and forgets what is sent: it allocates nothing, so that what a worker allocates
//! is the worker's own.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway::io::{Frame, FramePool, LinkPort};

use crate::traffic::Arrival;

/// What a [`PlayedLink`] has yet to play, and how much was sent out of it.
#[derive(Default)]
pub struct Playlist {
    arrivals: Vec<Arrival>,
    next: usize,
    sent: usize,
}

impl Playlist {
    /// Plays these instead of what was there.
    pub fn load(&mut self, arrivals: Vec<Arrival>) {
        self.arrivals = arrivals;
        self.next = 0;
    }

    /// Frames sent out of the link since the last call.
    pub fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }
}

/// Both ends of a playlist.
#[derive(Clone, Default)]
pub struct SharedPlaylist(Arc<Mutex<Playlist>>);

impl SharedPlaylist {
    /// The playlist, for as long as the link is not asked for anything.
    pub fn lock(&self) -> MutexGuard<'_, Playlist> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's side of a playlist.
pub struct PlayedLink {
    interface_index: u32,
    playlist: SharedPlaylist,
}

impl PlayedLink {
    /// A link that plays `playlist`.
    pub fn new(interface_index: u32, playlist: SharedPlaylist) -> Self {
        Self { interface_index, playlist }
    }
}

impl LinkPort for PlayedLink {
    fn interface_index(&self) -> u32 {
        self.interface_index
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize {
        let mut playlist = self.playlist.lock();
        let first = playlist.next;
        for arrival in playlist.arrivals[first..].iter().take(limit) {
            let Some(frame) = filled(pool, &arrival.frame) else { break };
            into.push(frame);
        }
        playlist.next = first + into.len();
        into.len()
    }

    fn transmit(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> usize {
        let count = frames.len();
        for frame in frames.drain(..) {
            pool.release(frame);
        }
        self.playlist.lock().sent += count;
        count
    }

    fn maintain(&mut self, _pool: &mut FramePool) {}

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

/// A frame of the pool that holds `bytes`; `None` when none is free.
pub fn filled(pool: &mut FramePool, bytes: &[u8]) -> Option<Frame> {
    let mut frame = pool.reserve()?;
    assert!(frame.set_len(bytes.len()), "{} bytes fit no frame", bytes.len());
    pool.data_mut(&mut frame).copy_from_slice(bytes);
    Some(frame)
}
