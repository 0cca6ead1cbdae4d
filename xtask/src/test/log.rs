//! The file to which tests write what they skipped and what they measured.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::matrix::Matrix;

/// An empty log at a path that tests are told.
pub struct Log {
    pub path: PathBuf,
}

/// What tests wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries {
    pub skipped: Vec<Skip>,
    pub matrix: Matrix,
    pub notes: Vec<String>,
}

/// A test that did not run.
#[derive(Debug, PartialEq, Eq)]
pub struct Skip {
    pub test: String,
    pub why: String,
}

impl Log {
    pub fn create(path: &Path) -> Result<Self> {
        fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Says that `check` was skipped, as a test does.
    pub fn skip(&self, check: &str, why: &str) -> Result<()> {
        self.append(&format!("skipped: {check}: {why}"))
    }

    /// Adds to the report what `check` found, as a test does.
    pub fn note(&self, check: &str, text: &str) -> Result<()> {
        self.append(&format!("note: {check}: {text}"))
    }

    fn append(&self, line: &str) -> Result<()> {
        let file = OpenOptions::new().append(true).open(&self.path);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub fn read(&self) -> Result<Entries> {
        let text =
            fs::read_to_string(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(parse(&text))
    }
}

/// Lines of another kind are shown as they are: better odd than lost.
fn parse(text: &str) -> Entries {
    let mut entries = Entries::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix("skipped: ") {
            Some(skip) => {
                let (test, why) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
                entries.skipped.push(Skip { test: test.to_owned(), why: why.to_owned() });
            }
            None if entries.matrix.add(line) => {}
            None => entries.notes.push(line.to_owned()),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_notes_and_cells_are_told_apart() {
        let cell = "interop: gotatun 1.0 | initiator | v4 | v6 | none | udp";
        let entries =
            parse(&format!("skipped: a::b: needs root: or so\nnote: c: 5 ns\n\n{cell}\nskipped: d\n"));
        let skip = |test: &str, why: &str| Skip { test: test.into(), why: why.into() };
        assert_eq!(entries.skipped, [skip("a::b", "needs root: or so"), skip("d", "no reason given")]);
        assert!(!entries.matrix.is_empty());
        assert_eq!(entries.notes, ["note: c: 5 ns"]);
    }
}
