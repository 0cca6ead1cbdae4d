//! Takes down who had a processor, and from when until when: what the tail of a latency is made of, where a machine does
//! other work beside the gateway. For benchmarks, not part of the gateway.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod freestanding;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::BPF_F_MMAPABLE,
        helpers::{
            bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        },
        macros::{map, perf_event, raw_tracepoint},
        maps::Array,
        programs::{PerfEventContext, RawTracePointContext},
    };
    use gateway_ebpf::slice_layout::{
        CLOCK_PERIOD_NS, NAME_LEN, SLICE_MIN_NS, STANDSTILL_MIN_NS, TimeSlice, Watch,
    };

    #[map]
    static WATCHES: Array<Watch> = Array::with_max_entries(1, 0);
    #[map]
    static TIME_SLICES: Array<TimeSlice> = Array::with_max_entries(1, BPF_F_MMAPABLE);

    /// The thread that leaves is still the current one.
    #[raw_tracepoint(tracepoint = "sched_switch")]
    pub fn wgx_sched_switch(_context: RawTracePointContext) -> i32 {
        let Some(watch) = watch() else { return 0 };
        let until_ns = now_ns();
        let from_ns = core::mem::replace(&mut watch.since_ns, until_ns);
        let pid_tgid = bpf_get_current_pid_tgid();
        let [thread, process] = [pid_tgid as u32, (pid_tgid >> 32) as u32];
        // Thread 0 is the idle one.
        if thread != 0 && until_ns - from_ns >= SLICE_MIN_NS && !watch.own.contains(&process) {
            let name = bpf_get_current_comm().unwrap_or_default();
            take_down(watch, TimeSlice { from_ns, until_ns, name });
        }
        0
    }

    /// Runs in the timer's interrupt: when it is late, the CPU did nothing at all.
    #[perf_event]
    pub fn wgx_clock(_context: PerfEventContext) -> u32 {
        let Some(watch) = watch() else { return 0 };
        let until_ns = now_ns();
        let from_ns = core::mem::replace(&mut watch.clock_ns, until_ns) + CLOCK_PERIOD_NS;
        if from_ns != CLOCK_PERIOD_NS && until_ns > from_ns + STANDSTILL_MIN_NS {
            take_down(watch, TimeSlice { from_ns, until_ns, name: [0; NAME_LEN] });
        }
        0
    }

    fn now_ns() -> u64 {
        // SAFETY: takes nothing and always works.
        unsafe { bpf_ktime_get_ns() }
    }

    fn watch() -> Option<&'static mut Watch> {
        // SAFETY: takes nothing and always works.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        // SAFETY: an element of an array stays where it is. This CPU's is its own: interrupts are off at a switch as in
        // the timer's interrupt, so that neither program meets the other. User space writes it before they are attached.
        unsafe { WATCHES.get_ptr_mut(cpu)?.as_mut() }
    }

    fn take_down(watch: &mut Watch, slice: TimeSlice) {
        let number = watch.seen;
        watch.seen += 1;
        if number >= watch.room {
            return;
        }
        if let Some(place) = TIME_SLICES.get_ptr_mut(watch.first + number) {
            // SAFETY: as above: nobody else has this number.
            unsafe { place.write(slice) };
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("slices is a BPF program: build it with `cargo xtask build-ebpf`, `wgx-load` loads it");
    std::process::exit(1);
}
