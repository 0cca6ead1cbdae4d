//! A virtual machine with a Linux kernel of its own, and so with the kernel's WireGuard, which this machine may lack.
//!
//! ```text
//! qemu: eth0 (virtio) ── tap on the switch of a [`Site`](crate::Site)
//!       commands over a serial port
//! ```
//!
//! Its processor is emulated: it needs nothing of the host, boots in seconds and moves a few thousand packets a second.

mod console;
mod initramfs;
pub mod kernel;
mod pair;
mod tunnel;

use std::{
    os::unix::net::UnixListener,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

pub use console::Reply;
pub use kernel::Kernel;
pub use pair::{Cell, Pair};
pub use tunnel::{KernelPeer, Transfer, Tunnel};

use crate::{
    Lab, Namespace, Process, program,
    site::{Addresses, outer},
    wait_until,
};
use console::Console;

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
/// Booting takes four seconds; others may want the processor too.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for a command that only talks to the guest's kernel.
const QUICK: Duration = Duration::from_secs(30);
/// The guest's place in the networks of a site: a third client.
pub const GUEST_HOST: u8 = 13;
/// The guest's interface towards the gateway.
pub const GUEST_INTERFACE: &str = "eth0";
/// Other features would let partial checksums and super-frames reach XDP.
const NIC: &str = "virtio-net-pci,netdev=wan,mac=52:54:00:00:00:13,csum=off,gso=off,guest_csum=off,guest_tso4=off,\
                   guest_tso6=off,guest_ecn=off,guest_ufo=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
                   mrg_rxbuf=off";
/// Quick and quiet; a panic ends qemu. The HPET says how fast it runs: the TSC has to be measured while booting, which on
/// a busy machine once made the guest's clock sixteen times too fast.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on \
                                   clocksource=hpet no_timer_check net.ifnames=0";

/// A booted guest; dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    console: Mutex<Console>,
    release: String,
    // Ends the guest when it is dropped.
    _process: Process,
}

/// Why no guest can be booted here.
pub fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the guest's programs are this machine's, and its kernel is for x86-64".into());
    }
    let programs = initramfs::PROGRAMS.into_iter().chain([QEMU, "busybox", "ldd", "find"]);
    let missing: Vec<_> = programs.filter(|name| program::find(name).is_none()).collect();
    if !missing.is_empty() {
        return Some(format!("the guest needs {}; run `cargo xtask setup`", missing.join(", ")));
    }
    let kernel = Kernel::installed().err();
    kernel.map(|error| format!("{error:#}; run `cargo xtask setup`"))
}

impl Guest {
    /// Boots a guest on the switch `bridge` of a namespace, with the addresses of [`GUEST_HOST`].
    pub fn boot(lab: &Lab, switch: &Namespace, bridge: &str) -> Result<Self> {
        let kernel = Kernel::installed()?;
        let archive = initramfs::pack(&kernel, lab.folder())?;
        switch.ip("tuntap add to-guest mode tap")?;
        switch.ip(&format!("link set to-guest master {bridge} up"))?;

        let port = lab.folder().join("guest.port");
        let listener = UnixListener::bind(&port).with_context(|| port.display().to_string())?;
        listener.set_nonblocking(true)?;
        let mut command = switch.command(QEMU);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "256", "-smp", "1", "-M", "q35"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(&archive);
        command.args(["-append", KERNEL_COMMAND_LINE]);
        command.args(["-serial", &format!("file:{}", lab.folder().join("guest-kernel.log").display())]);
        command.args(["-netdev", "tap,id=wan,ifname=to-guest,script=no,downscript=no", "-device", NIC]);
        command.args(["-chardev", &format!("socket,id=port,path={}", port.display())]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port"]);
        let mut process = lab.spawn("guest", &mut command)?;

        let mut stream = None;
        wait_until("qemu connects", BOOT_TIMEOUT, || {
            process.check_running()?;
            stream = listener.accept().ok();
            Ok(stream.is_some())
        })?;
        let (stream, _) = stream.context("qemu has connected")?;
        let mut console = Console::new(stream)?;
        let reply = console.run("uname -r", "uname -r", BOOT_TIMEOUT);
        let release = reply.with_context(|| format!("the guest does not boot\n{}", lab.tails()))?;
        let release = release.output.trim().to_owned();
        let guest = Self { console: Mutex::new(console), release, _process: process };
        let clock = guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
        ensure!(clock.trim() == "hpet", "the guest's clock is {clock:?}: it may be wrong by any factor");
        guest.address(GUEST_INTERFACE, outer(GUEST_HOST))?;
        Ok(guest)
    }

    /// What `uname -r` says in it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Runs one line of shell in it, which has to succeed. Returns what it wrote, errors included.
    pub fn run(&self, line: &str) -> Result<String> {
        let reply = self.attempt(line, QUICK)?;
        ensure!(reply.code == 0, "`{line}` in the guest failed ({}): {}", reply.code, reply.output.trim());
        Ok(reply.output)
    }

    /// Runs one line of shell in it, whatever comes of it.
    pub fn attempt(&self, line: &str, timeout: Duration) -> Result<Reply> {
        self.console().run(line, line, timeout)
    }

    /// Writes a file in it; no error shows the text.
    pub fn write_secret(&self, path: &str, text: &str) -> Result<()> {
        ensure!(!text.contains('\''), "{path}: a quote cannot be sent");
        let lines: Vec<_> = text.lines().map(|line| format!("'{line}'")).collect();
        let line = format!("umask 077; printf '%s\\n' {} >{path}", lines.join(" "));
        let reply = self.console().run(&line, &format!("write {path}"), QUICK)?;
        ensure!(reply.code == 0, "{path} cannot be written in the guest: {}", reply.output.trim());
        Ok(())
    }

    /// Brings an interface up with an address of each family.
    pub fn address(&self, interface: &str, addresses: Addresses) -> Result<()> {
        let Addresses { v4, v6 } = addresses;
        self.run(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/{interface}/accept_dad && ip link set {interface} up && \
             ip address add {v4}/24 dev {interface} && ip address add {v6}/64 dev {interface} nodad"
        ))?;
        Ok(())
    }

    fn console(&self) -> std::sync::MutexGuard<'_, Console> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
