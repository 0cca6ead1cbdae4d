//! The gateway of a site: `wgx`, or `wireguard-go` as the reference.

use std::{
    env, fmt,
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    Client, Lab, Namespace, Process, Site, Status,
    keys::{Keys, Secret},
    site::{self, DOWNLINK, Family, GATEWAY_HOST, LISTEN_PORT, UPLINK},
    wait_until,
};

/// Time for a tunnel program to start or stop.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The data path `wgx` is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The best that works.
    Auto,
    /// AF_XDP or an error.
    AfXdp,
    /// The kernel's UDP sockets.
    Udp,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Auto => "auto",
            Io::AfXdp => "af-xdp",
            Io::Udp => "udp",
        })
    }
}

/// What runs as the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// Our program.
    Wgx(Io),
    /// The reference: same configuration, nothing of ours.
    WireguardGo,
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wgx(io) => write!(f, "wgx --io {io}"),
            Self::WireguardGo => f.write_str("wireguard-go"),
        }
    }
}

/// One peer as the gateway is configured with it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The peer's public key.
    pub public_key: String,
    /// The preshared key, if any.
    pub preshared_key: Option<Secret>,
    /// Its addresses inside the tunnel.
    pub allowed_ips: Vec<String>,
}

impl Peer {
    /// Its section in the format of `wg setconf`.
    pub fn section(&self) -> String {
        let preshared = self.preshared_key.as_ref().map(|key| format!("PresharedKey = {}\n", key.reveal()));
        format!(
            "[Peer]\nPublicKey = {}\n{}AllowedIPs = {}\n",
            self.public_key,
            preshared.unwrap_or_default(),
            self.allowed_ips.join(", ")
        )
    }
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where it runs.
    pub namespace: Namespace,
    /// The tunnel interface.
    pub interface: String,
    /// Its key pair.
    pub keys: Keys,
    /// Its peers, as configured at the next start.
    pub peers: Vec<Peer>,
    /// Further options of `wgx run`.
    pub options: Vec<String>,
    /// Niceness to run with, down to -20, on a machine that does other things too.
    pub nice: i32,
    implementation: Implementation,
    program: Option<PathBuf>,
    process: Option<Process>,
}

impl Gateway {
    /// A gateway that has not been started.
    pub fn new(lab: &mut Lab, site: &Site, implementation: Implementation) -> Result<Self> {
        Self::in_namespace(lab, &site.gateway, implementation)
    }

    /// A gateway that has not been started, in a namespace with interfaces [`UPLINK`] and [`DOWNLINK`].
    pub fn in_namespace(
        lab: &mut Lab,
        namespace: &Namespace,
        implementation: Implementation,
    ) -> Result<Self> {
        Ok(Self {
            namespace: namespace.clone(),
            interface: lab.interface_name("wgxdemo-gw"),
            keys: Keys::generate()?,
            peers: Vec::new(),
            options: Vec::new(),
            nice: 0,
            implementation,
            program: None,
            process: None,
        })
    }

    /// Uses this `wgx` instead of the one [`wgx_path`] finds.
    pub fn use_program(&mut self, path: PathBuf) {
        self.program = Some(path);
    }

    /// The `wgx` it uses.
    pub fn program(&self) -> Result<PathBuf> {
        self.program.clone().map_or_else(wgx_path, Ok)
    }

    /// The `wgx run` command of this gateway, to be run in its namespace.
    pub fn run_command(&self, io: Io) -> Result<Command> {
        let mut command = self.command(&self.program()?);
        command.args(["run", &self.interface, "--uplink", UPLINK, "--downlink", DOWNLINK]);
        command.args(["--io", &io.to_string()]).args(&self.options);
        Ok(command)
    }

    /// A command of this gateway's programs, in its namespace and with its niceness.
    fn command(&self, program: &Path) -> Command {
        if self.nice == 0 {
            return self.namespace.command(program);
        }
        let mut command = self.namespace.command("nice");
        command.args(["-n", &self.nice.to_string()]).arg(program);
        command
    }

    /// Starts it, configures it with `wg` and brings the tunnel interface up, as an operator would.
    pub fn start(&mut self, lab: &Lab) -> Result<()> {
        self.launch(lab)?;
        self.configure(lab)
    }

    /// Starts the program and waits until `wg` can talk to it.
    pub fn launch(&mut self, lab: &Lab) -> Result<()> {
        let mut command = match self.implementation {
            Implementation::Wgx(io) => self.run_command(io)?,
            Implementation::WireguardGo => {
                let mut command = self.command(Path::new("wireguard-go"));
                in_foreground(&mut command, &self.interface);
                command
            }
        };
        let mut process = lab.spawn("gateway", &mut command)?;
        wait_for_tunnel(&mut process, &self.namespace, &self.interface)?;
        self.process = Some(process);
        Ok(())
    }

