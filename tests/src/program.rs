//! Programs the laboratory uses, and running one to its end in bounded time.

use std::{
    env,
    ffi::OsString,
    io::Read,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// `PATH` with the places of system administration behind it: `ip` is not on every user's path.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Where a program of this name is.
pub fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A command with the laboratory's search path and the output format our parsers expect.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.env("PATH", search_path()).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    std::iter::once(name)
        .chain(command.get_args().map(|word| word.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command to its end, whatever that is; one that outlives `timeout` is killed and an error.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Outcome> {
    let line = shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` did not start"))?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() >= timeout {
            // Both only fail when it has ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    match status {
        Some(status) => Ok(Outcome { status, stdout, stderr }),
        None => bail!("`{line}` did not end within {} s; it wrote:\n{stdout}{stderr}", timeout.as_secs()),
    }
}

/// Runs a command that has to succeed and returns its standard output.
pub fn output(command: &mut Command, timeout: Duration) -> Result<String> {
    let outcome = run(command, timeout)?;
    if !outcome.status.success() {
        bail!(
            "`{}` failed ({}): {}{}",
            shown(command),
            outcome.status,
            outcome.stderr.trim(),
            outcome.stdout.trim()
        );
    }
    Ok(outcome.stdout)
}

/// Reads a pipe to its end beside us, so that a program that writes much does not block.
fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended_and_reported() {
        let error = run(command("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("`sleep 60` did not end"), "{error}");
    }

    #[test]
    fn a_command_that_fails_is_shown_with_its_errors() {
        let error = output(command("ls").arg("/nonexistent"), Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("`ls /nonexistent` failed"), "{error}");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
