//! `wgx` and the kernel's WireGuard as each other's peer, with a server behind `wgx`.

use std::{
    fmt, fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Gateway, Implementation, Io, Lab, Site, Status,
    gateway::Peer,
    guest::{GUEST_HOST, Guest, KernelPeer, Transfer, Tunnel},
    interop::Role,
    keys::{Keys, Secret},
    site::{self, Family, LISTEN_PORT, SERVER_HOST, SERVER_NETWORKS, TUNNEL_NETWORKS},
    wait_until,
};

/// The kernel's tunnel interface.
const INTERFACE: &str = "wg0";
/// A lost initiation is sent again after five seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How the two are to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The kernel's role in the handshake.
    pub role: Role,
    /// The family of the outer packets.
    pub outer: Family,
    /// The family of the packets inside.
    pub inner: Family,
    /// Whether there is a preshared key.
    pub psk: bool,
}

impl Cell {
    /// Every combination.
    pub fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for role in Role::BOTH {
            for outer in Family::BOTH {
                for inner in Family::BOTH {
                    cells.extend([false, true].map(|psk| Self { role, outer, inner, psk }));
                }
            }
        }
        cells
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, outer, inner, psk } = self;
        write!(
            f,
            "kernel as {role}, outer {outer:?}, inner {inner:?}, {}",
            if *psk { "psk" } else { "no psk" }
        )
    }
}

/// The two of them, running.
#[derive(Debug)]
pub struct Pair {
    /// The kernel's machine.
    pub guest: Guest,
    /// `wgx`.
    pub gateway: Gateway,
    /// The namespaces; its clients are idle.
    pub site: Site,
    /// The key pair of the kernel's side.
    pub kernel_keys: Keys,
    preshared_key: Option<Secret>,
    secrets: PathBuf,
}

impl Pair {
    /// Starts both, not yet acquainted.
    pub fn build(lab: &mut Lab, io: Io) -> Result<Self> {
        let site = Site::build(lab, 1).context("the site cannot be built")?;
        let mut gateway = Gateway::new(lab, &site, Implementation::Wgx(io))?;
        gateway.start(lab).context("the gateway does not start")?;
        let guest = Guest::boot(lab, &site.wan, "br0")?;
        Tunnel::add(&guest, INTERFACE)?;
        let secrets = lab.folder().to_owned();
        let kernel_keys = Keys::generate()?;
        let pair = Self { guest, gateway, site, kernel_keys, preshared_key: None, secrets };
        ensure!(pair.gateway.status()?.rung() == io.to_string(), "wgx is on another rung than {io}");
        Ok(pair)
    }

    /// Gives both fresh keys and tells the one that shall initiate where the other is. Nothing is sent yet.
    pub fn meet(&mut self, lab: &Lab, cell: Cell) -> Result<()> {
        self.gateway.keys = Keys::generate()?;
        self.kernel_keys = Keys::generate()?;
        self.preshared_key = cell.psk.then(Secret::preshared).transpose()?;
        let initiates = |role| cell.role == role;
        let kernel =
            self.kernel_section(initiates(Role::Responder).then(|| Self::kernel_endpoint(cell.outer)));
        let wgx = self.wgx_section(initiates(Role::Initiator).then(|| self.gateway.endpoint(cell.outer)));
        let key = self.gateway.keys.private.reveal();
        let text =
            format!("[Interface]\nPrivateKey = {key}\nListenPort = {LISTEN_PORT}\n{}", kernel.section());
        let file = lab.write_secret("pair.conf", &text)?;
        self.site.gateway.run(&format!("wg setconf {} {}", self.gateway.interface, file.display()))?;
        self.kernel().configure(&self.kernel_keys, LISTEN_PORT, &[wgx])
    }

    /// The kernel, as `wgx` is configured with it.
    pub fn kernel_section(&self, endpoint: Option<SocketAddr>) -> KernelPeer {
        let allowed_ips = site::inner(GUEST_HOST).both().map(crate::gateway::host_prefix).to_vec();
        KernelPeer { peer: self.peer(&self.kernel_keys, allowed_ips), endpoint }
    }

    /// `wgx`, as the kernel is configured with it.
    pub fn wgx_section(&self, endpoint: Option<SocketAddr>) -> KernelPeer {
        let networks = TUNNEL_NETWORKS.iter().chain(&SERVER_NETWORKS);
        let allowed_ips = networks.map(ToString::to_string).collect();
        KernelPeer { peer: self.peer(&self.gateway.keys, allowed_ips), endpoint }
    }

    fn peer(&self, keys: &Keys, allowed_ips: Vec<String>) -> Peer {
        Peer { public_key: keys.public.clone(), preshared_key: self.preshared_key.clone(), allowed_ips }
    }

