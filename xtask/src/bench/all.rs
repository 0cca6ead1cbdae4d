//! `cargo xtask bench all`: every benchmark after the other, and what they come to.
//!
//! Each runs as a program of its own: what one leaves behind in its process cannot disturb the next, and one that fails
//! does not take the others with it.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{docs, session};
use crate::{
    command::{root, run, shown, target_dir},
    demo::console::Console,
};

/// Options.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only what the goals take, in shorter trials: less than ten minutes.
    #[arg(long)]
    quick: bool,

    /// Write the results into the book at the end.
    #[arg(long)]
    docs: bool,
}

/// A benchmark that prints, and leaves no report.
pub struct Other {
    /// Its subcommand.
    pub name: &'static str,
    /// What the book calls it.
    pub title: &'static str,
    quick: &'static [&'static str],
    full: &'static [&'static str],
}

/// Those there may be: of each, its options in the quick and the long form.
pub const OTHERS: [Other; 4] = [
    Other { name: "profile", title: "Where the time goes", quick: &["--quick"], full: &[] },
    Other { name: "aead", title: "The cipher", quick: &["--quick"], full: &[] },
    Other { name: "path", title: "Stages of the data path", quick: &["--quick"], full: &[] },
    Other {
        name: "handshake",
        title: "Handshakes, and media in a storm of them",
        quick: &["--rounds", "1", "--seconds", "3"],
        full: &[],
    },
];

/// Those with a report.
const WITH_REPORT: [&str; 3] = ["gateway", "latency", "scale"];

/// Runs all there are, prints the goals and writes the book if asked to. `subcommands` are the benchmarks there are.
pub fn run_all(args: &Args, subcommands: &[String]) -> Result<()> {
    let console = Console::start();
    let start = Instant::now();
    let mut failures = Vec::new();
    for name in WITH_REPORT {
        console.say("bench", name);
        let mut command = own(name)?;
        command.args(args.quick.then_some("--quick"));
        failures.extend(run(&mut command).err());
    }
    for other in OTHERS.iter().filter(|other| subcommands.iter().any(|name| name == other.name)) {
        console.say("bench", other.name);
        let mut command = own(other.name)?;
        command.args(if args.quick { other.quick } else { other.full });
        failures.extend(keep_output(&mut command, other.name).err());
    }
    // What was there before is no result of this run.
    if let Some((report, _)) = docs::merged(start.elapsed() + Duration::from_secs(1))? {
        session::print(&report);
        for plot in docs::plot_beside(&report)? {
            println!("  {}: {}", plot.title, plot.path.display());
        }
    }
    console.say("end", &format!("{} failures", failures.len()));
    if args.docs && failures.is_empty() {
        docs::write()?;
    }
    if !failures.is_empty() {
        let failures: Vec<_> = failures.iter().map(|error| format!("{error:#}")).collect();
        bail!("not all benchmarks ran: {}", failures.join("; "));
    }
    Ok(())
}

/// Where the output of a benchmark without a report is kept, its command in the first line.
pub fn text_path(name: &str) -> PathBuf {
    target_dir().join("bench").join(name).with_extension("txt")
}

fn own(name: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["bench", name]);
    Ok(command)
}

/// Shows what a command prints and keeps it, when it succeeds.
fn keep_output(command: &mut Command, name: &str) -> Result<()> {
    let typed = shown(command);
    let typed = typed.split_once(' ').map_or(typed.clone(), |(_, words)| format!("cargo xtask {words}"));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{typed}` did not start"))?;
    let mut kept = format!("{typed}\n");
    for line in BufReader::new(child.stdout.take().context("a piped output")?).lines() {
        let line = line?;
        writeln!(std::io::stdout(), "{line}")?;
        // Progress has a time before it; the book gets the tables.
        if !is_progress(&line) {
            // Nor does where this machine keeps the sources belong in it.
            kept.push_str(&line.replace(&format!("{}/", root().display()), ""));
            kept.push('\n');
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{typed}` failed ({status})");
    }
    let path = text_path(name);
    fs::create_dir_all(path.parent().context("the file is in a folder")?)?;
    fs::write(&path, kept).with_context(|| format!("{} cannot be written", path.display()))
}

/// A line of [`Console::say`]: seconds, then a word.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|word| word.parse::<f64>().is_ok()) && words.next() == Some("s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_told_from_results() {
        assert!(is_progress("  12.5 s  round      1 of 3"));
        assert!(!is_progress("  quiet  161 (158..179)"));
        assert!(!is_progress(""));
    }

    #[test]
    fn output_is_kept_with_its_command_unless_it_fails() {
        let name = format!("test-{}", std::process::id());
        let echo = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        keep_output(&mut echo("echo '1.0 s up'; echo table"), &name).unwrap();
        let kept = fs::read_to_string(text_path(&name)).unwrap();
        fs::remove_file(text_path(&name)).unwrap();
        assert!(kept.starts_with("cargo xtask -c ") && kept.ends_with("\ntable\n"), "{kept}");
        assert!(keep_output(&mut echo("exit 3"), &name).unwrap_err().to_string().contains("failed"));
        assert!(!text_path(&name).exists());
    }
}
