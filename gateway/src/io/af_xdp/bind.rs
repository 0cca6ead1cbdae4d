//! Binding a socket to a queue, with the quirks of drivers and kernels on the way.
//!
//! - The kernel tries zero-copy first and falls back to copying when neither is demanded (`xsk_bind`,
//!   net/xdp/xsk.c), but the second socket on a shared UMEM takes the mode of the first: a set of sockets that
//!   mixes drivers is opened again with [`CopyMode::Always`].
//! - Sockets are torn down after their owner is gone: a fresh bind may see `EBUSY` for a while
//!   (<https://github.com/xdp-project/xdp-tutorial/issues/458>).
//! - Some drivers want a filled fill ring at a zero-copy bind. xsk-rs 0.11 binds inside `Socket::new`, so the ring is
//!   filled right after, before the XDP program knows of the socket.
//! - libxdp would load a program of its own; ours is attached by `xdp`.
//! - Need-wakeup is always asked for: drivers without it ignore the flag, and veth needs every `sendto` anyway.

use std::ffi::CString;
use std::thread::sleep;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

use super::umem::Umem;
use super::{ring_len, with_source};

/// How long a queue may stay busy with the socket of a process that has just ended.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Why a queue has no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket holds the queue.
    #[error("{interface} queue {queue} has another AF_XDP socket; stop the program that holds it")]
    Busy {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// The process may not.
    #[error("opening an AF_XDP socket on {interface} queue {queue} is not permitted; it needs CAP_NET_RAW")]
    Permission {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
    },
    /// The kernel does not let the socket poll its queue.
    #[error(
        "setting {option} to {value} on the AF_XDP socket of {interface} queue {queue} failed: {reason}; \
         polling takes Linux 5.11 and CAP_NET_ADMIN, or leave --napi-busy-poll out"
    )]
    BusyPoll {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// The socket option.
        option: &'static str,
        /// What it was to be set to.
        value: u32,
        /// What the kernel said.
        reason: String,
    },
    /// Anything else.
    #[error(
        "opening an AF_XDP socket on {interface} queue {queue} ({mode}) failed: {reason}; see `wgx check {interface}`"
    )]
    Refused {
        /// Interface name.
        interface: String,
        /// Queue number.
        queue: u32,
        /// What was asked for.
        mode: &'static str,
        /// What the kernel or libxdp said.
        reason: String,
    },
}

/// Whether the kernel may move frames without copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy where the driver has it, else copying.
    WhereNeeded,
    /// Copying, whatever the driver has.
    Always,
}

/// The four rings of a socket.
pub(super) struct Rings {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
}

/// Opens a socket on `umem` and binds it to a queue.
pub(super) fn bind(umem: &Umem, interface: &str, queue: u32, copy: CopyMode) -> Result<Rings, BindError> {
    let refused = |reason: String| BindError::Refused {
        interface: interface.into(),
        queue,
        mode: match copy {
            CopyMode::WhereNeeded => "zero-copy, then copy",
            CopyMode::Always => "copy",
        },
        reason,
    };
    let registered = umem.registered().ok_or_else(|| refused("plain memory cannot be shared".into()))?;
    let name = CString::new(interface).map_err(|error| refused(error.to_string()))?;
    let config = config(copy).map_err(|error| refused(error.to_string()))?;
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        // SAFETY: the program load is inhibited, which is all that is asked of sockets that share a UMEM.
        let opened = unsafe { Socket::new(config, registered, &Interface::new(name.clone()), queue) };
        let error = match opened {
            Ok((tx, rx, Some((fill, completion)))) => return Ok(Rings { tx, rx, fill, completion }),
            Ok((_, _, None)) => return Err(BindError::Busy { interface: interface.into(), queue }),
            Err(error) => error,
        };
        let system =
            std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        match system.and_then(std::io::Error::raw_os_error) {
            Some(libc::EBUSY) if Instant::now() < deadline => sleep(BUSY_PAUSE),
            Some(libc::EBUSY) => return Err(BindError::Busy { interface: interface.into(), queue }),
            Some(libc::EPERM) => return Err(BindError::Permission { interface: interface.into(), queue }),
            _ => return Err(refused(with_source(&error))),
        }
    }
}

fn config(copy: CopyMode) -> Result<SocketConfig, xsk_rs::config::QueueSizeError> {
    let flags = match copy {
        CopyMode::WhereNeeded => BindFlags::XDP_USE_NEED_WAKEUP,
        CopyMode::Always => BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_COPY,
    };
    Ok(SocketConfig::builder()
        .rx_queue_size(QueueSize::new(ring_len::RX)?)
        .tx_queue_size(QueueSize::new(ring_len::TX)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build())
}