    /// The kernel's tunnel.
    pub fn kernel(&self) -> Tunnel<'_> {
        Tunnel::named(&self.guest, INTERFACE)
    }

    /// Where the kernel listens, unless a test moved it.
    pub fn kernel_endpoint(family: Family) -> SocketAddr {
        SocketAddr::new(site::outer(GUEST_HOST).of(family), LISTEN_PORT)
    }

    /// Runs `wg set INTERFACE peer KERNEL WHAT` on `wgx`.
    pub fn set_on_wgx(&self, what: &str) -> Result<()> {
        let Self { gateway, kernel_keys, .. } = self;
        self.site.gateway.run(&format!("wg set {} peer {} {what}", gateway.interface, kernel_keys.public))?;
        Ok(())
    }

    /// Runs `wg set INTERFACE peer WGX WHAT` on the kernel.
    pub fn set_on_kernel(&self, what: &str) -> Result<()> {
        self.kernel().set(&format!("peer {} {what}", self.gateway.keys.public))
    }

    /// Writes a key where only we can read it, for `wg` on this side; `name` is the file's.
    pub fn secret_file(&self, name: &str, key: &str) -> Result<String> {
        let path = self.secrets.join(name);
        let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = options.and_then(|mut file| file.write_all(key.as_bytes()));
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Puts the kernel with its present key, and unknown endpoint, in the place of the peer `old` of `wgx`.
    pub fn replace_on_wgx(&self, old: &str) -> Result<()> {
        let Self { gateway, site, .. } = self;
        site.gateway.run(&format!("wg set {} peer {old} remove", gateway.interface))?;
        let peer = self.kernel_section(None).peer;
        let psk = match &peer.preshared_key {
            Some(key) => format!("preshared-key {}", self.secret_file("psk", key.reveal())?),
            None => String::new(),
        };
        self.set_on_wgx(&format!("{psk} allowed-ips {}", peer.allowed_ips.join(",")))
    }

    /// What the kernel and what `wgx` counted for each other, in this order.
    pub fn transfers(&self) -> Result<(Transfer, Transfer)> {
        let kernel = self.kernel().transfer(&self.gateway.keys.public)?;
        let wgx = Transfer::parse(&self.gateway.show("transfer")?, &self.kernel_keys.public)?;
        Ok((kernel, wgx))
    }

    /// Waits until both counted the same, and returns it as the kernel has it.
    pub fn agreed_transfer(&self) -> Result<Transfer> {
        let mut last = None;
        let agreed = wait_until("both sides count the same", Duration::from_secs(20), || {
            let (kernel, wgx) = self.transfers()?;
            last = Some((kernel, wgx));
            Ok(kernel == wgx.mirrored())
        });
        let (kernel, wgx) = last.context("counted at least once")?;
        agreed.with_context(|| format!("kernel {kernel:?}, wgx {wgx:?}"))?;
        Ok(kernel)
    }

    /// The times of the last handshake, in seconds since 1970: the kernel's, then that of `wgx`; 0 is never.
    pub fn handshakes(&self) -> Result<(u64, u64)> {
        let time = |text: String| text.split_whitespace().nth(1).unwrap_or_default().parse::<u64>();
        Ok((time(self.kernel().show("latest-handshakes")?)?, time(self.gateway.show("latest-handshakes")?)?))
    }

    /// Where the kernel sees `wgx`, and `wgx` the kernel.
    pub fn endpoints(&self) -> Result<(String, String)> {
        let word = |text: String| text.split_whitespace().nth(1).unwrap_or_default().to_owned();
        Ok((word(self.kernel().show("endpoints")?), word(self.gateway.show("endpoints")?)))
    }

    /// Pings from the kernel's side to the server with `arguments`; all have to be answered.
    pub fn ping_from_kernel(&self, family: Family, arguments: &str) -> Result<String> {
        let line = format!("ping -n -W 10 {arguments} {}", Self::server(family));
        let reply = self.guest.attempt(&line, HANDSHAKE_TIMEOUT * 2)?;
        ensure!(reply.code == 0 && reply.output.contains(" 0% packet loss"), "`{line}`: {}", reply.output);
        Ok(reply.output)
    }

    /// Pings from the server to the kernel's side with `arguments`; all have to be answered.
    pub fn ping_from_server(&self, family: Family, arguments: &str) -> Result<String> {
        let line = format!("ping -n -W 10 {arguments} {}", Self::kernel_inner(family));
        let outcome = self.site.server.attempt(&line, HANDSHAKE_TIMEOUT * 2)?;
        let answered = outcome.status.success() && outcome.stdout.contains(" 0% packet loss");
        ensure!(answered, "`{line}`: {}{}", outcome.stdout, outcome.stderr);
        Ok(outcome.stdout)
    }

    /// The server, as reached through the tunnel.
    pub fn server(family: Family) -> IpAddr {
        site::server_side(SERVER_HOST).of(family)
    }

    /// The kernel's address inside the tunnel.
    pub fn kernel_inner(family: Family) -> IpAddr {
        site::inner(GUEST_HOST).of(family)
    }

    /// What `wgx status` says.
    pub fn status(&self) -> Result<Status> {
        self.gateway.status()
    }
}
