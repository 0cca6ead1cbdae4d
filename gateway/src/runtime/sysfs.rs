//! Settings in sysfs that are ours for a time: changed, and put back as they were.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Files that were changed, until this is dropped: then each has again what was in it, unless somebody has set
/// something else since.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Without a lock, which a thread that panics might wait for in vain.
    made: Arc<ArcSwap<Vec<Change>>>,
}

/// One file and what was in it.
#[derive(Clone, Debug)]
struct Change {
    path: PathBuf,
    before: String,
    ours: String,
}

impl Changes {
    /// Sets the file at `path` to `ours`, unless what it holds, without blanks around it, `is_enough` already. True
    /// if it was changed.
    ///
    /// # Errors
    /// The file cannot be read or written, or `is_enough` fails; then it is left as it was.
    pub(super) fn make(
        &mut self,
        path: &Path,
        ours: &str,
        is_enough: impl FnOnce(&str) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let before = read(path).map_err(named)?;
        if is_enough(&before).map_err(named)? {
            return Ok(false);
        }
        // Known before it is made: a panic of another thread finds nothing to undo rather than nothing known.
        let mut made = self.made.load().to_vec();
        made.push(Change { path: path.to_owned(), before, ours: ours.to_owned() });
        self.made.store(Arc::new(made));
        write(path, ours).map_err(|error| {
            self.forget(path);
            named(error)
        })?;
        Ok(true)
    }

    /// Puts the file at `path` back, if it was changed.
    pub(super) fn undo(&mut self, path: &Path) {
        self.made.load().iter().filter(|change| change.path == path).for_each(Change::undo);
        self.forget(path);
    }

    /// Takes over what `other` changed.
    pub(super) fn absorb(&mut self, other: &Self) {
        let taken = other.made.swap(Arc::default());
        self.made.store(Arc::new(self.made.load().iter().chain(taken.iter()).cloned().collect()));
    }

    /// Undoes all before a panic ends the process, too. To be called when the hook that ends it is in place; what is
    /// changed later is undone as well.
    pub(super) fn undo_on_panic(&self) {
        let made = Arc::clone(&self.made);
        let end = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            made.load().iter().for_each(Change::undo);
            end(panic);
        }));
    }

    fn forget(&self, path: &Path) {
        let others = self.made.load().iter().filter(|change| change.path != path).cloned().collect();
        self.made.store(Arc::new(others));
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.made.swap(Arc::default()).iter().for_each(Change::undo);
    }
}

impl Change {
    /// Puts back what was there, unless somebody has set something else since.
    fn undo(&self) {
        let outcome = match read(&self.path) {
            Ok(present) if present == self.ours => write(&self.path, &self.before),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        // The device may be gone, and its settings with it.
        if let Err(error) = outcome.or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!("cannot set {} back to {}: {error}", self.path.display(), self.before);
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    // Never creates: where the kernel has no such setting there is nothing to set.
    let mut file = fs::File::options().write(true).truncate(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// A directory with settings, as sysfs has them.
#[cfg(test)]
pub(super) mod fake {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// Goes away with the test.
    pub(in crate::runtime) struct FakeSysfs(pub(in crate::runtime) PathBuf);

    impl FakeSysfs {
        /// With files, named by their path below it, and their contents.
        pub(in crate::runtime) fn new(test: &str, settings: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("wgx-sysfs-{}-{test}", std::process::id()));
            fs::create_dir(&path).expect("create");
            for (name, value) in settings {
                let file = path.join(name);
                fs::create_dir_all(file.parent().expect("a parent")).expect("create");
                fs::write(file, value).expect("write");
            }
            Self(path)
        }

        /// What a file holds; nothing where there is none.
        pub(in crate::runtime) fn value(&self, name: &str) -> String {
            read(&self.0.join(name)).unwrap_or_default()
        }

        /// Runs the test called `name` of this program in a process of its own, which has to die of a panic that
        /// says `word`. The directory is the value of `variable` there.
        pub(in crate::runtime) fn dies_of_a_panic(&self, name: &str, variable: &str, word: &str) {
            let output = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", name, "--nocapture"])
                .env(variable, &self.0)
                .output()
                .expect("a process");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{told}");
            assert!(told.contains(word), "{told}");
        }
    }

    impl Drop for FakeSysfs {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("remove");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeSysfs;
    use super::*;

    const NEVER: fn(&str) -> io::Result<bool> = |_| Ok(false);

    #[test]
    fn one_file_is_put_back_and_the_others_stay_changed() {
        let sysfs = FakeSysfs::new("one", &[("a", "1\n"), ("b", "2\n")]);
        let mut changes = Changes::default();
        for name in ["a", "b"] {
            assert!(changes.make(&sysfs.0.join(name), "9", NEVER).expect("made"));
        }
        changes.undo(&sysfs.0.join("a"));
        assert_eq!([sysfs.value("a"), sysfs.value("b")], ["1", "9"]);
        fs::write(sysfs.0.join("a"), "9").expect("write");
        drop(changes);
        assert_eq!(
            [sysfs.value("a"), sysfs.value("b")],
            ["9", "2"],
            "what was put back is nobody's any more"
        );
    }

    #[test]
    fn what_is_absorbed_is_undone_with_the_whole() {
        let sysfs = FakeSysfs::new("absorbed", &[("a", "1\n"), ("b", "2\n")]);
        let (mut whole, mut part) = (Changes::default(), Changes::default());
        whole.make(&sysfs.0.join("a"), "9", NEVER).expect("made");
        part.make(&sysfs.0.join("b"), "9", NEVER).expect("made");
        whole.absorb(&part);
        drop(part);
        assert_eq!([sysfs.value("a"), sysfs.value("b")], ["9", "9"]);
        drop(whole);
        assert_eq!([sysfs.value("a"), sysfs.value("b")], ["1", "2"]);
    }

    #[test]
    fn a_setting_that_is_enough_or_missing_is_not_changed() {
        let sysfs = FakeSysfs::new("enough", &[("a", "5\n")]);
        let mut changes = Changes::default();
        assert!(!changes.make(&sysfs.0.join("a"), "9", |present| Ok(present == "5")).expect("read"));
        let error = changes.make(&sysfs.0.join("b"), "9", NEVER).expect_err("no file");
        assert!(error.to_string().contains("/b: "), "{error}");
        drop(changes);
        assert_eq!([sysfs.value("a"), sysfs.value("b")], ["5", ""]);
        assert!(!sysfs.0.join("b").exists());
    }
}
