//! Workers on their threads: one per queue, pinned, and one for the kernel's sockets.

use std::sync::Arc;
use std::thread::JoinHandle;

use aead::Aead;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;

use super::fast_path::QueueLinks;
use crate::clock::Clock;
use crate::config::Plan;
use crate::control::status::{LinkInfo, StatusSources, WorkerInfo, statistics};
use crate::dataplane::counters::WorkerCounters;
use crate::dataplane::engine::Engine;
use crate::dataplane::tables::Shared;
use crate::dataplane::worker::{Ports, Stop, Worker, WorkerLink};
use crate::io::icmp::IcmpSockets;
use crate::io::tun::{Tun, TunPort};
use crate::io::udp::{UdpCounters, UdpPort, UdpSockets};
use crate::io::{Backing, FramePool, Umem, UnreachablePort};
use crate::topology::pin::pin_current;

/// Frames of the socket worker: several bursts in every direction.
const SOCKET_FRAME_COUNT: u32 = 4096;

/// The ways through the kernel that every worker has.
pub(super) struct KernelPorts {
    pub(super) tun: Arc<Tun>,
    pub(super) sockets: Arc<ArcSwap<UdpSockets>>,
    pub(super) counters: Arc<UdpCounters>,
}

/// Workers with all they need, not yet running.
pub(super) struct Workers {
    prepared: Vec<Prepared>,
    /// CPU and counters of each link worker.
    by_cpu: Vec<(u32, Arc<WorkerCounters>)>,
    stop: Arc<Stop>,
}

struct Prepared {
    name: String,
    cpu: Option<u32>,
    worker: Worker,
    /// What [`Worker::frames_accounted`] must be at the end as at the start.
    frame_count: usize,
    busy_poll: bool,
}

/// Workers on their threads.
pub(super) struct Running {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

impl Workers {
    /// Puts the workers together and lists them in `status`.
    pub(super) fn prepare(
        plan: &Plan,
        aead: Aead,
        shared: &Arc<Shared>,
        kernel: &KernelPorts,
        queues: Vec<QueueLinks>,
        status: &mut StatusSources,
    ) -> Result<Self> {
        let (mut prepared, mut by_cpu) = (Vec::new(), Vec::new());
        for (queue, (QueueLinks { pool, links }, cpu)) in
            queues.into_iter().zip(&plan.worker_cpus).enumerate()
        {
            for (link, _) in &links {
                let monitor = link.monitor();
                let interface = monitor.read().interface;
                let info = LinkInfo { interface, queue: monitor.queue(), worker: queue };
                status.links.push((info, statistics(move || monitor.read())));
            }
            let links =
                links.into_iter().map(|(port, roles)| WorkerLink { port: Box::new(port), roles }).collect();
            let ports = kernel.ports(links, false);
            let counters = list(status, Some(*cpu), "links");
            by_cpu.push((*cpu, Arc::clone(&counters)));
            prepared.push(prepare(
                format!("wgx-queue-{queue}"),
                Some(*cpu),
                aead,
                shared,
                pool,
                ports,
                counters,
            ));
        }
        let (umem, frames) = Umem::new(plan.frame_len, SOCKET_FRAME_COUNT, Backing::Plain)?;
        let ports = kernel.ports(Vec::new(), true);
        let cpu = plan.socket_worker_cpu;
        let counters = list(status, cpu, "sockets");
        let pool = FramePool::new(umem, frames);
        prepared.push(prepare("wgx-sockets".into(), cpu, aead, shared, pool, ports, counters));
        let stop = Arc::new(Stop::new().context("cannot make the workers' stop signal")?);
        Ok(Self { prepared, by_cpu, stop })
    }

    /// CPU and counters of each link worker.
    pub(super) fn link_workers(&self) -> &[(u32, Arc<WorkerCounters>)] {
        &self.by_cpu
    }

    /// Starts the threads; returns when every worker has its core.
    pub(super) fn run(self, clock: Clock, busy_poll: bool) -> Result<Running> {
        let mut running = Running { threads: Vec::new(), stop: self.stop };
        for mut prepared in self.prepared {
            prepared.busy_poll &= busy_poll;
            let name = prepared.name.clone();
            if let Err(error) = running.spawn(prepared, clock) {
                running.stop();
                return Err(error.context(format!("cannot start the worker {name}")));
            }
        }
        Ok(running)
    }
}

fn prepare(
    name: String,
    cpu: Option<u32>,
    aead: Aead,
    shared: &Arc<Shared>,
    pool: FramePool,
    ports: Ports,
    counters: Arc<WorkerCounters>,
) -> Prepared {
    let interfaces: Vec<u32> = ports.links.iter().map(|link| link.port.interface_index()).collect();
    // The socket worker sleeps in `poll` whatever the plan says: its packets come from the kernel anyway.
    let busy_poll = !ports.receives_from_kernel;
    let worker = Worker::new(Engine::new(aead, Arc::clone(shared), &interfaces), pool, ports, counters);
    Prepared { name, cpu, frame_count: worker.frames_accounted(), worker, busy_poll }
}

/// Lists the next worker in `status` and makes its counters.
fn list(status: &mut StatusSources, cpu: Option<u32>, serves: &str) -> Arc<WorkerCounters> {
    let counters = Arc::new(WorkerCounters::default());
    let info =
        WorkerInfo { worker: status.workers.len(), cpu: cpu.map(|cpu| cpu as usize), serves: serves.into() };
    status.workers.push((info, Arc::clone(&counters)));
    counters
}

/// Sockets for ICMP errors; a gateway that may not open them works all the same.
fn icmp_sockets() -> Option<Box<dyn UnreachablePort>> {
    match IcmpSockets::open() {
        Ok(sockets) => Some(Box::new(sockets)),
        Err(error) => {
            tracing::warn!(
                "no ICMP errors for packets without a peer: {error}; raw sockets need CAP_NET_RAW"
            );
            None
        }
    }
}

impl KernelPorts {
    fn ports(&self, links: Vec<WorkerLink>, receives_from_kernel: bool) -> Ports {
        Ports {
            links,
            datagrams: Box::new(UdpPort::new(Arc::clone(&self.sockets), Arc::clone(&self.counters))),
            tunnel: Box::new(TunPort::new(Arc::clone(&self.tun))),
            errors: icmp_sockets(),
            receives_from_kernel,
        }
    }
}

impl Running {
    fn spawn(&mut self, prepared: Prepared, clock: Clock) -> Result<()> {
        let Prepared { name, cpu, mut worker, frame_count, busy_poll } = prepared;
        let stop = Arc::clone(&self.stop);
        let (tell, told) = crossbeam::channel::bounded(1);
        let body = move || {
            let pinned = cpu.map_or(Ok(()), pin_current);
            let is_pinned = pinned.is_ok();
            // The starter may have given up already: then there is nobody to tell.
            let _ = tell.send(pinned);
            if is_pinned {
                worker.run(&stop, clock, busy_poll);
                let accounted = worker.frames_accounted();
                if accounted != frame_count {
                    tracing::error!(accounted, frame_count, "frames were lost: this is a bug in wgx");
                }
            }
        };
        self.threads.push(std::thread::Builder::new().name(name).spawn(body)?);
        told.recv().context("the thread ended before it began")??;
        Ok(())
    }

    /// Ends all workers after their current turn and waits for them.
    pub(super) fn stop(self) {
        self.stop.stop();
        for thread in self.threads {
            // A panic has ended the process before (`protect_process`).
            let _ = thread.join();
        }
    }
}
