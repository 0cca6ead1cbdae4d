//! A worker between two played links, as it runs in the gateway but without kernel.

use std::sync::Arc;

use aead::Aead;
use anyhow::{Result, ensure};
use bench::load::Direction;
use gateway::dataplane::classify::Roles;
use gateway::dataplane::counters::WorkerCounters;
use gateway::dataplane::engine::{BATCH_MAX, Engine};
use gateway::dataplane::worker::{Ports, Worker, WorkerLink};
use gateway::io::memory::{MemoryDatagrams, MemoryTunnel};
use gateway::io::{Backing, FramePool, Umem};

use crate::port::{PlayedLink, SharedPlaylist};
use crate::traffic::arrivals;
use crate::world::{DOWNLINK, NOW, UPLINK, World};

const FRAME_LEN: u32 = 2048;
const FRAME_COUNT: u32 = 4 * BATCH_MAX as u32;

/// A worker, its world and its links.
pub struct Rig {
    /// Everything the worker looks up.
    pub world: World,
    worker: Worker,
    uplink: SharedPlaylist,
    downlink: SharedPlaylist,
}

/// Frames of plain memory for a worker or an engine.
///
/// # Errors
/// The system has no memory for them.
pub fn frame_pool() -> Result<FramePool> {
    let (umem, frames) = Umem::new(FRAME_LEN, FRAME_COUNT, Backing::Plain)?;
    Ok(FramePool::new(umem, frames))
}

impl Rig {
    /// A worker with `client_count` clients that seals and opens with `aead`.
    ///
    /// # Errors
    /// The system has no memory or no file descriptor for it.
    pub fn new(aead: Aead, client_count: u32) -> Result<Self> {
        let world = World::new(client_count)?;
        let (uplink, downlink) = (SharedPlaylist::default(), SharedPlaylist::default());
        let link = |interface_index, playlist: &SharedPlaylist| WorkerLink {
            port: Box::new(PlayedLink::new(interface_index, playlist.clone())),
            roles: Roles { uplink: interface_index == UPLINK, downlink: interface_index == DOWNLINK },
        };
        let ports = Ports {
            links: vec![link(UPLINK, &uplink), link(DOWNLINK, &downlink)],
            datagrams: Box::new(MemoryDatagrams::new(0).0),
            tunnel: Box::new(MemoryTunnel::new(0).0),
            errors: None,
            receives_from_kernel: false,
        };
        let engine = Engine::new(aead, Arc::clone(&world.shared), &[UPLINK, DOWNLINK]);
        let counters = Arc::new(WorkerCounters::default());
        let worker = Worker::new(engine, frame_pool()?, ports, counters);
        Ok(Self { world, worker, uplink, downlink })
    }

    /// Lets `batch_count` full batches of packets of `len` bytes arrive.
    pub fn load(&mut self, direction: Direction, len: usize, batch_count: usize) {
        let arrivals = arrivals(&mut self.world, direction, len, batch_count * BATCH_MAX);
        match direction {
            Direction::Encrypt => self.downlink.lock().load(arrivals),
            _ => self.uplink.lock().load(arrivals),
        }
    }

    /// Turns until all that was loaded has passed; how many packets the worker received.
    #[inline(never)]
    pub fn turn_until_idle(&mut self) -> usize {
        let mut received = 0;
        loop {
            match self.worker.turn(NOW) {
                0 => return received,
                count => received += count,
            }
        }
    }

    /// Makes sure that everything which arrived since the last call went out where `direction` leads.
    ///
    /// # Errors
    /// Packets were dropped or went elsewhere.
    pub fn verify(&mut self, direction: Direction, packet_count: usize) -> Result<()> {
        self.world.read_mail();
        let sent = [self.uplink.lock().take_sent(), self.downlink.lock().take_sent()];
        let expected = match direction {
            Direction::Decrypt => [0, packet_count],
            _ => [packet_count, 0],
        };
        ensure!(sent == expected, "sent {sent:?} packets on uplink and downlink, expected {expected:?}");
        Ok(())
    }
}
