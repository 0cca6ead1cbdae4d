//! A laboratory: namespaces, the links between them and the programs inside, removed together.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    Namespace, Process, process,
    registry::{self, Registry},
};

/// Offloads that would let partial checksums and super-frames reach XDP.
const OFFLOADS: [&str; 6] = ["rx", "tx", "gso", "tso", "gro", "sg"];

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct LinkEnd<'a> {
    /// Where the interface is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub interface: &'a str,
}

/// Everything one test or demo makes; dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    namespaces: Vec<Namespace>,
    interfaces: Vec<String>,
    kept: bool,
}

impl Lab {
    /// An empty laboratory with names of its own. Removes what dead runs have left.
    pub fn new() -> Result<Self> {
        registry::remove_stale();
        Self::with_prefix(registry::namespace_prefix(), false)
    }

    /// A laboratory that stays when this process ends; [`registry::remove_prefixed`] removes it.
    pub fn kept(prefix: &str) -> Result<Self> {
        registry::remove_stale();
        Self::with_prefix(prefix.to_owned(), true)
    }

    fn with_prefix(prefix: String, kept: bool) -> Result<Self> {
        registry::install_signal_handler();
        let folder = Path::new(registry::FOLDERS).join(&prefix);
        let mut registry = Registry::lock();
        registry.add_folder(&folder);
        // Private keys pass through configuration files in here.
        create_folder(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        drop(registry);
        Ok(Self { prefix, folder, namespaces: Vec::new(), interfaces: Vec::new(), kept })
    }

    /// Makes a namespace for `role`.
    pub fn namespace(&mut self, role: &str) -> Result<Namespace> {
        let namespace = Namespace::create(&format!("{}-{role}", self.prefix), !self.kept)?;
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// A name for a tunnel interface; its sockets are removed with the laboratory.
    ///
    /// Unique on the machine, or in a kept laboratory `WISH`, to be easy to type.
    pub fn interface_name(&mut self, wish: &str) -> String {
        let name = if self.kept { wish.to_owned() } else { registry::interface_name() };
        Registry::lock().add_interface(&name);
        self.interfaces.push(name.clone());
        name
    }

    /// Joins two namespaces by a veth pair of `queue_count` queues each way, up and without offloads.
    pub fn link(&self, left: LinkEnd<'_>, right: LinkEnd<'_>, queue_count: u32) -> Result<()> {
        let queues = format!("numtxqueues {queue_count} numrxqueues {queue_count}");
        left.namespace.ip(&format!(
            "link add name {} {queues} type veth peer name {} {queues} netns {}",
            left.interface,
            right.interface,
            right.namespace.name(),
        ))?;
        for end in [left, right] {
            for offload in OFFLOADS {
                // Not every kernel lets every one of them be changed.
                let line = format!("ethtool -K {} {offload} off", end.interface);
                end.namespace.attempt(&line, std::time::Duration::from_secs(30))?;
            }
            end.namespace.ip(&format!("link set {} up", end.interface))?;
        }
        Ok(())
    }

    /// Starts a program in the background; `label` names its log.
    pub fn spawn(&self, label: &str, command: &mut Command) -> Result<Process> {
        Process::spawn(label, &self.folder, command)
    }

    /// Writes a file only we may read, in the laboratory's folder.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        use std::io::Write as _;
        let path = self.folder.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// The folder of logs and configuration files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The namespaces made so far.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// The last lines of every program's log.
    pub fn tails(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(&self.folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        logs.retain(|path: &PathBuf| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        logs.iter().map(|log| process::tail(log)).collect::<Vec<_>>().join("\n")
    }

    /// Leaves everything up, also when this process is told to end.
    pub fn keep(self) {
        let mut registry = Registry::lock();
        for namespace in &self.namespaces {
            registry.forget_namespace(namespace.name());
        }
        for interface in &self.interfaces {
            registry.forget_interface(interface);
        }
        registry.forget_folder(&self.folder);
        drop(registry);
        std::mem::forget(self);
    }
}

/// Makes a laboratory's folder, and the folder of folders, which another process may remove in between.
fn create_folder(folder: &Path) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 10 => attempts += 1,
            outcome => return outcome,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tails());
        }
        for namespace in &self.namespaces {
            namespace.remove();
        }
        let mut registry = Registry::lock();
        for interface in &self.interfaces {
            registry::remove_sockets(interface);
            registry.forget_interface(interface);
        }
        registry::remove_folder(&self.folder);
        registry.forget_folder(&self.folder);
    }
}
