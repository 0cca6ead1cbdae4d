//! UDP datagrams recorded by `tcpdump` on one interface.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::{Lab, Namespace, Process, pcap::udp_payloads, wait_until};

/// A running recorder. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Records what matches `filter` on `interface`. Where an XDP program takes frames away, they are not seen:
    /// record at the other end of the link.
    pub fn start(lab: &Lab, namespace: &Namespace, interface: &str, filter: &str) -> Result<Self> {
        let file = lab.folder().join(format!("{}-{interface}.pcap", namespace.name()));
        // One that was here before must not be read as this one's.
        let _ = fs::remove_file(&file);
        let mut command = namespace.command("tcpdump");
        command
            .args(["-Z", "root", "-U", "--immediate-mode", "-n", "-i", interface, "-w"])
            .arg(&file)
            .arg(filter);
        let label = format!("tcpdump-{}-{interface}", namespace.name());
        let before = fs::read_to_string(lab.folder().join(&label).with_extension("log")).unwrap_or_default();
        let mut process = lab.spawn(&label, &mut command)?;
        wait_until("tcpdump listens", Duration::from_secs(10), || {
            process.check_running()?;
            Ok(process.output()[before.len()..].contains("listening on"))
        })?;
        Ok(Self { process, file })
    }

    /// The UDP payloads recorded so far.
    pub fn payloads(&self) -> Result<Vec<Vec<u8>>> {
        let bytes = fs::read(&self.file).with_context(|| format!("{} is not there", self.file.display()))?;
        Ok(udp_payloads(&bytes))
    }

    /// Waits until `enough` says that all that matters was recorded: what was not read yet is lost by [`Capture::stop`].
    pub fn wait_for(&self, what: &str, enough: impl Fn(&[Vec<u8>]) -> bool) -> Result<()> {
        wait_until(what, Duration::from_secs(20), || Ok(enough(&self.payloads()?)))
    }

    /// Ends the recording and returns all of it.
    pub fn stop(mut self) -> Result<Vec<Vec<u8>>> {
        self.process.terminate(Duration::from_secs(20))?;
        self.payloads()
    }
}
