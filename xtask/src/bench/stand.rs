//! A test stand: one candidate between clients and server, in a laboratory of its own, with a load generator.
//!
//! All stands look the same from outside: the same addresses, interfaces and packets. The programs of those that are not
//! measured just now are stopped: some poll without pause, and would take half of the processor from the others.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    thread::sleep,
    time::{Duration, Instant},
};

use ::tests::{
    Gateway, Implementation, Io, Lab, Process, Straight,
    gateway::wait_for_tunnel,
    site::{DOWNLINK, UPLINK},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use bench::{
    load::{Driver, KeySeed, Load, Outcome, Ready, Trial, Watched},
    report::{Contender, Kind},
    search::Tester,
};
use rustix::process::Signal;

use super::candidate::{Candidate, GATEWAY_CPU, LOAD_CPU, cpu_list, pinned, steer_receive, worker_cpus};
use crate::command::{command, target_dir};

/// Time for a gateway to note that nothing arrives any more.
const LET_GO: Duration = Duration::from_secs(5);

/// What differs between stands of the same candidate.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Clients with a session each.
    pub clients: u32,
    /// Peers the gateway is configured with; the clients are the first of them.
    pub peers: u32,
    /// Prefixes the first peer is allowed.
    pub prefixes: u32,
    /// Queues of each interface, and so workers of ours.
    pub workers: u32,
    /// What the load comes by.
    pub driver: Driver,
}

impl Size {
    /// As many peers as clients.
    pub fn clients(clients: u32) -> Self {
        Self { clients, peers: clients, prefixes: 1, workers: 1, driver: Driver::LiveFrames }
    }
}

/// What it took to open a session for each client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshakes {
    /// How many.
    pub count: u32,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Seconds of processors that the candidate's threads ran meanwhile.
    pub cpu_seconds: f64,
}

/// A candidate that is up, with sessions.
pub struct Stand {
    /// Who it is.
    pub contender: Contender,
    /// Seconds from an empty gateway to a configured one.
    pub configure_seconds: f64,
    /// What the sessions took.
    pub handshakes: Handshakes,
    /// What bounds the time to leave an idle state where nobody of us has a say.
    resume_latencies: Vec<String>,
    // In the order they have to end.
    load: Load,
    process: Option<Process>,
    lab: Lab,
}

impl Stand {
    /// Builds the namespaces, starts the candidate and does the handshakes.
    pub fn build(candidate: Candidate, size: Size) -> Result<Self> {
        let resume_latencies = resume_latencies(size.workers)?;
        let mut lab = Lab::new()?;
        Self::build_in(&mut lab, candidate, size)
            .map_err(|error| anyhow!("{error:#}\n{}", lab.tails()))
            .with_context(|| format!("{} does not come up", candidate.contender().name))
            .and_then(|(load, process, configure_seconds, handshakes)| {
                let contender = candidate.contender();
                let mut stand =
                    Self { contender, configure_seconds, handshakes, resume_latencies, load, process, lab };
                stand.wait_for_idle_states()?;
                stand.signal(Signal::STOP)?;
                Ok(stand)
            })
    }

