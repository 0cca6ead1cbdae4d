//! How much stack the kernels use, and whether that much is overwritten after each batch.

use super::{CALLERS, MODULE, WIPE};
use crate::asm::listing::{Function, Instruction, Listing};

/// What a function may use below its stack pointer without moving it (System V ABI, x86-64, section 3.2.2).
const RED_ZONE: u64 = 128;

/// What a call puts on the stack.
const RETURN_ADDRESS: u64 = 8;

pub(super) fn complaints(listing: &Listing) -> Vec<String> {
    let mut complaints = Vec::new();
    let wiped = wiped(listing, &mut complaints);
    for caller in CALLERS {
        let name = format!("{MODULE}{caller}");
        if instances(listing, &name).next().is_none() {
            complaints.push(format!(
                "{name} is not there: it was renamed, or became part of another (CALLERS in xtask/src/asm/mod.rs)"
            ));
            continue;
        }
        match depth(listing, &name, &mut Vec::new()) {
            Ok(used) if used > wiped => complaints.push(format!(
                "{name} uses {used} bytes of stack and {WIPE} overwrites {wiped}: STACK_LEN is too low"
            )),
            Ok(_) => {}
            Err(complaint) => complaints.push(complaint),
        }
        complaints.extend(left_as_they_are(listing, &name));
    }
    complaints
}

fn instances<'a>(listing: &'a Listing, name: &str) -> impl Iterator<Item = &'a Function> {
    listing.functions().filter(move |function| function.name == name)
}

/// How far below its caller's frame the wipe reaches: to the end of its own frame, which is for nothing else.
fn wiped(listing: &Listing, complaints: &mut Vec<String>) -> u64 {
    let name = format!("{MODULE}{WIPE}");
    let Some(function) = instances(listing, &name).next() else {
        complaints
            .push(format!("{name} is not there: what overwrites the stack? (WIPE in xtask/src/asm/mod.rs)"));
        return 0;
    };
    // Above what it saves, and above what it leaves out to align the rest, nothing is overwritten.
    if let Some(saving) =
        function.instructions.iter().find(|instruction| instruction.mnemonic == "push" || aligns(instruction))
    {
        complaints
            .push(format!("{name}: \"{saving}\": its frame should hold nothing but what it overwrites"));
    }
    frame(function, listing).unwrap_or_else(|complaint| {
        complaints.push(complaint);
        0
    })
}

/// Who calls a function that uses the stack has to call the wipe from the same frame. A jump there would come from the
/// frame above.
fn left_as_they_are(listing: &Listing, used_by: &str) -> Vec<String> {
    let wipe = format!("{MODULE}{WIPE}");
    let calls = |function: &Function, name: &str| {
        let callees = function.instructions.iter().filter_map(|instruction| listing.callee(instruction));
        callees.filter(|callee| callee == name).count()
    };
    let callers = listing.functions().filter(|function| calls(function, used_by) > 0);
    callers
        .filter(|function| calls(function, &wipe) == 0)
        .map(|function| format!("{} calls {used_by} and not {WIPE}", function.name))
        .collect()
}

fn aligns(instruction: &Instruction) -> bool {
    instruction.mnemonic == "and" && instruction.operands.ends_with(",%rsp")
}

/// Bytes that a function and those of the module that it calls use at most.
fn depth(listing: &Listing, name: &str, callers: &mut Vec<String>) -> Result<u64, String> {
    if callers.iter().any(|caller| caller == name) {
        return Err(format!("{name} calls itself: how much stack does it use?"));
    }
    callers.push(name.to_owned());
    let mut deepest = 0;
    for function in instances(listing, name) {
        let mut below = RED_ZONE;
        for instruction in &function.instructions {
            if let Some(callee) = listing.callee(instruction).filter(|callee| callee.starts_with(MODULE)) {
                below = below.max(depth(listing, &callee, callers)?);
            }
        }
        deepest = deepest.max(frame(function, listing)? + below);
    }
    callers.pop();
    Ok(deepest)
}

