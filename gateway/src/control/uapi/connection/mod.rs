//! The clients: how many, for how long, and in which order their requests reach the control loop.

mod conversation;
mod floor;
mod lines;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::error::UapiError;
use super::format::{Chunk, Position};
use crate::control::settings::DeviceSettings;
use conversation::converse;
use floor::Floor;

/// Clients talked to at the same time. One more, and the one that has kept us waiting longest has to leave.
const CONNECTIONS_MAX: usize = 32;
/// How long to wait before looking again for room, or for file descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// A request for the control loop, which alone may touch the device.
#[derive(Debug)]
pub enum Command {
    /// Tell a part of everything.
    Get(Position, oneshot::Sender<Chunk>),
    /// Apply all or nothing.
    Set(Box<DeviceSettings>, oneshot::Sender<Result<(), UapiError>>),
}

/// Accepts clients and passes their requests on, for as long as `commands` is open.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let floor = Arc::new(Floor::new(commands));
    let mut clients = Clients::default();
    while !floor.commands.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                clients.make_room().await;
                clients.add(stream, Arc::clone(&floor));
            }
            Err(error) => {
                // Out of file descriptors: the pause keeps this from becoming a busy loop.
                warn!(%error, "cannot accept a UAPI client");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Talks with one client that no other shares the gateway with, until it leaves.
///
/// # Errors
/// The client is gone, takes too long over a request, or does not take its answers.
pub async fn serve_one(stream: UnixStream, commands: mpsc::Sender<Command>) -> io::Result<()> {
    converse(stream, &Floor::new(commands), &Waiting::default()).await
}

/// Since when a conversation has waited for its client; `None` while the client waits for us.
#[derive(Debug, Default)]
struct Waiting(Mutex<Option<Instant>>);

impl Waiting {
    fn start(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The conversations that go on; they end with this.
#[derive(Default)]
struct Clients {
    tasks: JoinSet<()>,
    handles: Vec<(AbortHandle, Arc<Waiting>)>,
}

impl Clients {
    /// Returns when there is room for another one.
    async fn make_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.handles.retain(|(task, _)| !task.is_finished());
            if self.handles.len() < CONNECTIONS_MAX {
                return;
            }
            let waiting = self.handles.iter().enumerate();
            let slowest = waiting.filter_map(|(index, (_, waiting))| Some((waiting.since()?, index))).min();
            match slowest {
                Some((_, index)) => {
                    debug!("too many UAPI clients: the slowest has to leave");
                    self.handles.swap_remove(index).0.abort();
                }
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn add(&mut self, stream: UnixStream, floor: Arc<Floor>) {
        let waiting = Arc::<Waiting>::default();
        waiting.start();
        let ours = Arc::clone(&waiting);
        let task = self.tasks.spawn(async move {
            if let Err(error) = converse(stream, &floor, &ours).await {
                debug!(%error, "a UAPI client went away");
            }
        });
        self.handles.push((task, waiting));
    }
}

#[cfg(test)]
mod tests;
