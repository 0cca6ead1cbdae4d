//! One tunnel interface in any namespace, beyond those of a site: `wgx` or the reference.

use anyhow::Result;

use crate::{
    Lab, Namespace, Process, Status,
    gateway::{in_foreground, wait_for_tunnel, wgx_path},
    keys::Keys,
    wg::Wg,
};

/// What serves a tunnel interface.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// `wgx run INTERFACE` with these options.
    Wgx(&'a [&'a str]),
    /// The reference.
    WireguardGo,
}

/// A tunnel interface with its program.
#[derive(Debug)]
pub struct Tunnel {
    /// Where it runs.
    pub namespace: Namespace,
    /// The tunnel interface, down and without keys.
    pub interface: String,
    /// A key pair for it.
    pub keys: Keys,
    process: Process,
}

impl Tunnel {
    /// Starts the program and waits until `wg` can talk to it; `label` names its log.
    pub fn start(lab: &mut Lab, namespace: &Namespace, label: &str, program: Program<'_>) -> Result<Self> {
        let interface = lab.interface_name(label);
        let mut command = match program {
            Program::Wgx(options) => {
                let mut command = namespace.command(wgx_path()?);
                command.args(["run", &interface]).args(options);
                command
            }
            Program::WireguardGo => {
                let mut command = namespace.command("wireguard-go");
                in_foreground(&mut command, &interface);
                command
            }
        };
        let mut process = lab.spawn(label, &mut command)?;
        wait_for_tunnel(&mut process, namespace, &interface)?;
        Ok(Self { namespace: namespace.clone(), interface, keys: Keys::generate()?, process })
    }

    /// Gives it its key, a port, peers as `wg set` takes them, and addresses; then brings it up.
    pub fn configure(&self, lab: &Lab, port: u16, peers: &str, addresses: &[&str]) -> Result<()> {
        let key = lab.write_secret(&format!("{}.key", self.interface), self.keys.private.reveal())?;
        self.wg().set(&format!("private-key {} listen-port {port} {peers}", key.display()))?;
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.namespace.ip(&format!("address add {address} dev {} {nodad}", self.interface))?;
        }
        self.namespace.ip(&format!("link set {} up", self.interface))?;
        Ok(())
    }

    /// Its interface, for `wg`.
    pub fn wg(&self) -> Wg<'_> {
        Wg { namespace: &self.namespace, interface: &self.interface }
    }

    /// `wgx status --json`, if the program is ours.
    pub fn status(&self) -> Result<Status> {
        let program = wgx_path()?;
        Status::parse(&self.namespace.run(&format!(
            "{} status {} --json",
            program.display(),
            self.interface
        ))?)
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
