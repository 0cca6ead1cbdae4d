//! `cargo xtask asm`: what the compiler made of the AVX-512 kernels of the crate `aead`, in the release build.
//!
//! A kernel is as fast as its loops. The compiler may keep a function out of line, and then passes vectors through
//! memory, calls it in the loop and clears the upper halves of all registers (`vzeroupper`) around it: the result is
//! right, and half as fast. So the machine code is read and no loop of a kernel may hold either.
//!
//! And what the kernels leave on the stack is overwritten after each batch: as much as they use, which is added up here.

mod listing;
mod stack;

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo, step, target_dir};
use listing::{Function, Listing};

/// Where the backend's functions are.
const MODULE: &str = "aead::backend::avx512::";
/// Its kernels: in their loops are neither calls nor `vzeroupper`.
const KERNELS: [&str; 4] =
    ["schedule::xor_key_stream", "schedule::Secrets::of", "mac::tags", "mac::Messages::new"];
/// What calls the kernels, for each group of packets; any other function of the module that uses whole vectors should
/// have been part of a kernel.
const CALLERS: [&str; 2] = ["schedule::seal", "schedule::open"];
/// What overwrites the stack that the callers have used.
const WIPE: &str = "memory::wipe_stack";

/// Builds `wgx-aead` in release and checks it.
pub fn run() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("there are no AVX-512 kernels on {}", std::env::consts::ARCH);
    }
    step("build wgx-aead", build)?;
    step("read the machine code of the kernels", check)
}

/// Builds the release binary that has all kernels and little else.
pub fn build() -> Result<()> {
    command::run(cargo().args(["build", "--quiet", "--release", "--package", "bench", "--bin", "wgx-aead"]))
}

/// Checks the binary that is there.
pub fn check() -> Result<()> {
    let program = target_dir().join("release/wgx-aead");
    let objdump = |arguments: &[&str]| {
        command::output(command::command("objdump").args(arguments).arg(&program))
            .with_context(|| format!("`objdump {} {}` failed", arguments.join(" "), program.display()))
    };
    let code = objdump(&["--disassemble", "--demangle", "--no-show-raw-insn"])?;
    let listing = Listing::parse(&code, &objdump(&["--dynamic-reloc"])?);
    let complaints = complaints(&listing);
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints about the machine code in {}", complaints.len(), program.display());
    }
    Ok(())
}

fn complaints(listing: &Listing) -> Vec<String> {
    let mut complaints = Vec::new();
    for kernel in KERNELS {
        let name = format!("{MODULE}{kernel}");
        let instances: Vec<&Function> =
            listing.functions().filter(|function| function.name == name).collect();
        if instances.is_empty() {
            complaints.push(format!(
                "{name} is not there: it was renamed, or became part of another (KERNELS in xtask/src/asm/mod.rs)"
            ));
        }
        for function in instances {
            complaints.extend(loops(function, listing));
        }
    }
    complaints.extend(stack::complaints(listing));
    let is_known = |name: &str| KERNELS.iter().chain(&CALLERS).chain([&WIPE]).any(|known| *known == name);
    for function in listing.functions() {
        let Some(name) = function.name.strip_prefix(MODULE) else { continue };
        if !is_known(name) && function.uses("%zmm") {
            complaints.push(format!(
                "{MODULE}{name} is a function of its own with whole vectors: it should be part of a kernel"
            ));
        }
    }
    complaints
}

/// What does not belong in the loops of a kernel.
fn loops(function: &Function, listing: &Listing) -> Vec<String> {
    let mut complaints = Vec::new();
    if !function.uses("%zmm") {
        complaints.push(format!("{} uses no whole vectors: is it a kernel?", function.name));
    }
    for index in 0..function.instructions.len() {
        let instruction = &function.instructions[index];
        let place = || format!("{} at {:x}", function.name, instruction.address);
        if instruction.is_indirect_jump() {
            complaints.push(format!("{} jumps where nobody can follow", place()));
        }
        let is_unwanted = instruction.is_call() || instruction.mnemonic == "vzeroupper";
        if is_unwanted && function.is_in_loop(index, listing) {
            let what = listing.callee(instruction).unwrap_or_else(|| instruction.to_string());
            complaints.push(format!("{}: in a loop: {what}", place()));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listing in which the first kernel has these instructions and all others are flawless.
    fn with_kernel(body: &str) -> Vec<String> {
        let good = "   1: vpaddd %zmm0,%zmm0,%zmm0\n   2: ret\n";
        let code: Vec<String> = KERNELS
            .iter()
            .enumerate()
            .map(|(index, kernel)| {
                let body = if index == 0 { body } else { good };
                format!("000000000000000{index} <{MODULE}{kernel}>:\n{body}\n")
            })
            .collect();
        complaints(&Listing::parse(&(code.concat() + stack::tests::FLAWLESS), ""))
    }

    #[test]
    fn calls_and_vzeroupper_behind_a_loop_are_fine() {
        let body = "  10: vpaddd %zmm0,%zmm0,%zmm0\n  11: jne    10 <x>\n  12: vzeroupper\n  13: call   99 <memset>\n  14: ret\n";
        assert_eq!(with_kernel(body), [""; 0]);
    }

    #[test]
    fn a_call_and_a_vzeroupper_in_a_loop_are_found() {
        for unwanted in ["vzeroupper", "call   99 <helper>", "call   *0x8(%rip)        # 77 <_DYNAMIC+0x1>"] {
            let body = format!("  10: vpaddd %zmm0,%zmm0,%zmm0\n  11: {unwanted}\n  12: jmp    10 <x>\n");
            let complaints = with_kernel(&body);
            assert!(complaints.len() == 1 && complaints[0].contains("in a loop"), "{complaints:?}");
        }
    }

    #[test]
    fn a_panic_among_the_instructions_of_a_loop_is_no_part_of_it() {
        let body = "  10: vpaddd %zmm0,%zmm0,%zmm0\n  11: jne    14 <x>\n  12: vzeroupper\n  13: call   99 <core::panicking::panic>\n  14: jmp    10 <x>\n";
        assert_eq!(with_kernel(body), [""; 0]);
    }

    #[test]
    fn missing_kernels_and_functions_out_of_line_are_found() {
        let stray =
            format!("0000000000000009 <{MODULE}chacha::step>:\n   1: vprold $7,%zmm0,%zmm0\n   2: ret\n");
        let complaints = complaints(&Listing::parse(&(stray + stack::tests::FLAWLESS), ""));
        assert_eq!(complaints.len(), KERNELS.len() + 1, "{complaints:?}");
        assert!(complaints.last().is_some_and(|complaint| complaint.contains("chacha::step")));
    }
}