    /// To the candidate's program, where it has one.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.signal(signal))
    }

    fn build_in(
        lab: &mut Lab,
        candidate: Candidate,
        size: Size,
    ) -> Result<(Load, Option<Process>, f64, Handshakes)> {
        let straight = Straight::build(lab, size.workers)?;
        let cpus = worker_cpus(size.workers, cpu_count()?);
        let seed = KeySeed::random()?;
        let implementation = match candidate {
            Candidate::Wgx(io) => Implementation::Wgx(io),
            // Only its name, keys and peers are used.
            _ => Implementation::WireguardGo,
        };
        let mut gateway = straight.gateway(lab, implementation, &seed, size.peers)?;
        add_prefixes(&mut gateway, size.prefixes);
        gateway.use_program(target_dir().join("release/wgx"));
        if candidate == Candidate::Wgx(Io::AfXdp) {
            gateway.options = vec!["--cores".to_owned(), cpu_list(&cpus)];
        }
        let mut configure_seconds = 0.0;
        let process = if let Some(mut command) = candidate.command(&gateway, &cpus)? {
            let mut process = lab.spawn(&candidate.contender().name, &mut command)?;
            wait_for_tunnel(&mut process, &gateway.namespace, &gateway.interface)?;
            let start = Instant::now();
            gateway.configure(lab)?;
            straight.route(&gateway)?;
            configure_seconds = start.elapsed().as_secs_f64();
            Some(process)
        } else if candidate == Candidate::Forward {
            Some(straight.forward(lab, &target_dir().join("release/wgx-forward"), Some(GATEWAY_CPU))?)
        } else {
            steer_receive(&straight.gateway, &[UPLINK, DOWNLINK])?;
            None
        };
        let tunnel = candidate.has_tunnel().then(|| straight.tunnel(&gateway.keys.public, &seed));
        let mut setup = straight.setup(size.driver, size.clients, tunnel)?;
        setup.watched = Some(watched(process.as_ref(), &cpus));
        let mut generator = command(&target_dir().join("release/wgx-load").to_string_lossy());
        generator.args(["--core", &LOAD_CPU.to_string()]);
        let pid = process.as_ref().map(Process::pid);
        let before = pid.map_or(Ok(0), running_ns)?;
        let load = Load::start(&mut pinned(&generator, &[LOAD_CPU]), &setup)?;
        let ran_ns = pid.map_or(Ok(0), running_ns)?.saturating_sub(before);
        let Ready { handshakes: count, handshake_seconds: seconds } = load.ready();
        let handshakes = Handshakes { count, seconds, cpu_seconds: ran_ns as f64 / 1e9 };
        Ok((load, process, configure_seconds, handshakes))
    }

    /// Waits until ours has let its CPUs have idle states again: stopped before, it would keep them from the next one.
    fn wait_for_idle_states(&self) -> Result<()> {
        if self.contender.kind != Kind::Ours {
            return Ok(());
        }
        let start = Instant::now();
        while resume_latencies(self.resume_latencies.len() as u32)? != self.resume_latencies {
            ensure!(
                start.elapsed() < LET_GO,
                "{} does not let its CPUs have their idle states again",
                self.contender.name
            );
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The candidate's process, where it has one.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Resident memory of the candidate's process in MiB; 0 where it has none.
    pub fn resident_mib(&self) -> Result<f64> {
        let Some(process) = &self.process else { return Ok(0.0) };
        let path = format!("/proc/{}/status", process.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        resident_mib(&text).with_context(|| format!("{path} names no VmRSS"))
    }
}

/// Where others would be in the way of this gateway and its generator.
fn watched(gateway: Option<&Process>, cpus: &[u32]) -> Watched {
    let cpus: BTreeSet<u32> = cpus.iter().copied().chain([LOAD_CPU]).collect();
    Watched { process: gateway.map(Process::pid), cpus: cpus.into_iter().collect() }
}

/// What bounds the time in which the CPUs of so many workers leave an idle state; empty where the kernel has no such
/// setting.
fn resume_latencies(workers: u32) -> Result<Vec<String>> {
    let read = |cpu| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            text => text.with_context(|| format!("{path} cannot be read")),
        }
    };
    worker_cpus(workers, cpu_count()?).into_iter().map(read).collect()
}

/// Processors this process may use.
pub fn cpu_count() -> Result<u32> {
    Ok(u32::try_from(std::thread::available_parallelism()?.get())?)
}

/// Ends all of them at once: some take seconds to go.
pub fn take_down(stands: Vec<Stand>) {
    std::thread::scope(|scope| {
        for stand in stands {
            scope.spawn(move || drop(stand));
        }
    });
}

impl Tester for Stand {
    fn trial(&mut self, trial: &Trial) -> Result<Outcome> {
        if let Some(process) = &mut self.process {
            process.check_running()?;
        }
        self.signal(Signal::CONT)?;
        let outcome = self.load.trial(trial);
        self.wait_for_idle_states()?;
        self.signal(Signal::STOP)?;
        outcome
            .map_err(|error| anyhow!("{error:#}\n{}", self.lab.tails()))
            .with_context(|| format!("{}: a trial failed", self.contender.name))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // A stopped program does not end when it is told to. One that has ended already needs nothing.
        let _ = self.signal(Signal::CONT);
    }
}

/// Nanoseconds that a process's threads have run: the first figure of `schedstat`
/// (Documentation/scheduler/sched-stats.rst).
fn running_ns(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.with_context(|| format!("schedstat of {pid} says `{}`", text.trim()))?;
    }
    Ok(sum)
}

/// Prefixes of 24 bits that nobody uses.
fn add_prefixes(gateway: &mut Gateway, count: u32) {
    let Some(peer) = gateway.peers.first_mut() else { return };
    let first = u32::from_be_bytes([11, 0, 0, 0]);
    let more = (1..count).map(|index| format!("{}/24", std::net::Ipv4Addr::from(first + (index << 8))));
    peer.allowed_ips.extend(more);
}

fn resident_mib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_run_longer() {
        let running = || running_ns(std::process::id()).unwrap();
        let (before, start) = (running(), Instant::now());
        while running() == before && start.elapsed() < Duration::from_secs(10) {}
        assert!(running() > before);
    }

    #[test]
    fn resident_memory_is_read_from_its_line() {
        assert_eq!(resident_mib("VmSize:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2.0));
        assert_eq!(resident_mib("Name: x\n"), None);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(resident_mib(&own).unwrap() > 0.5);
    }
}
