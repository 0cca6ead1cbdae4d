//! The socket file: made so that only root reaches it, taken over from the dead, never from the living, and
//! removed only while it is still ours.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::umask;

use crate::control::readable::Readable;

/// Where `wg` looks for the sockets of userspace implementations.
pub const UAPI_DIR: &str = "/var/run/wireguard";

/// A listening Unix socket bound to a file.
#[derive(Debug)]
pub struct SocketFile {
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode of the file as we made it.
    identity: (u64, u64),
    /// Holds the inode, so that its number is not given to a successor's file while we compare with it.
    _inode: OwnedFd,
}

impl SocketFile {
    /// Listens on `dir/name.sock`, which gets mode 0600; `dir` is made with `dir_mode` if it is not there.
    ///
    /// # Errors
    /// A process listens there already; the directory or the file cannot be made; something that is no socket
    /// is in the way.
    pub fn bind(dir: &Path, dir_mode: u32, name: &str) -> Result<Self> {
        let path = dir.join(format!("{name}.sock"));
        // Before the first other thread exists that makes files, and for the length of two calls: the file must
        // never be there with wider permissions, not even for a moment.
        let old_mask = umask(Mode::from_raw_mode(0o077));
        let listener = make_dir(dir, dir_mode).and_then(|()| {
            remove_stale(&path, name)?;
            UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))
        });
        umask(old_mask);
        let listener = listener?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot restrict {} to its owner", path.display()))?;
        listener.set_nonblocking(true)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inode = rustix::fs::open(&path, flags, Mode::empty())
            .with_context(|| format!("{} vanished at once", path.display()))?;
        let stat = rustix::fs::fstat(&inode)?;
        Ok(Self { listener: Some(listener), path, identity: (stat.st_dev, stat.st_ino), _inode: inode })
    }

    /// The listening socket, for the event loop. It can be taken once.
    ///
    /// # Errors
    /// There is no event loop, or the socket was taken before.
    pub fn listen(&mut self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.take().ok_or(io::ErrorKind::NotFound)?;
        tokio::net::UnixListener::from_std(listener)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still the one we made.
    pub fn is_ours(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// A watch that ends when the file is deleted or replaced.
    ///
    /// # Errors
    /// inotify is exhausted (`fs.inotify.max_user_instances`).
    pub fn watch(&self) -> Result<SocketWatch> {
        let inotify = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .context("cannot watch the control socket: raise fs.inotify.max_user_instances")?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let events =
            WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
        rustix::fs::inotify::add_watch(&inotify, dir, events)
            .with_context(|| format!("cannot watch {}", dir.display()))?;
        Ok(SocketWatch { inotify: Readable::new(inotify)?, path: self.path.clone(), identity: self.identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            // Another process may have removed it just now: then there is nothing left to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Tells when a socket file is no longer ours. To be dropped before its [`SocketFile`].
#[derive(Debug)]
pub struct SocketWatch {
    inotify: Readable,
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketWatch {
    /// Resolves once the file is gone.
    ///
    /// # Errors
    /// The event loop is shutting down.
    pub async fn gone(&self) -> io::Result<()> {
        while identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let drain = |inotify: BorrowedFd<'_>| {
                // What the events say does not matter: the file is looked at anew.
                let mut events = [0; 4096];
                while rustix::io::read(inotify, &mut events).is_ok() {}
            };
            self.inotify.drain(drain).await?;
        }
        Ok(())
    }
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        // The umask has cut the mode.
        Ok(()) => Ok(fs::set_permissions(dir, fs::Permissions::from_mode(mode))?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot make {}: control sockets need root", dir.display()))
}

fn remove_stale(path: &Path, name: &str) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!("{} is in the way and is not a socket: remove it", path.display());
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another wgx or wireguard-go runs {name}: it listens on {}; stop it or choose another name",
            path.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the stale {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot tell whether {} is in use", path.display())),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("wgx-{test}-{}", std::process::id()))
    }

    #[test]
    fn the_file_is_private_and_goes_with_its_owner() {
        let dir = dir("private");
        let socket = SocketFile::bind(&dir, 0o755, "t").unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(socket.path())), (0o755, 0o600));
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir(dir).unwrap();
    }

    #[test]
    fn a_live_socket_is_an_error_and_a_stale_one_is_replaced() {
        let dir = dir("stale");
        let mut live = SocketFile::bind(&dir, 0o755, "t").unwrap();
        let error = SocketFile::bind(&dir, 0o755, "t").unwrap_err().to_string();
        assert!(error.contains("another wgx or wireguard-go runs t"), "{error}");
        // Closing the listener without removing the file is what a killed process leaves.
        drop(live.listener.take());
        let heir = SocketFile::bind(&dir, 0o755, "t").unwrap();
        drop(live);
        assert!(heir.is_ours(), "the former owner removed what was no longer its own");
        drop(heir);
        fs::remove_dir(dir).unwrap();
    }

    #[test]
    fn a_plain_file_is_never_removed() {
        let dir = dir("plain");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("t.sock"), "precious").unwrap();
        let error = SocketFile::bind(&dir, 0o755, "t").unwrap_err().to_string();
        assert!(error.contains("is not a socket"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn deleting_the_file_ends_the_watch() {
        let dir = dir("watch");
        let socket = SocketFile::bind(&dir, 0o755, "t").unwrap();
        let watch = socket.watch().unwrap();
        let (ended, ()) = tokio::join!(watch.gone(), async { fs::remove_file(socket.path()).unwrap() });
        ended.unwrap();
        drop(socket);
        fs::remove_dir(dir).unwrap();
    }
}
