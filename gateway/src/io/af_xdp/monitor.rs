//! Counters of a link, readable while its worker owns it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::options::{self, KernelStatistics};

/// Written by the worker that owns the link.
#[derive(Debug, Default)]
pub(super) struct LinkCounters {
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    tx_full: AtomicU64,
    fill_starved: AtomicU64,
    wakeup_errors: AtomicU64,
    napi_polls: AtomicU64,
}

impl LinkCounters {
    /// Adds to a counter that only this thread writes.
    fn add(counter: &AtomicU64, count: usize) {
        if count > 0 {
            counter.store(counter.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn received(&self, packets: usize) {
        Self::add(&self.rx_packets, packets);
    }

    pub(super) fn sent(&self, packets: usize, refused: usize) {
        Self::add(&self.tx_packets, packets);
        Self::add(&self.tx_full, refused);
    }

    pub(super) fn fill_starved(&self) {
        Self::add(&self.fill_starved, 1);
    }

    pub(super) fn wakeup_failed(&self) {
        Self::add(&self.wakeup_errors, 1);
    }

    pub(super) fn napi_polled(&self) {
        Self::add(&self.napi_polls, 1);
    }
}

/// What one AF_XDP socket did so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkStatistics {
    /// Interface name.
    pub interface: String,
    /// Queue number.
    pub queue: u32,
    /// `zero-copy` or `copy`.
    pub mode: &'static str,
    /// Packets taken from the receive ring.
    pub rx_packets: u64,
    /// Packets put into the transmit ring.
    pub tx_packets: u64,
    /// Packets dropped because the transmit ring was full.
    pub tx_full: u64,
    /// Times there was no free frame for the fill ring.
    pub fill_starved: u64,
    /// Wake-ups of the kernel that failed, as they do while the link is down.
    pub wakeup_errors: u64,
    /// Times nothing had been received and the kernel was told to poll the driver; 0 unless the link does so.
    pub napi_polls: u64,
    /// The NAPI instance a poll works on; absent when the kernel does not know it.
    pub napi_id: Option<u32>,
    /// The kernel's own counters; absent when it no longer knows the socket.
    pub kernel: Option<KernelStatistics>,
}

/// A handle on a link's counters.
#[derive(Clone, Debug)]
pub struct LinkMonitor {
    inner: Arc<Monitored>,
}

#[derive(Debug)]
struct Monitored {
    interface: String,
    queue: u32,
    is_zero_copy: bool,
    fd: OwnedFd,
    counters: Arc<LinkCounters>,
}

impl LinkMonitor {
    pub(super) fn new(
        interface: &str,
        queue: u32,
        fd: BorrowedFd<'_>,
        counters: Arc<LinkCounters>,
    ) -> std::io::Result<Self> {
        let is_zero_copy = options::is_zero_copy(fd)?;
        let fd = fd.try_clone_to_owned()?;
        let inner = Monitored { interface: interface.into(), queue, is_zero_copy, fd, counters };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether frames move without being copied.
    pub fn is_zero_copy(&self) -> bool {
        self.inner.is_zero_copy
    }

    /// The interface the socket is bound to.
    pub fn interface(&self) -> &str {
        &self.inner.interface
    }

    /// The queue the socket is bound to.
    pub fn queue(&self) -> u32 {
        self.inner.queue
    }

    /// The socket, for the XDP program's map.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    /// The number of the NAPI instance that serves the queue, if the kernel knows it of this socket: else it polls
    /// nothing for the socket's sake.
    pub fn napi_id(&self) -> Option<u32> {
        options::napi_id(self.socket())
    }

    /// The counters now.
    pub fn read(&self) -> LinkStatistics {
        let Monitored { interface, queue, is_zero_copy, fd, counters } = &*self.inner;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStatistics {
            interface: interface.clone(),
            queue: *queue,
            mode: if *is_zero_copy { "zero-copy" } else { "copy" },
            rx_packets: of(&counters.rx_packets),
            tx_packets: of(&counters.tx_packets),
            tx_full: of(&counters.tx_full),
            fill_starved: of(&counters.fill_starved),
            wakeup_errors: of(&counters.wakeup_errors),
            napi_polls: of(&counters.napi_polls),
            napi_id: options::napi_id(fd.as_fd()),
            kernel: options::statistics(fd.as_fd()).ok(),
        }
    }
}
