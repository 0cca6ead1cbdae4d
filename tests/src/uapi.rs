//! A client of the configuration socket that says exactly what it is told to, be it nonsense.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// An answer that takes longer does not come.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Where the socket of a tunnel is.
pub fn path(interface: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{interface}.sock"))
}

/// A connection.
#[derive(Debug)]
pub struct Uapi {
    stream: UnixStream,
    /// Read, but no part of an answer that was taken yet.
    pending: Vec<u8>,
}

impl Uapi {
    /// Connects to a tunnel's socket.
    pub fn connect(interface: &str) -> Result<Self> {
        let path = path(interface);
        let stream =
            UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// The next answer, with the empty line it ends with.
    pub fn answer(&mut self) -> Result<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.pending.split_off(searched + at + 2);
                return Ok(String::from_utf8(std::mem::replace(&mut self.pending, rest))?);
            }
            searched = self.pending.len().saturating_sub(1);
            self.hear()?;
        }
    }

    /// Waits until something is said, a part of an answer at most, and keeps it for [`Uapi::answer`].
    pub fn hear(&mut self) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        let len = self.stream.read(&mut bytes).context("no answer")?;
        ensure!(len > 0, "closed after {:?}", String::from_utf8_lossy(&self.pending));
        self.pending.extend_from_slice(&bytes[..len]);
        Ok(())
    }

    /// Whether the other side has closed, once all it said is read.
    pub fn is_closed(&mut self) -> Result<bool> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(true),
            Ok(_) => bail!("something more was said"),
            // What it did not read when it closed.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request and returns the answer to it.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        self.send(request)?;
        self.answer()
    }

    /// `get`: all lines but `errno=0`, which it has to end with.
    pub fn get(&mut self) -> Result<String> {
        let answer = self.ask("get=1\n\n")?;
        let lines =
            answer.strip_suffix("errno=0\n\n").with_context(|| format!("a get ends with {answer:?}"))?;
        Ok(lines.to_owned())
    }

    /// `set` with these lines, and the error number it is answered with.
    pub fn set(&mut self, lines: &str) -> Result<i32> {
        errno(&self.ask(&format!("set=1\n{lines}\n"))?)
    }
}

/// The number in an answer that is nothing but one.
pub fn errno(answer: &str) -> Result<i32> {
    let number = answer.strip_prefix("errno=").and_then(|rest| rest.strip_suffix("\n\n"));
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no error number: {answer:?}"))
}

/// A key that nobody has the private half of.
pub fn key(number: u32) -> String {
    // Not of low order, whatever the number.
    format!("{:064x}", u128::from(number) << 64 | 0x5eed)
}

/// The lines of a `get` that a `set` takes: configuration without state, sorted within each peer's allowed IPs.
pub fn configuration(get: &str) -> String {
    let mut text = String::new();
    let mut allowed_ips = Vec::new();
    for line in get.lines().chain([""]) {
        if line.starts_with("allowed_ip=") {
            allowed_ips.push(line);
            continue;
        }
        allowed_ips.sort_unstable();
        for allowed_ip in allowed_ips.drain(..) {
            let _ = writeln!(text, "{allowed_ip}");
        }
        if !["last_handshake", "tx_bytes", "rx_bytes"].iter().any(|state| line.starts_with(state))
            && !line.is_empty()
        {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_by_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut uapi = Uapi { stream: ours, pending: Vec::new() };
        (&theirs).write_all(b"errno=-22\n\nlisten_port=1\nerrno=0\n\n").unwrap();
        drop(theirs);
        assert_eq!(errno(&uapi.answer().unwrap()).unwrap(), -22);
        assert_eq!(uapi.answer().unwrap(), "listen_port=1\nerrno=0\n\n");
        assert!(uapi.is_closed().unwrap());
        assert!(uapi.answer().is_err());
    }

    #[test]
    fn configuration_leaves_state_out_and_sorts_prefixes() {
        let get = "public_key=a\ntx_bytes=1\nallowed_ip=b\nallowed_ip=a\npublic_key=b\nallowed_ip=c\n";
        assert_eq!(
            configuration(get),
            "public_key=a\nallowed_ip=a\nallowed_ip=b\npublic_key=b\nallowed_ip=c\n"
        );
    }
}
