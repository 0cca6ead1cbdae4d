//! A file descriptor the event loop waits on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// An owned descriptor, registered for reading with the event loop it was made on.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Registers `fd`, which must be non-blocking.
    ///
    /// # Errors
    /// There is no event loop, or epoll does not take this kind of file.
    #[expect(unsafe_code, reason = "AsyncFd asks its caller to keep the descriptor open")]
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: registration needs the descriptor to stay the same open file for as long as it is registered.
        // An OwnedFd is closed only when dropped, AsyncFd drops it after deregistering, and nothing here gives it
        // out other than borrowed.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered?))
    }

    /// Waits until there is something to read, then lets `read` take all of it. Cancel safe.
    ///
    /// # Errors
    /// The event loop is shutting down.
    pub async fn drain(&self, read: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // Cleared first: what arrives while reading makes the descriptor ready again.
        ready.clear_ready();
        read(self.0.get_ref().as_fd());
        Ok(())
    }
}
