//! The validated plan: what a run will use, as plain numbers.

mod roles;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use roles::{Role, interfaces, warn_of_carrier, warn_of_queues};
use serde::Serialize;

use super::{
    error::ConfigError,
    file::Config,
    limits::{
        AEAD_AUTO, FRAME_COUNT_PER_LINK, FRAME_COUNT_RANGE, MTU_DEFAULT, MTU_RANGE, OUTER_LEN_MAX,
        OUTER_LEN_MIN, aead_names, frame_mtu_max,
    },
    options::{IoMode, Options},
};
use crate::topology::{Cpu, Machine, assign, choose, interface::mac_text};

/// The kernel frees the link of an XDP program from a work queue, some time after the process that held it died.
const CLEAN_UP_PATIENCE: Duration = Duration::from_millis(500);

/// One interface and what it is for. An interface can have both roles (a gateway on one arm).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Hardware address.
    #[serde(serialize_with = "mac_text")]
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Queues to open a socket on: queue q belongs to worker q.
    pub queue_count: u32,
    /// Clients arrive here.
    pub uplink: bool,
    /// The plain network is here.
    pub downlink: bool,
}

/// What a run will use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Name of the tunnel, its TUN device and its UAPI socket.
    pub name: String,
    /// The rung asked for; `auto` may still end on sockets.
    pub io: IoMode,
    /// Interfaces for `AF_XDP`; empty with [`IoMode::Udp`].
    pub links: Vec<Link>,
    /// The CPU of each link worker: one per queue of the widest interface, none with [`IoMode::Udp`].
    pub worker_cpus: Vec<u32>,
    /// A CPU no link worker uses, for the socket worker; `None` leaves it to the scheduler.
    pub socket_worker_cpu: Option<u32>,
    /// NUMA node of the first uplink's device.
    pub numa_node: Option<u32>,
    /// Workers spin instead of sleeping.
    pub busy_poll: bool,
    /// Workers poll the drivers themselves, and interrupts are put off meanwhile; only with `busy_poll`.
    pub napi_busy_poll: bool,
    /// The CPUs of link workers are kept out of idle states while packets arrive; only without `busy_poll`, as those
    /// workers never go idle.
    pub pm_qos: bool,
    /// [`AEAD_AUTO`] or a name [`aead::Aead::by_name`] takes.
    pub aead: String,
    /// MTU of the tunnel in bytes.
    pub mtu: u16,
    /// File in the format of `wg setconf`.
    pub peers: Option<PathBuf>,
    /// Bytes of each frame: 2048 or 4096.
    pub frame_len: u32,
    /// Frames of each worker.
    pub frame_count: u32,
    /// What works but is likely not meant; one line each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Reads the machine and plans for it. What a gateway that has just been killed leaves to the kernel to clean
    /// up is waited for, briefly.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn make(config: &Config) -> Result<Self, ConfigError> {
        let names: Vec<_> = config.interfaces().map(|(name, _)| name).chain([config.name.as_str()]).collect();
        let deadline = Instant::now() + CLEAN_UP_PATIENCE;
        loop {
            let plan = Self::for_machine(config, &Machine::read(names.iter().copied())?);
            let passing =
                matches!(plan, Err(ConfigError::ForeignProgram { .. } | ConfigError::TunnelExists { .. }));
            if !passing || Instant::now() > deadline {
                return plan;
            }
            std::thread::sleep(CLEAN_UP_PATIENCE / 10);
        }
    }

    /// Plans for `machine`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn for_machine(config: &Config, machine: &Machine) -> Result<Self, ConfigError> {
        let options = &config.options;
        let io = config.io();
        let mut warnings = Vec::new();
        let aead = options.aead.clone().unwrap_or_else(|| AEAD_AUTO.to_owned());
        if !aead_names().any(|name| name == aead) {
            return Err(match aead::Aead::lacking(&aead) {
                Some(needed) => ConfigError::AeadLacksProcessor { name: aead, needed },
                None => ConfigError::UnknownAead { name: aead },
            });
        }
        let (busy_poll, napi_busy_poll) = polling(options, io)?;
        let interfaces = interfaces(config, machine)?;
        let mtu = tunnel_mtu(options.mtu, &interfaces, &mut warnings)?;
        let frame_len = frame_len(options.frame_len, mtu, io, &interfaces)?;
        let links = match io {
            IoMode::Udp => Vec::new(),
            IoMode::Auto | IoMode::AfXdp => {
                interfaces.iter().map(Role::link).collect::<Result<Vec<_>, _>>()?
            }
        };
        let frame_count = frame_count(options.frame_count, links.len())?;
        warn_of_queues(&links, &mut warnings);
        warn_of_carrier(&interfaces, &mut warnings);

        let numa_node = interfaces.first().and_then(|role| role.interface.numa_node);
        let worker_count = links.iter().map(|link| link.queue_count).max().unwrap_or_default() as usize;
        let cpus = cpus(config, &machine.cpus, numa_node, worker_count)?;
        if cpus.len() < worker_count {
            warnings.push(format!(
                "{worker_count} queues need {worker_count} workers, which share {} CPUs: fewer queues \
                 (ethtool -L) or more CPUs (--cores) give steadier latency",
                cpus.len()
            ));
        }
        if let Some(path) = &options.peers {
            check_peers(path)?;
        }
        Ok(Self {
            name: config.name.clone(),
            io,
            links,
            worker_cpus: assign(&cpus, worker_count),
            socket_worker_cpu: cpus.get(worker_count).copied(),
            numa_node,
            busy_poll,
            napi_busy_poll,
            pm_qos: options.pm_qos.unwrap_or(true) && !busy_poll && io != IoMode::Udp,
            aead,
            mtu,
            peers: options.peers.clone(),
            frame_len,
            frame_count,
            warnings,
        })
    }
}

