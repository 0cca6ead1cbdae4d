//! Plain forwarding between two interfaces, in place on one shared UMEM and without any cryptography: the ceiling that
//! a gateway on the same sockets is compared with. Only MAC addresses are rewritten.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use gateway::io::af_xdp::{AfXdpLink, LINK_FRAME_COUNT};
use gateway::io::{Backing, Frame, FramePool, LinkPort as _, Umem};
use gateway::xdp::Redirect;

use super::packet::{ETHERNET_LEN, write_ethernet};
use super::port::attach;
use crate::load::Mac;

/// Frames forwarded in one go: as many as the gateway takes.
const BURST: usize = 64;
const FRAME_LEN: u32 = 2048;
const FRAME_COUNT: u32 = 2 * LINK_FRAME_COUNT + 1024;

/// Two interfaces of the namespace it was made in.
pub struct Forward {
    // Before the sockets: packets go back to the kernel first.
    _redirects: [Redirect; 2],
    links: [AfXdpLink; 2],
    /// Of each interface: its own address, and that of what is on its other end.
    addresses: [(Mac, Mac); 2],
    pool: FramePool,
    burst: Vec<Frame>,
}

impl Forward {
    /// Opens both interfaces, given with the MAC address of what is on the other end of each.
    ///
    /// # Errors
    /// No such interface, no right, or another program has it.
    pub fn open(interfaces: [(&str, Mac); 2]) -> Result<Self> {
        let (umem, frames) = Umem::new(FRAME_LEN, FRAME_COUNT, Backing::Registered)?;
        let mut pool = FramePool::new(umem, frames);
        let [(first, first_hop), (second, second_hop)] = interfaces;
        let (first_link, first_redirect) = attach(&mut pool, first)?;
        let (second_link, second_redirect) = attach(&mut pool, second)?;
        Ok(Self {
            _redirects: [first_redirect, second_redirect],
            links: [first_link, second_link],
            addresses: [(own_mac(first)?, first_hop), (own_mac(second)?, second_hop)],
            pool,
            burst: Vec::with_capacity(BURST),
        })
    }

    /// Forwards until told to stop; never sleeps.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let moved = self.turn(0) + self.turn(1);
            if moved == 0 {
                for link in &mut self.links {
                    link.maintain(&mut self.pool);
                }
            }
        }
    }

    /// One burst from an interface to the other.
    fn turn(&mut self, from: usize) -> usize {
        let to = 1 - from;
        let count = self.links[from].receive(&mut self.pool, &mut self.burst, BURST);
        if count == 0 {
            return 0;
        }
        let (own, next_hop) = self.addresses[to];
        for packet in self.pool.data_mut_each(&mut self.burst) {
            if packet.len() >= ETHERNET_LEN {
                write_ethernet(packet, own, next_hop);
            }
        }
        self.links[to].transmit(&mut self.pool, &mut self.burst);
        count
    }
}

fn own_mac(interface: &str) -> Result<Mac> {
    let path = format!("/sys/class/net/{interface}/address");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?.parse()
}
