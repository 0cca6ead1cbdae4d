//! CPUs that stay out of idle states while packets arrive: a latency bound in sysfs, held by need.
//!
//! Between two packets a worker sleeps and its CPU goes idle, and to leave an idle state takes from microseconds to
//! hundreds of them; in a virtual machine the hypervisor schedules the processor anew. With no resume latency tolerated
//! every cpuidle governor stays with the first state, which on x86 is polling (`cpuidle_governor_latency_req`,
//! drivers/cpuidle/governor.c; `pm_qos_resume_latency_us_store`, drivers/base/power/sysfs.c).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use wireguard::Time;

use super::arrivals::Arrivals;
use super::sysfs::Changes;
use crate::clock::Clock;
use crate::dataplane::counters::WorkerCounters;

/// The kernel's CPUs (`Documentation/ABI/testing/sysfs-devices-power`).
const CPUS: &str = "/sys/devices/system/cpu";
/// No latency tolerated. 0 is no bound, other numbers are microseconds.
const NONE_TOLERATED: &str = "n/a";
/// How often counters are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The bounds of the CPUs of all link workers. Dropping it lets go of them.
pub(super) struct IdleBounds {
    cpus: Vec<WorkerCpu>,
    changes: Changes,
}

struct WorkerCpu {
    number: u32,
    bound: PathBuf,
    /// Of the workers that share it.
    counters: Vec<Arc<WorkerCounters>>,
    arrivals: Arrivals,
    is_held: Arc<AtomicBool>,
    is_refused: bool,
}

impl IdleBounds {
    /// For the CPUs of these workers. A panic lets go of what is held, too; the hook that ends the process is to be in
    /// place.
    pub(super) fn new(workers: &[(u32, Arc<WorkerCounters>)]) -> Self {
        let bounds = Self::below(Path::new(CPUS), workers);
        bounds.changes.undo_on_panic();
        bounds
    }

    fn below(directory: &Path, workers: &[(u32, Arc<WorkerCounters>)]) -> Self {
        let mut by_cpu: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (cpu, counters) in workers {
            by_cpu.entry(*cpu).or_default().push(Arc::clone(counters));
        }
        let cpus = by_cpu.into_iter().map(|(number, counters)| WorkerCpu {
            number,
            bound: directory.join(format!("cpu{number}/power/pm_qos_resume_latency_us")),
            counters,
            arrivals: Arrivals::default(),
            is_held: Arc::default(),
            is_refused: false,
        });
        Self { cpus: cpus.collect(), changes: Changes::default() }
    }

    /// Tells from now on whether the CPU of a number is held by us.
    pub(super) fn held(&self) -> Box<dyn Fn(usize) -> bool + Send> {
        let held: BTreeMap<usize, _> =
            self.cpus.iter().map(|cpu| (cpu.number as usize, Arc::clone(&cpu.is_held))).collect();
        Box::new(move |cpu| held.get(&cpu).is_some_and(|is_held| is_held.load(Ordering::Relaxed)))
    }

    /// Holds and lets go by what the counters say, for as long as it is polled.
    pub(super) async fn follow(mut self, clock: Clock) -> Infallible {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(clock.monotonic());
        }
    }

    fn look(&mut self, now: Time) {
        for cpu in &mut self.cpus {
            cpu.look(now, &mut self.changes);
        }
    }
}

