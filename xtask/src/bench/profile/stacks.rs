//! Sampled stacks, sorted by what the processor was doing.

use std::collections::BTreeMap;

/// What a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Ciphers and authenticators of the gateway.
    Cipher,
    /// The rest of the gateway's own code.
    Program,
    /// The kernel on the gateway's behalf.
    Kernel,
    /// The far side of a veth pair: what the receiver's soft interrupt does, on the processor that sent.
    Receiver,
    /// Threads of others, and idling.
    Others,
}

impl Part {
    /// Those that a packet pays for, in the order they are shown.
    pub const OF_A_PACKET: [Self; 4] = [Self::Cipher, Self::Program, Self::Kernel, Self::Receiver];

    /// For the reader of a table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cipher => "cipher",
            Self::Program => "rest of the program",
            Self::Kernel => "its system calls",
            Self::Receiver => "receive at the far end of the veth",
            Self::Others => "others",
        }
    }
}

/// Take what a veth receives, with NAPI and without, in whatever context.
const VETH_RECEIVE: [&str; 2] = ["veth_poll", "process_backlog"];
/// Parts of the names of functions that do cryptography, in Rust, assembler or Go.
const CIPHERS: [&str; 3] = ["chacha20", "poly1305", "aead"];
/// Addresses from here on are the kernel's (`Documentation/arch/x86/x86_64/mm.rst`).
const KERNEL_FIRST: u64 = 0xffff_8000_0000_0000;

/// Counts of samples.
#[derive(Debug, Default)]
pub struct Samples {
    functions: BTreeMap<(Part, String), u64>,
}

/// A frame of a stack.
struct Frame<'a> {
    address: u64,
    symbol: &'a str,
}

impl Samples {
    /// Reads what `perf script --fields comm,pid,ip,sym` prints: a line `COMM PID`, then the stack from its top, a line
    /// `ADDRESS SYMBOL` each, then an empty line.
    pub fn read(script: &str, is_own: impl Fn(u32) -> bool) -> Self {
        let mut samples = Self::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().skip_while(|line| line.is_empty());
            let Some(pid) = lines.next().and_then(process) else { continue };
            let stack: Vec<Frame<'_>> = lines.filter_map(frame).collect();
            let Some(top) = stack.first() else { continue };
            let part = part(&stack, is_own(pid));
            *samples.functions.entry((part, top.symbol.to_owned())).or_default() += 1;
        }
        samples
    }

    /// Samples of a part.
    pub fn of(&self, part: Part) -> u64 {
        self.functions.iter().filter(|((of, _), _)| *of == part).map(|(_, count)| count).sum()
    }

    /// Functions that packets pay for, the costliest first.
    pub fn functions(&self) -> Vec<(Part, String, u64)> {
        let mut functions: Vec<_> = self
            .functions
            .iter()
            .filter(|((part, _), _)| *part != Part::Others)
            .map(|((part, function), count)| (*part, function.clone(), *count))
            .collect();
        functions.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        functions
    }
}

/// Whose a sample is, by the line above its stack.
fn process(line: &str) -> Option<u32> {
    line.trim_end().rsplit_once(' ')?.1.parse().ok()
}

fn frame(line: &str) -> Option<Frame<'_>> {
    let (address, symbol) = line.trim().split_once(' ')?;
    Some(Frame { address: u64::from_str_radix(address, 16).ok()?, symbol: symbol.trim() })
}

/// Soft interrupts run on whoever's stack was there, so where a packet is received says more than whose thread it is.
fn part(stack: &[Frame<'_>], is_own: bool) -> Part {
    if stack.iter().any(|frame| VETH_RECEIVE.contains(&frame.symbol)) {
        return Part::Receiver;
    }
    match stack.first() {
        Some(_) if !is_own => Part::Others,
        Some(top) if top.address >= KERNEL_FIRST => Part::Kernel,
        Some(top) => {
            let symbol = top.symbol.to_ascii_lowercase();
            if CIPHERS.iter().any(|name| symbol.contains(name)) { Part::Cipher } else { Part::Program }
        }
        None => Part::Others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
wgx-queue-0  7
\t          1efb2a aead::backend::avx512::mac::tags
\t          1d0000 gateway::dataplane::worker::Worker::turn

wgx-queue-0  7
\tffffffff82195d8e __xsk_generic_xmit
\tffffffff82195d00 do_syscall_64

tokio worker 12
\tffffffff81000004 veth_poll
\tffffffff81000003 net_rx_action

wgx-queue-0 7
\tffffffff81000006 kfree_skb_list_reason
\tffffffff81000005 process_backlog

boringtun 7
\t          1d0001 ring_core_0_17_14__chacha20_poly1305_open

wgx-queue-0  7
\t          1d0000 gateway::dataplane::worker::Worker::turn

kdamond.0  77
\tffffffff81000001 __damon_get_folio

swapper  0
\tffffffff81000002 pv_native_safe_halt
";

    #[test]
    fn samples_are_sorted_by_what_was_done_for_whom() {
        let samples = Samples::read(SCRIPT, |pid| pid == 7);
        let counts = [Part::Cipher, Part::Program, Part::Kernel, Part::Receiver, Part::Others]
            .map(|part| samples.of(part));
        assert_eq!(counts, [2, 1, 1, 2, 2]);
        assert_eq!(samples.of(Part::Others), 2);
    }

    #[test]
    fn the_costliest_function_comes_first() {
        let twice = format!("{SCRIPT}\nwgx-queue-0 7\n\tffffffff82195d8e __xsk_generic_xmit\n");
        let functions = Samples::read(&twice, |pid| pid == 7).functions();
        assert_eq!(functions[0], (Part::Kernel, "__xsk_generic_xmit".to_owned(), 2));
        assert_eq!(functions.len(), 6, "{functions:?}");
    }

    #[test]
    fn odd_lines_are_no_samples() {
        for text in ["", "\n\n\n", "wgx", "wgx x\n\tffff a\n", "wgx 7\n", "wgx 7\n\tnot-hex a\n"] {
            let samples = Samples::read(text, |_| true);
            assert!(samples.functions().is_empty(), "{text:?}");
        }
    }
}
