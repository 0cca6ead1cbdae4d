//! Where the log goes and how much of it: to stderr, a file or the system's log; by `--log`, else by the
//! environment, else `info`.

mod syslog;

use std::{
    fs::File,
    io::{self, IsTerminal, Write, stderr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use syslog::Syslog;

const VARIABLE: &str = "RUST_LOG";
/// wireguard-go's, for `wgx NAME`.
const LEVEL_VARIABLE: &str = "LOG_LEVEL";
/// What `--log-file` says, for those who cannot give `wgx NAME` an option: callers of `wg-quick`.
const FILE_VARIABLE: &str = "WGX_LOG_FILE";

/// Accepts what [`EnvFilter`] can read.
pub fn directives(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!("{error}: use a level (error, warn, info, debug, trace) or target=level,...")
    })
}

/// In which way the program was called, as far as the log is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// `wgx COMMAND`.
    Command,
    /// `wgx NAME`, as long as somebody is listening on stderr.
    Tunnel,
    /// `wgx NAME` in the background.
    Background,
}

/// Starts the log of this process.
///
/// # Errors
///
/// When the environment variable cannot be read, or the file not be written.
pub fn start(flag: Option<&str>, file: Option<&Path>, caller: Caller) -> Result<()> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let is_tunnel = caller != Caller::Command;
    let from_environment = || {
        let level = is_tunnel.then(|| variable(LEVEL_VARIABLE)).flatten();
        level.as_deref().and_then(level_of_wireguard_go).map(str::to_owned).or_else(|| variable(VARIABLE))
    };
    let text = flag.map(str::to_owned).or_else(from_environment).unwrap_or_else(|| "info".to_owned());
    let filter =
        EnvFilter::try_new(&text).with_context(|| format!("{VARIABLE}={text:?} is no log filter"))?;
    let file = file
        .map(Path::to_owned)
        .or_else(|| is_tunnel.then(|| variable(FILE_VARIABLE)).flatten().map(PathBuf::from));
    let sink = match (file, caller) {
        (Some(path), _) => Sink::File(open(&path)?),
        (None, Caller::Background) => Sink::Syslog(Syslog::system()),
        (None, _) => Sink::Stderr,
    };
    init(sink, filter, caller);
    Ok(())
}

fn init(sink: Sink, filter: EnvFilter, caller: Caller) {
    let is_terminal = matches!(sink, Sink::Stderr) && stderr().is_terminal();
    let is_deaf = matches!(&sink, Sink::Syslog(syslog) if !syslog.is_heard());
    let keeps_time = matches!(sink, Sink::Syslog(_));
    let writer = Writer { sink, echoes_warnings: caller == Caller::Background };
    // A log that cannot be written is no reason to stop forwarding packets: such lines are dropped.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(is_terminal);
    if keeps_time {
        log.without_time().init();
    } else {
        log.init();
    }
    if caller == Caller::Background {
        log_panics();
    }
    if is_deaf {
        tracing::warn!(
            "no system log listens on {}: the log is lost until one does; name a file by --log-file or {FILE_VARIABLE}",
            syslog::PATH
        );
    }
}

/// A process in the background has no standard error that would show its last words.
fn log_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        report(panic);
    }));
}

/// What wireguard-go's levels come to; our own names are taken too, and anything else counts as not given.
fn level_of_wireguard_go(level: &str) -> Option<&'static str> {
    Some(match level {
        "verbose" | "debug" => "debug",
        "error" => "error",
        "silent" => "off",
        "info" => "info",
        "warn" => "warn",
        "trace" => "trace",
        _ => return None,
    })
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().append(true).create(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot write the log to {}", path.display()))
}

enum Sink {
    Stderr,
    File(File),
    Syslog(Syslog),
}

/// Makes a writer for each line.
struct Writer {
    sink: Sink,
    /// Warnings go to stderr too: whoever starts a daemon sees them there until it is ready.
    echoes_warnings: bool,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { writer: self, level: *metadata.level() }
    }
}

/// Takes one line, which comes in one piece.
struct Line<'a> {
    writer: &'a Writer,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match &self.writer.sink {
            Sink::Stderr => stderr().write_all(text)?,
            Sink::File(file) => {
                let mut file = file;
                file.write_all(text)?;
            }
            Sink::Syslog(syslog) => syslog.send(self.level, text),
        }
        if self.writer.echoes_warnings && self.level == Level::WARN {
            stderr().write_all(text)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wireguard_go_s_levels_are_understood() {
        for (given, expected) in [
            ("verbose", Some("debug")),
            ("debug", Some("debug")),
            ("error", Some("error")),
            ("silent", Some("off")),
            ("LOUD", None),
        ] {
            assert_eq!(level_of_wireguard_go(given), expected, "{given}");
        }
    }

    #[test]
    fn a_log_file_is_private_and_appended_to() {
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("wgx-log-{}", std::process::id()));
        for line in ["one\n", "two\n"] {
            let writer = Writer { sink: Sink::File(open(&path).unwrap()), echoes_warnings: false };
            writer.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::remove_file(path).unwrap();
        assert!(open(Path::new("/nonexistent/log")).is_err());
    }
}
