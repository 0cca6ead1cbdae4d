//! The system's log: datagrams to `/dev/log` in the format of RFC 3164, which syslogd and journald both take.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
};

use tracing::Level;

/// Where the system's log listens.
pub const PATH: &str = "/dev/log";
/// Facility `daemon` (RFC 3164, 4.1.1).
const FACILITY: u8 = 3 << 3;

/// A way to the system's log. It is looked for again whenever it was lost, or not there yet.
pub struct Syslog {
    path: PathBuf,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Syslog {
    /// The one of this system.
    pub fn system() -> Self {
        Self::at(Path::new(PATH))
    }

    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: Mutex::new(connect(path)) }
    }

    /// Whether somebody listens now.
    pub fn is_heard(&self) -> bool {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sends one line. It is lost when nobody listens, or not fast enough: the caller has better to do than wait.
    pub fn send(&self, level: Level, line: &[u8]) {
        let head = format!("<{}>wgx[{}]: ", FACILITY | severity(level), process::id());
        let message = [head.as_bytes(), line.trim_ascii_end()].concat();
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let is_sent = socket.as_ref().is_some_and(|socket| socket.send(&message).is_ok());
        if !is_sent {
            *socket = connect(&self.path);
            if let Some(socket) = &*socket {
                let _ = socket.send(&message);
            }
        }
    }
}

fn connect(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_comes_late_or_comes_again_is_found() {
        let path = std::env::temp_dir().join(format!("wgx-syslog-{}", process::id()));
        let syslog = Syslog::at(&path);
        assert!(!syslog.is_heard());
        syslog.send(Level::WARN, b"lost\n");
        for (level, priority) in [(Level::WARN, 28), (Level::INFO, 30), (Level::ERROR, 27)] {
            let listener = UnixDatagram::bind(&path).unwrap();
            syslog.send(level, b"heard\n");
            let mut message = [0; 64];
            let len = listener.recv(&mut message).unwrap();
            let expected = format!("<{priority}>wgx[{}]: heard", process::id());
            assert_eq!(str::from_utf8(&message[..len]).unwrap(), expected);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
