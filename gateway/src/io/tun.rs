//! The TUN device named like the tunnel: what it carries is the kernel's to route, deliver or answer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{Frame, FramePool, TunnelPort};

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// What `dev_valid_name` (net/core/dev.c) refuses, and `%`, which the kernel takes for a pattern.
    #[error("{0:?} is no name for an interface; use 1 to 15 letters, digits, '-', '_' or '.'")]
    Name(String),
    /// The name is taken.
    #[error("an interface called {0} exists; choose another name, or remove it with `ip link delete {0}`")]
    Exists(String),
    /// The process may not.
    #[error("creating the TUN device {0} is not permitted; it needs CAP_NET_ADMIN and /dev/net/tun")]
    Permission(String),
    /// Anything else.
    #[error("creating the TUN device {name} failed: {error}")]
    Refused {
        /// Interface name.
        name: String,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What the device did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TunStatistics {
    /// Packets the kernel routed into the tunnel.
    pub rx_packets: u64,
    /// Packets given to the kernel.
    pub tx_packets: u64,
    /// Packets the kernel did not take: the device is down, or its queue full.
    pub tx_refused: u64,
}

/// A TUN device. It disappears when the last handle is dropped, and with the process.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    /// Somebody deleted the device.
    is_gone: AtomicBool,
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    tx_refused: AtomicU64,
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun").field("name", &self.name).field("index", &self.index).finish_non_exhaustive()
    }
}

impl Tun {
    /// Creates the device `name` with `mtu` bytes of inner packet. It starts down, as a kernel WireGuard device
    /// does: bringing it up is the operator's (`ip link set up`, `wg-quick`).
    ///
    /// # Errors
    /// [`TunError`]: the name is taken, the process may not, or the kernel refuses.
    pub fn create(name: &str, mtu: u16) -> Result<Arc<Self>, TunError> {
        let explain = |error: io::Error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => TunError::Exists(name.into()),
            Some(libc::EPERM | libc::EACCES | libc::ENOENT) => TunError::Permission(name.into()),
            _ => TunError::Refused { name: name.into(), error },
        };
        if !is_valid_name(name) {
            return Err(TunError::Name(name.into()));
        }
        // TUNSETIFF would attach to a persistent device of that name and fail obscurely for other kinds.
        if nix::net::if_::if_nametoindex(name).is_ok() {
            return Err(TunError::Exists(name.into()));
        }
        let device = DeviceBuilder::new().name(name).mtu(mtu).enable(false).build_sync().map_err(explain)?;
        device.set_nonblocking(true).map_err(explain)?;
        let index = device.if_index().map_err(explain)?;
        Ok(Arc::new(Self {
            device,
            name: name.into(),
            index,
            is_gone: AtomicBool::new(false),
            rx_packets: AtomicU64::new(0),
            tx_packets: AtomicU64::new(0),
            tx_refused: AtomicU64::new(0),
        }))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether somebody deleted the device: a reason to end, as `wg-quick down` means it.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// The counters now.
    pub fn statistics(&self) -> TunStatistics {
        TunStatistics {
            rx_packets: self.rx_packets.load(Ordering::Relaxed),
            tx_packets: self.tx_packets.load(Ordering::Relaxed),
            tx_refused: self.tx_refused.load(Ordering::Relaxed),
        }
    }

    fn note_error(&self, error: &io::Error) {
        // A detached queue says EBADFD, to reads and writes alike (drivers/net/tun.c, `tun_get`).
        if error.raw_os_error() == Some(libc::EBADFD) {
            self.is_gone.store(true, Ordering::Relaxed);
        }
    }
}

fn is_valid_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..libc::IFNAMSIZ).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_allowed)
}

/// A worker's way to the device.
pub struct TunPort {
    tun: Arc<Tun>,
}

impl TunPort {
    /// A port on `tun`.
    pub fn new(tun: Arc<Tun>) -> Self {
        Self { tun }
    }
}

impl TunnelPort for TunPort {
    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Frame>, limit: usize) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(mut frame) = pool.reserve() else { break };
            let capacity = frame.capacity();
            frame.set_len(capacity);
            match self.tun.device.recv(pool.data_mut(&mut frame)) {
                Ok(len) => {
                    frame.set_len(len);
                    into.push(frame);
                    count += 1;
                }
                Err(error) => {
                    self.tun.note_error(&error);
                    pool.release(frame);
                    break;
                }
            }
        }
        self.tun.rx_packets.fetch_add(count as u64, Ordering::Relaxed);
        count
    }

    fn transmit(&mut self, pool: &mut FramePool, packets: &mut Vec<Frame>) -> usize {
        let (mut sent, mut refused) = (0, 0);
        for frame in packets.drain(..) {
            match self.tun.device.send(pool.data(&frame)) {
                Ok(_) => sent += 1,
                Err(error) => {
                    self.tun.note_error(&error);
                    refused += 1;
                }
            }
            pool.release(frame);
        }
        self.tun.tx_packets.fetch_add(sent as u64, Ordering::Relaxed);
        self.tun.tx_refused.fetch_add(refused, Ordering::Relaxed);
        sent
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        let is_gone = self.tun.is_gone();
        (!is_gone).then(|| self.tun.device.as_fd())
    }
}
