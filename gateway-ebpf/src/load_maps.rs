//! The load generator's maps, and the helpers of the kernel that move whole frames to and from them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_adjust_tail,
        bpf_xdp_store_bytes,
    },
    macros::map,
    maps::{Array, DevMap},
    programs::{TcContext, XdpContext},
};
use gateway_ebpf::load_layout::{
    Arrival, CHUNK_LEN, Capturing, Departure, FRAME_LEN_MAX, HEAD_LEN, KEPT_LEN, OFFSET_MAX, Sending,
    TARGETS_MAX,
};

#[map]
static SENDING: Array<Sending> = Array::with_max_entries(1, 0);
#[map]
static DEPARTURES: Array<Departure> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CHUNKS: Array<[u8; CHUNK_LEN]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static TARGETS: DevMap = DevMap::with_max_entries(TARGETS_MAX, 0);
#[map]
static CAPTURING: Array<Capturing> = Array::with_max_entries(1, 0);
#[map]
static ARRIVALS: Array<Arrival> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static KEPT: Array<[u8; KEPT_LEN]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes nothing and always works.
    unsafe { bpf_ktime_get_ns() }
}

/// How far the generator is. There is one generator, so nobody else writes.
#[inline(always)]
pub fn sending() -> Option<&'static mut Sending> {
    // SAFETY: an element of an array stays where it is, and only one test run at a time uses this one.
    unsafe { SENDING.get_ptr_mut(0)?.as_mut() }
}

/// Departure `index`.
#[inline(always)]
pub fn departure(index: u32) -> Option<&'static mut Departure> {
    // SAFETY: as above.
    unsafe { DEPARTURES.get_ptr_mut(index)?.as_mut() }
}

/// Makes the frame of `context`, which has [`FRAME_LEN_MAX`] bytes, that of a departure; `false` where the departure makes no sense.
#[inline(always)]
pub fn write_frame(context: &XdpContext, departure: &Departure) -> bool {
    let (offset, len) = (departure.offset as usize, departure.len as usize);
    if offset > OFFSET_MAX || len == 0 || len > FRAME_LEN_MAX {
        return false;
    }
    let Some(chunk) = CHUNKS.get_ptr(departure.chunk) else { return false };
    let change = len as i32 - FRAME_LEN_MAX as i32;
    // SAFETY: the context is this invocation's; the kernel checks the new length. Nobody holds on to the packet's ends.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, change) } != 0 {
        return false;
    }
    // SAFETY: `offset + len` is at most the length of a chunk, as checked above and again by the verifier.
    let bytes = unsafe { chunk.cast::<u8>().add(offset) };
    // SAFETY: as above; the kernel compares `len` with the frame's.
    unsafe { bpf_xdp_store_bytes(context.ctx, 0, bytes.cast_mut().cast(), len as u32) == 0 }
}

/// Sends the frame out of interface number `target`, without a look at who is there.
#[inline(always)]
pub fn send(target: u32) -> u32 {
    TARGETS.redirect(target, u64::from(xdp_action::XDP_DROP)).unwrap_or(xdp_action::XDP_DROP)
}

/// Takes down the frame of `context`, where there is room for it. Each CPU has a part of the arrivals to itself.
#[inline(always)]
pub fn record(context: &TcContext, interface: u16) {
    // SAFETY: takes nothing and always works.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(capturing) = CAPTURING.get_ptr_mut(cpu) else { return };
    // SAFETY: an element of an array stays where it is; this CPU's is its own, and is not interrupted by another
    // arrival. User space writes it while nothing arrives.
    let capturing = unsafe { &mut *capturing };
    let number = capturing.seen as u32;
    capturing.seen += 1;
    if number >= capturing.room {
        return;
    }
    let Some(arrival) = ARRIVALS.get_ptr_mut(capturing.first + number) else { return };
    // SAFETY: as above: nobody else has this number.
    let arrival = unsafe { &mut *arrival };
    arrival.at_ns = now_ns();
    arrival.len = context.len();
    arrival.interface = interface;
    // SAFETY: writes the array that it is given the length of.
    unsafe {
        bpf_skb_load_bytes(context.skb.skb.cast(), 0, arrival.head.as_mut_ptr().cast(), HEAD_LEN as u32)
    };
    if capturing.keep_every != 0 && number % capturing.keep_every == 0 {
        keep(context, capturing.first_kept + number / capturing.keep_every);
    }
}

/// Keeps the whole frame, where there is room for it.
#[inline(always)]
fn keep(context: &TcContext, index: u32) {
    let len = context.len();
    if len == 0 || len as usize > KEPT_LEN {
        return;
    }
    if let Some(kept) = KEPT.get_ptr_mut(index) {
        // SAFETY: `len` is at most that of the array, and nobody else has this index.
        unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), 0, kept.cast(), len) };
    }
}