impl WorkerCpu {
    fn look(&mut self, now: Time, changes: &mut Changes) {
        let packets = self.counters.iter().map(|counters| counters.packets()).sum();
        let is_arriving = self.arrivals.look(now, packets);
        let is_held = self.is_held.load(Ordering::Relaxed);
        if is_arriving && !is_held && !self.is_refused {
            // Where somebody else holds it, it is looked at again each time: that one may let go.
            match changes.make(&self.bound, NONE_TOLERATED, |present| Ok(present == NONE_TOLERATED)) {
                Ok(is_ours) => self.is_held.store(is_ours, Ordering::Relaxed),
                Err(error) => {
                    self.is_refused = true;
                    tracing::info!(
                        cpu = self.number,
                        "the worker's CPU goes idle between packets, whose latency is higher for it: cannot write \
                         {NONE_TOLERATED} to {error}; it takes root and a writable /sys, --pm-qos=false does not try"
                    );
                }
            }
        } else if is_held && !is_arriving {
            changes.undo(&self.bound);
            self.is_held.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::sysfs::fake::FakeSysfs;
    use super::*;
    use crate::dataplane::counters::{Tally, Verdict};

    const CPU0: &str = "cpu0/power/pm_qos_resume_latency_us";
    const CPU1: &str = "cpu1/power/pm_qos_resume_latency_us";

    /// Workers on fake CPUs, in virtual time.
    struct Bench {
        sysfs: FakeSysfs,
        workers: Vec<(u32, Arc<WorkerCounters>)>,
        bounds: IdleBounds,
        now: Time,
    }

    impl Bench {
        /// With a worker on each of `cpus`.
        fn new(test: &str, settings: &[(&str, &str)], cpus: &[u32]) -> Self {
            let sysfs = FakeSysfs::new(test, settings);
            let workers: Vec<_> = cpus.iter().map(|cpu| (*cpu, Arc::default())).collect();
            let mut bounds = IdleBounds::below(&sysfs.0, &workers);
            let now = Time(1_000_000_000);
            bounds.look(now);
            Self { sysfs, workers, bounds, now }
        }

        /// A tenth of a second in which each worker had so many packets.
        fn pass(&mut self, packets: &[usize]) {
            for ((_, counters), packets) in self.workers.iter().zip(packets) {
                let mut tally = Tally::default();
                tally.add(Verdict::OpenedToLink, *packets);
                counters.add(&mut tally);
            }
            self.now = self.now + LOOK;
            self.bounds.look(self.now);
        }

        fn idle(&mut self) {
            (0..12).for_each(|_| self.pass(&[]));
        }

        fn values(&self) -> [String; 2] {
            [self.sysfs.value(CPU0), self.sysfs.value(CPU1)]
        }
    }

    #[test]
    fn the_cpu_at_which_packets_arrive_is_held_and_let_go() {
        let mut bench = Bench::new("held", &[(CPU0, "0\n"), (CPU1, "20\n")], &[0, 1]);
        let held = bench.bounds.held();
        bench.pass(&[99, 5000]);
        assert_eq!(bench.values(), ["0", "n/a"]);
        assert_eq!([held(0), held(1), held(2)], [false, true, false]);
        bench.idle();
        assert_eq!(bench.values(), ["0", "20"]);
        assert!(!held(1));
    }

    #[test]
    fn workers_that_share_a_cpu_share_its_packets() {
        let mut bench = Bench::new("shared", &[(CPU0, "0\n")], &[0, 0]);
        bench.pass(&[50, 50]);
        assert_eq!(bench.sysfs.value(CPU0), "n/a");
        for _ in 0..20 {
            bench.pass(&[100, 0]);
        }
        assert_eq!(bench.sysfs.value(CPU0), "n/a");
    }

    #[test]
    fn the_end_lets_go_of_all() {
        let mut bench = Bench::new("end", &[(CPU0, "0\n"), (CPU1, "n/a\n")], &[0, 1]);
        bench.pass(&[1000, 1000]);
        assert_eq!(bench.values(), ["n/a", "n/a"]);
        let Bench { sysfs, bounds, .. } = bench;
        drop(bounds);
        assert_eq!([sysfs.value(CPU0), sysfs.value(CPU1)], ["0", "n/a"]);
    }

    #[test]
    fn a_bound_of_somebody_else_is_taken_over_once_it_is_let_go() {
        let mut bench = Bench::new("other", &[(CPU0, "n/a\n")], &[0]);
        let held = bench.bounds.held();
        bench.pass(&[1000]);
        assert!(!held(0));
        fs::write(bench.sysfs.0.join(CPU0), "0\n").expect("write");
        bench.pass(&[1000]);
        assert!(held(0));
        bench.idle();
        assert_eq!(bench.sysfs.value(CPU0), "0");
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let mut bench = Bench::new("set", &[(CPU0, "0\n")], &[0]);
        bench.pass(&[1000]);
        fs::write(bench.sysfs.0.join(CPU0), "50\n").expect("write");
        bench.pass(&[1000]);
        assert_eq!(bench.sysfs.value(CPU0), "50");
        bench.idle();
        assert_eq!(bench.sysfs.value(CPU0), "50");
    }

    #[test]
    fn a_cpu_without_the_setting_is_tried_once_and_the_others_are_held() {
        let mut bench = Bench::new("missing", &[(CPU1, "0\n")], &[0, 1]);
        let held = bench.bounds.held();
        bench.pass(&[1000, 1000]);
        assert_eq!([held(0), held(1)], [false, true]);
        // As if it had come to be: nobody looks any more.
        fs::create_dir_all(bench.sysfs.0.join("cpu0/power")).expect("create");
        fs::write(bench.sysfs.0.join(CPU0), "0\n").expect("write");
        bench.pass(&[1000, 1000]);
        assert_eq!(bench.values(), ["0", "n/a"]);
    }

    /// Names the directory to the process that panics.
    const PANICS_OVER: &str = "WGX_TEST_PM_QOS";

    #[test]
    fn a_panic_lets_go_of_what_was_held_since() {
        if let Some(path) = std::env::var_os(PANICS_OVER) {
            crate::runtime::protect::protect_process().expect("protected");
            let counters = Arc::<WorkerCounters>::default();
            let mut bounds = IdleBounds::below(Path::new(&path), &[(0, Arc::clone(&counters))]);
            bounds.changes.undo_on_panic();
            bounds.look(Time(1_000_000_000));
            counters.add(&mut {
                let mut tally = Tally::default();
                tally.add(Verdict::OpenedToLink, 1000);
                tally
            });
            bounds.look(Time(2_000_000_000));
            let held = fs::read_to_string(Path::new(&path).join(CPU0)).expect("read");
            panic!("as with {held} in force");
        }
        let sysfs = FakeSysfs::new("pm-qos-panic", &[(CPU0, "20\n")]);
        let name = "runtime::pm_qos::tests::a_panic_lets_go_of_what_was_held_since";
        sysfs.dies_of_a_panic(name, PANICS_OVER, "as with n/a in force");
        assert_eq!(sysfs.value(CPU0), "20");
    }
}
