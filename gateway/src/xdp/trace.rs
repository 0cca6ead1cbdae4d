//! Forwards the program's log records to ours (feature `trace`; needs `cargo xtask build-ebpf --trace`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// How long a record may wait in the ring buffer.
const INTERVAL: Duration = Duration::from_millis(20);

/// The reading thread; dropping it ends it.
///
/// A thread of its own, because `flush` panics on a record that it cannot read, and that must not end the gateway.
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Takes the log's ring buffer; must come before the program is loaded.
    ///
    /// `None` when the object was built without `--trace`.
    pub fn start(ebpf: &mut Ebpf) -> Option<Self> {
        let mut logger = match EbpfLogger::init(ebpf) {
            Ok(logger) => logger,
            Err(error) => {
                tracing::warn!(%error, "no log records from the XDP program: run `cargo xtask build-ebpf --trace`");
                return None;
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                logger.flush();
                thread::sleep(INTERVAL);
            }
        });
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the reader of the XDP program's log broke off");
        }
    }
}
