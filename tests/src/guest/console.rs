//! Commands to the guest over a serial port: a numbered line there, output and an exit code back.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Each look at the port; the whole wait is the caller's.
const LOOK: Duration = Duration::from_millis(100);
/// More than this is no answer but a program gone wild.
const REPLY_LEN_MAX: usize = 8 << 20;

/// How a command in the guest ended and what it wrote, errors included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its exit code.
    pub code: u32,
    /// Standard output and standard error, as they came.
    pub output: String,
}

/// Our end of the port.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    number: u64,
    /// The command that never answered: what comes next would be its reply.
    stuck_at: Option<String>,
}

impl Console {
    /// Talks over `stream`.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        Ok(Self { stream, number: 0, stuck_at: None })
    }

    /// Runs one line of shell; `shown` is what errors may say of it.
    pub fn run(&mut self, line: &str, shown: &str, timeout: Duration) -> Result<Reply> {
        ensure!(!line.contains('\n'), "one line of shell at a time: `{shown}`");
        if let Some(before) = &self.stuck_at {
            bail!("`{shown}`: the guest has not answered `{before}` yet");
        }
        self.number += 1;
        let asked = format!("{} {line}\n", self.number);
        self.stream.write_all(asked.as_bytes()).with_context(|| format!("`{shown}` cannot be sent"))?;
        self.stuck_at = Some(shown.to_owned());
        let reply = self.reply(timeout).with_context(|| format!("`{shown}` in the guest"))?;
        self.stuck_at = None;
        Ok(reply)
    }

    fn reply(&mut self, timeout: Duration) -> Result<Reply> {
        let start = Instant::now();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = parse(&bytes, self.number) {
                return Ok(reply);
            }
            let so_far = || String::from_utf8_lossy(&bytes).into_owned();
            ensure!(start.elapsed() < timeout, "no answer within {} s: {}", timeout.as_secs(), so_far());
            ensure!(bytes.len() < REPLY_LEN_MAX, "it does not stop writing");
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the guest is gone; it wrote: {}", so_far()),
                Ok(len) => bytes.extend_from_slice(&buffer[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The reply to command `number`, once its last line is there.
fn parse(bytes: &[u8], number: u64) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes);
    let body = text.strip_suffix('\n')?;
    let (output, last) = body.rsplit_once('\n')?;
    let code = last.strip_prefix(&format!("@done {number} "))?.parse().ok()?;
    Some(Reply { code, output: output.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        thread,
    };

    use super::*;

    /// A guest that answers `count` lines with `answer`.
    fn guest(count: usize, answer: fn(&str) -> String) -> Console {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            for line in lines.take(count) {
                theirs.write_all(answer(&line.unwrap()).as_bytes()).unwrap();
            }
        });
        Console::new(ours).unwrap()
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let mut console = guest(2, |line| format!("heard {line}\n\n@done {} 3\n", &line[..1]));
        for number in 1..=2 {
            let reply = console.run("true", "true", Duration::from_secs(10)).unwrap();
            assert_eq!(reply, Reply { code: 3, output: format!("heard {number} true\n") });
        }
    }

    #[test]
    fn a_silent_guest_is_not_asked_again() {
        let mut console = guest(1, |_| String::new());
        let error = console.run("sleep 9", "sleep 9", Duration::ZERO).unwrap_err();
        assert!(format!("{error:#}").contains("`sleep 9` in the guest: no answer"), "{error:#}");
        let error = console.run("true", "true", Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("not answered `sleep 9`"), "{error}");
    }

    #[test]
    fn a_guest_that_dies_is_reported_with_its_last_words() {
        let mut console = guest(1, |_| "Kernel panic".into());
        let error = console.run("true", "true", Duration::from_secs(10)).unwrap_err();
        assert!(format!("{error:#}").contains("gone; it wrote: Kernel panic"), "{error:#}");
    }

    #[test]
    fn what_a_program_prints_does_not_pass_for_the_end() {
        assert_eq!(parse(b"@done 1 0\nmore", 2), None);
        assert_eq!(parse(b"@done 1 0\n\n@done 2 0\n", 2).unwrap().output, "@done 1 0\n");
    }
}