/// Whether workers never sleep, and whether they poll the drivers.
fn polling(options: &Options, io: IoMode) -> Result<(bool, bool), ConfigError> {
    if !options.napi_busy_poll.unwrap_or_default() {
        return Ok((options.busy_poll.unwrap_or_default(), false));
    }
    if io == IoMode::Udp {
        return Err(ConfigError::NapiBusyPollWithoutLinks);
    }
    if options.busy_poll == Some(false) {
        return Err(ConfigError::NapiBusyPollAsleep);
    }
    Ok((true, true))
}

/// The MTU given, or the largest that no uplink has to fragment for.
fn tunnel_mtu(
    given: Option<u32>,
    roles: &[Role<'_>],
    warnings: &mut Vec<String>,
) -> Result<u16, ConfigError> {
    let narrowest =
        roles.iter().filter(|role| role.uplink).map(|role| role.interface).min_by_key(|link| link.mtu);
    let mtu = match (given, narrowest) {
        (Some(mtu), _) if !MTU_RANGE.contains(&mtu) => return Err(ConfigError::MtuOutOfRange { mtu }),
        (Some(mtu), Some(uplink)) if mtu + OUTER_LEN_MIN > uplink.mtu => {
            return Err(ConfigError::MtuAboveUplink {
                mtu,
                interface: uplink.name.clone(),
                uplink_mtu: uplink.mtu,
                limit: uplink.mtu.saturating_sub(OUTER_LEN_MAX),
            });
        }
        (Some(mtu), Some(uplink)) if mtu + OUTER_LEN_MAX > uplink.mtu => {
            warnings.push(format!(
                "MTU {mtu} fits uplink {} for clients over IPv4 only: IPv6 needs --mtu {} or less",
                uplink.name,
                uplink.mtu - OUTER_LEN_MAX
            ));
            mtu
        }
        (Some(mtu), _) => mtu,
        (None, Some(uplink)) => {
            let mtu = uplink.mtu.saturating_sub(OUTER_LEN_MAX).min(MTU_DEFAULT);
            if mtu < *MTU_RANGE.start() {
                let interface = uplink.name.clone();
                return Err(ConfigError::UplinkMtuTooSmall { interface, uplink_mtu: uplink.mtu });
            }
            mtu
        }
        (None, None) => MTU_DEFAULT,
    };
    // In range, so it fits.
    Ok(mtu as u16)
}

/// The frame length given, or the smaller one that holds the packets of every interface.
fn frame_len(given: Option<u32>, mtu: u16, io: IoMode, roles: &[Role<'_>]) -> Result<u32, ConfigError> {
    if let Some(frame_len) = given.filter(|given| ![2048, 4096].contains(given)) {
        return Err(ConfigError::FrameLen { frame_len });
    }
    let fits = |frame_len: u32| {
        let limit = frame_mtu_max(frame_len);
        let too_wide = roles.iter().filter(|_| io != IoMode::Udp).find(|role| role.interface.mtu > limit);
        match too_wide {
            Some(role) => Err(ConfigError::InterfaceMtu {
                interface: role.interface.name.clone(),
                mtu: role.interface.mtu,
                frame_len,
                limit,
                advice: if frame_len == 4096 {
                    format!("`ip link set dev {} mtu {limit}`, or use --io udp", role.interface.name)
                } else {
                    "use --frame-len 4096".to_owned()
                },
            }),
            None if u32::from(mtu) + OUTER_LEN_MAX > limit => {
                Err(ConfigError::MtuOutOfRange { mtu: u32::from(mtu) })
            }
            None => Ok(frame_len),
        }
    };
    match given {
        Some(frame_len) => fits(frame_len),
        None => fits(2048).or_else(|_| fits(4096)),
    }
}

fn frame_count(given: Option<u32>, link_count: usize) -> Result<u32, ConfigError> {
    let links = link_count as u32;
    let Some(frame_count) = given else {
        return Ok(FRAME_COUNT_PER_LINK * (links + 1));
    };
    if !FRAME_COUNT_RANGE.contains(&frame_count) {
        return Err(ConfigError::FrameCountOutOfRange { frame_count });
    }
    // A link fills its fill ring before the next one is served: with fewer, the last would never receive.
    let minimum = FRAME_COUNT_PER_LINK / 2 * links + *FRAME_COUNT_RANGE.start();
    if frame_count < minimum {
        return Err(ConfigError::FrameCountTooSmall { frame_count, link_count, minimum });
    }
    Ok(frame_count)
}

/// CPUs for the workers and, after them, one for the socket worker if there is one to spare.
fn cpus(
    config: &Config,
    allowed: &[Cpu],
    numa_node: Option<u32>,
    worker_count: usize,
) -> Result<Vec<u32>, ConfigError> {
    if allowed.is_empty() {
        return Err(ConfigError::NoCpus);
    }
    let Some(list) = &config.options.cores else {
        return Ok(choose(allowed, numa_node, worker_count + 1));
    };
    if let Some(cpu) = list.numbers().iter().find(|cpu| !allowed.iter().any(|one| one.number == **cpu)) {
        let allowed = allowed.iter().map(|cpu| cpu.number.to_string()).collect::<Vec<_>>().join(",");
        return Err(ConfigError::CoreNotAllowed { cpu: *cpu, allowed });
    }
    Ok(list.numbers().to_vec())
}

/// The file is read when the tunnel is up; that it can be is known now.
fn check_peers(path: &Path) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::PeersUnreadable { path: path.to_owned(), source };
    // Looked at before it is opened: opening a pipe waits for its writer.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ConfigError::PeersNotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(unreadable)?;
    Ok(())
}

#[cfg(test)]
mod tests;