/// Bytes by which a function moves the stack pointer, at most: what it saves, aligns and takes.
fn frame(function: &Function, listing: &Listing) -> Result<u64, String> {
    let mut bytes = RETURN_ADDRESS;
    for (index, instruction) in function.instructions.iter().enumerate() {
        let unclear = || {
            format!(
                "{} at {:x}: \"{instruction}\": how much stack is that?",
                function.name, instruction.address
            )
        };
        let number = || {
            let (number, _) = instruction.operands.strip_prefix('$')?.split_once(',')?;
            u64::from_str_radix(number.strip_prefix("0x")?, 16).ok()
        };
        let taken = match instruction.mnemonic.as_str() {
            "push" => 8,
            "sub" if instruction.operands.ends_with(",%rsp") => number().ok_or_else(unclear)?,
            "and" if instruction.operands.ends_with(",%rsp") => {
                number().ok_or_else(unclear)?.wrapping_neg() - 1
            }
            _ => continue,
        };
        // Arguments are pushed in loops, too, and taken off again.
        if instruction.mnemonic != "push" && function.is_in_loop(index, listing) {
            return Err(unclear());
        }
        bytes += taken;
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A wipe of 2 KiB, callers that use 1 KiB and a kernel's 592 bytes, and their caller.
    pub(in crate::asm) const FLAWLESS: &str = "\
0000000000001000 <aead::backend::avx512::memory::wipe_stack>:
  1000: sub    $0x800,%rsp
  1001: ret
0000000000002000 <aead::backend::avx512::schedule::seal>:
  2000: push   %rbp
  2001: and    $0xffffffffffffffc0,%rsp
  2002: sub    $0x400,%rsp
  2003: call   9000 <aead::backend::avx512::mac::leaf>
  2004: ret
0000000000003000 <aead::backend::avx512::schedule::open>:
  3000: sub    $0x400,%rsp
  3001: ret
0000000000004000 <aead::backend::avx512::open>:
  4000: call   3000 <aead::backend::avx512::schedule::open>
  4001: call   1000 <aead::backend::avx512::memory::wipe_stack>
  4002: ret
0000000000009000 <aead::backend::avx512::mac::leaf>:
  9000: sub    $0x248,%rsp
  9001: ret
";

    fn of(code: &str) -> Vec<String> {
        complaints(&Listing::parse(code, ""))
    }

    #[test]
    fn what_fits_is_fine_and_each_byte_more_is_found() {
        assert_eq!(of(FLAWLESS), [""; 0]);
        // 8 + 8 + 63 + 1024 for the caller, 8 + the kernel's + 128 below it; 8 + 2048 are overwritten.
        let kernel = |len: u64| of(&FLAWLESS.replace("$0x248", &format!("${len:#x}")));
        let room = 8 + 2048 - (8 + 8 + 63 + 1024) - (8 + 128);
        assert_eq!(kernel(room), [""; 0]);
        let complaints = kernel(room + 1);
        assert!(complaints.len() == 1 && complaints[0].contains("STACK_LEN"), "{complaints:?}");
    }

    #[test]
    fn a_jump_to_the_wipe_and_none_are_found() {
        for other in ["jmp    1000 <aead::backend::avx512::memory::wipe_stack>", "nop"] {
            let call = "call   1000 <aead::backend::avx512::memory::wipe_stack>";
            let complaints = of(&FLAWLESS.replace(call, other));
            assert!(complaints.len() == 1 && complaints[0].contains("and not"), "{complaints:?}");
        }
    }

    #[test]
    fn frames_that_nobody_can_tell_are_found() {
        for unclear in ["sub    %rax,%rsp", "sub    $0x1000,%rsp\n  9002: jne    9000 <x>"] {
            let complaints = of(&FLAWLESS.replace("sub    $0x248,%rsp", unclear));
            assert!(complaints.len() == 1 && complaints[0].contains("how much"), "{complaints:?}");
        }
        let aligned = FLAWLESS.replace("sub    $0x800,%rsp", "and    $0xffffffffffffffc0,%rsp");
        assert!(of(&aligned).iter().any(|complaint| complaint.contains("nothing but")), "{:?}", of(&aligned));
    }
}