    /// Keys, port and peers by `wg setconf`; addresses by `ip`.
    pub fn configure(&self, lab: &Lab) -> Result<()> {
        let file = lab.write_secret("gateway.conf", &self.configuration())?;
        self.namespace.run(&format!("wg setconf {} {}", self.interface, file.display()))?;
        self.namespace.ip(&format!("link set {} mtu 1420 up", self.interface))?;
        site::add_both(&self.namespace, &self.interface, site::inner(GATEWAY_HOST))
    }

    /// The configuration in the format of `wg setconf`.
    pub fn configuration(&self) -> String {
        let mut sections = vec![format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {LISTEN_PORT}\n",
            self.keys.private.reveal()
        )];
        sections.extend(self.peers.iter().map(Peer::section));
        sections.join("\n")
    }

    /// Where clients of a family find it.
    pub fn endpoint(&self, family: Family) -> SocketAddr {
        SocketAddr::new(site::outer(GATEWAY_HOST).of(family), LISTEN_PORT)
    }

    /// Adds a client to the peers of the next start.
    pub fn expect(&mut self, client: &Client) {
        self.peers.push(Peer {
            public_key: client.keys.public.clone(),
            preshared_key: client.preshared_key.clone(),
            allowed_ips: client.inner.both().iter().map(|address: &IpAddr| host_prefix(*address)).collect(),
        });
    }

    /// `wgx status --json`.
    pub fn status(&self) -> Result<Status> {
        let program = self.program()?;
        let text = self.namespace.run(&format!("{} status {} --json", program.display(), self.interface))?;
        Status::parse(&text)
    }

    /// `wg show INTERFACE WHAT`.
    pub fn show(&self, what: &str) -> Result<String> {
        self.namespace.run(&format!("wg show {} {what}", self.interface))
    }

    /// What runs as the gateway.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// The running program, to look at.
    pub fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the gateway is not running")
    }

    /// The running program.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the gateway is not running")
    }

    /// Ends it by SIGTERM; an error if it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let status = self.process()?.terminate(START_TIMEOUT)?;
        self.process = None;
        Ok(status)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Leaves the program running when this is dropped.
    pub fn keep(&mut self) {
        if let Some(process) = &mut self.process {
            process.keep();
        }
    }

    /// Whether the tunnel interface exists.
    pub fn has_interface(&self) -> Result<bool> {
        Ok(self.namespace.ip("-oneline link show")?.contains(&format!(" {}: ", self.interface)))
    }

    /// The interfaces an XDP program is attached to.
    pub fn xdp_interfaces(&self) -> Result<Vec<String>> {
        let text = self.namespace.ip("-json link show")?;
        let links: serde_json::Value = serde_json::from_str(&text).context("`ip -json link show`")?;
        let attached = links.as_array().into_iter().flatten().filter(|link| link.get("xdp").is_some());
        Ok(attached.filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect())
    }
}

/// `Endpoint = ...` for a peer's section, or nothing.
pub(crate) fn endpoint_line(endpoint: Option<SocketAddr>) -> String {
    endpoint.map(|endpoint| format!("Endpoint = {endpoint}\n")).unwrap_or_default()
}

/// The address as a prefix that holds nothing else.
pub(crate) fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Makes `command`, which ends in `wireguard-go`, serve `interface` in the foreground.
pub(crate) fn in_foreground<'a>(command: &'a mut Command, interface: &str) -> &'a mut Command {
    command.args(["-f", interface]).env("WG_PROCESS_FOREGROUND", "1").env("LOG_LEVEL", "error")
}

/// Waits until `wg` gets an answer for the interface.
pub fn wait_for_tunnel(process: &mut Process, namespace: &Namespace, interface: &str) -> Result<()> {
    let question = format!("wg show {interface} public-key");
    let ready = wait_until(&format!("`{question}` is answered"), START_TIMEOUT, || {
        process.check_running()?;
        // `wg` deletes a socket that refuses it, as one does that is bound but not yet listened on.
        if UnixStream::connect(format!("/var/run/wireguard/{interface}.sock")).is_err() {
            return Ok(false);
        }
        Ok(namespace.attempt(&question, START_TIMEOUT)?.status.success())
    });
    ready.with_context(|| process.tail())
}

/// The program under test: `WGX_BINARY`, else `wgx` beside the folder of the running executable.
pub fn wgx_path() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WGX_BINARY") {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "WGX_BINARY names {}, which is no file", path.display());
        return Ok(path.canonicalize()?);
    }
    let executable = env::current_exe()?;
    // target/PROFILE/deps/TEST or target/PROFILE/xtask.
    let places = executable.ancestors().skip(1).take(2).map(|folder| folder.join("wgx"));
    let mut shown = Vec::new();
    for place in places {
        if place.is_file() {
            return Ok(place);
        }
        shown.push(place.display().to_string());
    }
    anyhow::bail!(
        "wgx is not built: neither WGX_BINARY is set nor is there {}; run `cargo build`",
        shown.join(" or ")
    )
}
