//! Where a running gateway can be asked: a Unix socket per tunnel that writes one JSON object and closes.

use std::{
    fs,
    io::{ErrorKind, Read},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::config::is_tunnel_name;

/// A gateway that does not answer for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes: far above what the most peers come to.
const ANSWER_LEN_MAX: u64 = 1 << 30;

/// Where the sockets are.
pub fn directory() -> &'static Path {
    Path::new("/var/run/wgx")
}

/// Names of the gateways that listen, sorted. Sockets left behind by killed ones are not among them.
pub fn running(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}: are you root?", directory.display()));
        }
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sock")?.to_owned()))
        .filter(|name| is_tunnel_name(name))
        .filter(|name| UnixStream::connect(directory.join(format!("{name}.sock"))).is_ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Asks the gateway called `name`.
pub fn ask(directory: &Path, name: &str) -> Result<Value> {
    if !is_tunnel_name(name) {
        bail!("{name:?} is no name of a tunnel: `wgx status` without a name lists those that run");
    }
    let path = directory.join(format!("{name}.sock"));
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!("no gateway called {name:?} runs: `wgx status` without a name lists those that do")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot ask at {}: are you root?", path.display()));
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_LEN_MAX)
        .read_to_end(&mut answer)
        .with_context(|| format!("gateway {name:?} did not answer within {} s", PATIENCE.as_secs()))?;
    serde_json::from_slice(&answer)
        .with_context(|| format!("gateway {name:?} answered what this version of wgx does not understand"))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixListener, path::PathBuf};

    use super::*;

    /// A directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wgx-status-{}-{test}", std::process::id()));
            fs::create_dir(&path).expect("directory");
            Self(path)
        }

        /// Answers every connection with `answer`; ends with the test process.
        fn serve(&self, name: &str, answer: &'static [u8]) {
            let listener = UnixListener::bind(self.0.join(format!("{name}.sock"))).expect("bind");
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    // A probe of `running` has gone away by now: that is its business.
                    let _ = stream.expect("stream").write_all(answer);
                }
            });
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove");
        }
    }

    #[test]
    fn those_that_listen_are_listed_and_answer() {
        let scratch = Scratch::new("listen");
        scratch.serve("wg1", br#"{"name":"wg1"}"#);
        scratch.serve("wg0", br#"{"name":"wg0"}"#);
        drop(UnixListener::bind(scratch.0.join("dead.sock")).expect("bind"));
        fs::write(scratch.0.join("other.txt"), "").expect("write");
        assert_eq!(running(&scratch.0).expect("running"), ["wg0", "wg1"]);
        assert_eq!(ask(&scratch.0, "wg1").expect("answer")["name"], "wg1");
    }

    #[test]
    fn what_does_not_run_is_said_not_to() {
        let scratch = Scratch::new("dead");
        drop(UnixListener::bind(scratch.0.join("dead.sock")).expect("bind"));
        for name in ["dead", "none", "../etc"] {
            let error = ask(&scratch.0, name).expect_err(name).to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
        assert_eq!(running(&scratch.0.join("no-such")).expect("running"), Vec::<String>::new());
    }

    #[test]
    fn an_answer_that_is_no_json_is_an_error() {
        let scratch = Scratch::new("garbage");
        scratch.serve("wg0", b"{\"name\":");
        assert!(ask(&scratch.0, "wg0").is_err());
    }
}
