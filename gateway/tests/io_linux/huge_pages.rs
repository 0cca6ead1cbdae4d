//! Where the memory of packets lies: on huge pages if there are any, else on ordinary ones.

use std::fs::{self, File};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gateway::io::{Backing, FramePool, Umem};

use crate::frames::frame_of;
use crate::report;

/// Huge pages of the default size, as a number to read and to write.
const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
const HUGE_PAGE_LEN: u64 = 2 << 20;
const FRAME_LEN: u32 = 2048;

/// How long others may take what was reserved before we get any of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Huge pages reserved for the time of a test; then there are as many as before. One test of the machine at a time.
struct Reservation {
    before: u64,
    _lock: File,
}

impl Reservation {
    /// Waits for other tests. An error says why there can be none.
    fn begin() -> Result<Self, String> {
        let lock = std::env::temp_dir().join("wgx-huge-pages.lock");
        let lock =
            File::create(&lock).map_err(|error| format!("cannot create {}: {error}", lock.display()))?;
        lock.lock().map_err(|error| format!("cannot lock a file: {error}"))?;
        if meminfo("Hugepagesize") != Some(HUGE_PAGE_LEN >> 10) {
            return Err("the kernel has no huge pages, or of another size than 2 MiB".to_owned());
        }
        Ok(Self { before: reserved()?, _lock: lock })
    }

    /// Has so many more than are in use already.
    fn add(&self, count: u64) -> Result<(), String> {
        let in_use = meminfo("HugePages_Total").unwrap_or(0) - meminfo("HugePages_Free").unwrap_or(0);
        let wanted = self.before.max(in_use + count);
        fs::write(RESERVED, wanted.to_string())
            .map_err(|error| format!("cannot write {wanted} to {RESERVED}: {error}"))?;
        let got = reserved()?;
        if got < wanted {
            Err(format!("the kernel has {got} huge pages where {wanted} were asked for"))
        } else {
            Ok(())
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if fs::write(RESERVED, self.before.to_string()).is_err() {
            eprintln!("{RESERVED} is not {} again", self.before);
        }
    }
}

fn reserved() -> Result<u64, String> {
    let text = fs::read_to_string(RESERVED).map_err(|error| format!("cannot read {RESERVED}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{RESERVED} holds {text:?}"))
}

/// A line of `/proc/meminfo`: pages, or KiB.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory of as many frames as fill so many huge pages.
fn pool(page_count: u64) -> FramePool {
    pool_of(page_count * HUGE_PAGE_LEN)
}

fn pool_of(len: u64) -> FramePool {
    let frame_count = u32::try_from(len / u64::from(FRAME_LEN)).expect("not so many");
    let (umem, frames) = Umem::new(FRAME_LEN, frame_count, Backing::Registered).expect("memory");
    FramePool::new(umem, frames)
}

/// The length of the pages that a frame lies on, in KiB (`KernelPageSize` of `proc_pid_smaps(5)`), after it was written to
/// and read again.
fn page_kib(pool: &mut FramePool) -> u64 {
    let mut frame = frame_of(pool, b"written");
    let address = pool.data_mut(&mut frame).as_ptr().addr();
    assert_eq!(pool.data_mut(&mut frame), b"written");
    pool.release(frame);
    let smaps = fs::read_to_string("/proc/self/smaps").expect("the kernel tells of mappings");
    let mut is_inside = false;
    for line in smaps.lines() {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (number(start), number(end))) {
            is_inside = (start..end).contains(&address);
        } else if let Some(size) = line.strip_prefix("KernelPageSize:").filter(|_| is_inside) {
            return size.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number");
        }
    }
    panic!("{address:#x} is in no mapping");
}

#[test]
fn packet_memory_lies_on_huge_pages_if_there_are_any_and_else_on_others() {
    let test = "packet_memory_lies_on_huge_pages_if_there_are_any_and_else_on_others";
    if !report::unless_root(test) {
        return;
    }
    let reservation = match Reservation::begin() {
        Ok(reservation) => reservation,
        Err(why) => return report::skip(test, &why),
    };
    // More than there are in all, used or not.
    let too_many = meminfo("HugePages_Total").unwrap_or(0) + 1;
    assert_eq!(page_kib(&mut pool(too_many)), 4, "with {} huge pages", too_many - 1);

    let deadline = Instant::now() + PATIENCE;
    loop {
        // Two for now and two for later: the kernel takes its time with memory that was registered.
        if let Err(why) = reservation.add(4) {
            return report::skip(test, &why);
        }
        let mut pool = pool(2);
        match page_kib(&mut pool) {
            2048 => break,
            // Another program with packet memory was faster.
            kib => assert!(Instant::now() < deadline, "on pages of {kib} KiB with huge ones free"),
        }
        drop(pool);
        sleep(Duration::from_millis(50));
    }
    // Unmapping part of a huge page fails, so memory that ends within one is not taken from them.
    assert_eq!(page_kib(&mut pool_of(HUGE_PAGE_LEN + HUGE_PAGE_LEN / 2)), 4, "with huge pages free");
}
