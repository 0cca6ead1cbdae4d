//! The load generator as a program: a [`Setup`] and then [`Trial`]s come in as lines of JSON, an [`Answer`] goes out
//! for each.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use bench::load::{Answer, Generator, Setup, Trial, claim_core};
use clap::Parser;
use serde::de::DeserializeOwned;

/// Puts load on a gateway over AF_XDP and measures what comes of it. Reads one line of JSON that says where it is, and
/// then one per trial; answers each by a line. Ends with its input.
#[derive(Parser)]
#[command(name = "wgx-load")]
struct Arguments {
    /// Run on this CPU, by the kernel's number.
    #[arg(long, value_name = "CPU")]
    core: Option<u32>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(core) = arguments.core {
        claim_core(core)?;
    }
    let mut lines = io::stdin().lock().lines();
    let Some(first) = lines.next() else { return Ok(()) };
    let setup = parse::<Setup>(&first?, "a setup").and_then(Generator::new);
    let mut generator = match setup {
        Ok((generator, ready)) => {
            say(&Answer::Ready { ready })?;
            generator
        }
        Err(error) => return say(&failure(&error)),
    };
    for line in lines {
        let outcome = parse::<Trial>(&line?, "a trial").and_then(|trial| generator.trial(&trial));
        match outcome {
            Ok(outcome) => say(&Answer::Outcome(Box::new(outcome)))?,
            Err(error) => say(&failure(&error))?,
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(line: &str, what: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("the line is not {what}"))
}

fn failure(error: &anyhow::Error) -> Answer {
    Answer::Error { error: format!("{error:#}") }
}

fn say(answer: &Answer) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, answer)?;
    writeln!(stdout)?;
    stdout.flush().context("nobody reads the answers")
}
