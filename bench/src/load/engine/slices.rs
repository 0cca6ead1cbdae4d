//! Who else had the processors of gateway and generator during a trial.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{
        PerfEvent, RawTracePoint,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
};
use gateway_ebpf::slice_layout::{
    CLOCK_PERIOD_NS, CLOCK_PROGRAM, SWITCH_PROGRAM, SWITCH_TRACEPOINT, TIME_SLICES, TimeSlice, WATCHES, Watch,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::held_up::{Cause, Pause};
use super::live::program;
use super::mapped::MappedArray;
use crate::load::Watched;
use crate::media::clock::now_ns;

/// What `cargo xtask build-ebpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WGX_SLICES_OBJECT"));

/// Slices there is room for on each CPU: of 20 us at least, so for more than two seconds without a break.
const ROOM: u32 = 1 << 17;
/// A program that runs when it is detached ends within this time.
const LAST_RUN: Duration = Duration::from_millis(1);
/// The kernel works on packets in this thread when there are many: part of what is measured.
const SOFT_INTERRUPTS: &str = "ksoftirqd/";

const WATCH_LEN: usize = size_of::<Watch>();

/// The program and its maps.
pub struct Slices {
    ebpf: Ebpf,
    taken_down: MappedArray<TimeSlice>,
    watched: Watched,
    cpu_count: u32,
}

impl Slices {
    /// Loads the programs; they see nothing yet.
    ///
    /// # Errors
    /// Missing capabilities, or a CPU that is not there.
    pub fn load(mut watched: Watched) -> Result<Self> {
        watched.cpus.sort_unstable();
        watched.cpus.dedup();
        let cpu_count = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))? as u32;
        if let Some(cpu) = watched.cpus.iter().find(|&&cpu| cpu >= cpu_count) {
            bail!("CPU {cpu} cannot be watched: there are {cpu_count}");
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(WATCHES, cpu_count)
            .map_max_entries(TIME_SLICES, ROOM * watched.cpus.len().max(1) as u32)
            .load(OBJECT)
            .context("cannot load the BPF object that sees switches of threads")?;
        let switches: &mut RawTracePoint = program(&mut ebpf, SWITCH_PROGRAM)?;
        switches.load().context("the kernel refuses the program that sees switches of threads")?;
        let clock: &mut PerfEvent = program(&mut ebpf, CLOCK_PROGRAM)?;
        clock.load().context("the kernel refuses the program that a clock runs")?;
        let taken_down = MappedArray::of(&ebpf, TIME_SLICES)?;
        Ok(Self { ebpf, taken_down, watched, cpu_count })
    }

    /// Does `work` and returns what came of it, with the times in which others had the processors.
    ///
    /// # Errors
    /// The program cannot be attached.
    pub fn during<T>(&mut self, work: impl FnOnce() -> T) -> Result<(T, Vec<Pause>)> {
        let own = [self.watched.process.unwrap_or(0), std::process::id()];
        let mut watches: Array<_, [u8; WATCH_LEN]> =
            self.ebpf.map_mut(WATCHES).context("the object has no watches")?.try_into()?;
        for cpu in 0..self.cpu_count {
            let place = self.watched.cpus.iter().position(|&watched| watched == cpu);
            let [first, room] = place.map_or([0; 2], |place| [place as u32 * ROOM, ROOM]);
            let watch = Watch { since_ns: now_ns(), first, room, own, ..Watch::default() };
            let bytes: [u8; WATCH_LEN] = zerocopy::transmute!(watch);
            watches.set(cpu, bytes, 0).context("a watch cannot be set")?;
        }
        let switches: &mut RawTracePoint = program(&mut self.ebpf, SWITCH_PROGRAM)?;
        let seeing = switches.attach(SWITCH_TRACEPOINT).context("switches of threads cannot be watched")?;
        let seeing = switches.take_link(seeing)?;
        let clock: &mut PerfEvent = program(&mut self.ebpf, CLOCK_PROGRAM)?;
        let mut running = Vec::new();
        for &cpu in &self.watched.cpus {
            let event = PerfEventConfig::Software(SoftwareEvent::CpuClock);
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let run = clock
                .attach(event, scope, SamplePolicy::Period(CLOCK_PERIOD_NS), false)
                .with_context(|| format!("no clock runs on CPU {cpu}"))?;
            running.push(clock.take_link(run)?);
        }
        let result = work();
        // Nothing is written any more when it is read.
        drop((seeing, running));
        sleep(LAST_RUN);
        Ok((result, self.pauses()?))
    }

    fn pauses(&self) -> Result<Vec<Pause>> {
        let watches: Array<_, [u8; WATCH_LEN]> =
            self.ebpf.map(WATCHES).context("the object has no watches")?.try_into()?;
        let slices = self.taken_down.elements()?;
        let mut pauses = Vec::new();
        for &cpu in &self.watched.cpus {
            let bytes = watches.get(&cpu, 0).context("a watch cannot be read")?;
            let watch = Watch::read_from_bytes(&bytes).ok().context("a watch")?;
            ensure!(
                watch.seen <= watch.room,
                "{} switches of threads on CPU {cpu} are more than there is room for: use a shorter trial",
                watch.seen
            );
            for slice in &slices[watch.first as usize..][..watch.seen as usize] {
                let TimeSlice { from_ns, until_ns, .. } = *slice;
                let by = match name(slice) {
                    name if name.starts_with(SOFT_INTERRUPTS) => continue,
                    name if name.is_empty() => Cause::Machine,
                    name => Cause::Thread(name),
                };
                pauses.push(Pause { from_ns, until_ns, by, cpu });
            }
        }
        Ok(pauses)
    }
}

/// The thread's name, as far as it is text.
fn name(slice: &TimeSlice) -> String {
    let bytes = slice.name.as_bytes();
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_zero_or_with_its_room() {
        let named = |text: &[u8]| {
            let mut slice = TimeSlice::default();
            slice.name[..text.len()].copy_from_slice(text);
            name(&slice)
        };
        assert_eq!(named(b"kdamond.0"), "kdamond.0");
        assert_eq!(named(b"0123456789abcdef"), "0123456789abcdef");
    }
}
