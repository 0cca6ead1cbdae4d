//! What `objdump` prints, as functions with their instructions and the ways between these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Functions that do not return have one of these in their names: no way leads on behind a call to them.
const ENDS: [&str; 5] = ["panic", "_fail", "unwrap_failed", "expect_failed", "abort"];

/// One instruction.
pub struct Instruction {
    pub address: u64,
    pub mnemonic: String,
    pub operands: String,
}

/// One function. Several may have the same name: instances for other types.
pub struct Function {
    pub name: String,
    pub instructions: Vec<Instruction>,
}

/// A whole program.
pub struct Listing {
    functions: BTreeMap<u64, Function>,
    /// What the loader writes into a slot of the table of addresses: calls go through it.
    slots: BTreeMap<u64, u64>,
}

impl Listing {
    /// From `objdump --disassemble --demangle --no-show-raw-insn`, and `objdump --dynamic-reloc` of the same file.
    pub fn parse(code: &str, relocations: &str) -> Self {
        let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
        for line in code.lines() {
            if let Some((address, name)) = heading(line) {
                functions.insert(address, Function { name: name.to_owned(), instructions: Vec::new() });
            } else if let Some(instruction) = Instruction::parse(line)
                && let Some(mut function) = functions.last_entry()
            {
                function.get_mut().instructions.push(instruction);
            }
        }
        Self { functions, slots: relocations.lines().filter_map(relocation).collect() }
    }

    /// All functions.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// The name of what an instruction calls, where that can be known.
    pub fn callee(&self, instruction: &Instruction) -> Option<String> {
        if !instruction.is_call() {
            return None;
        }
        let operands = &instruction.operands;
        if operands.starts_with('*') {
            let slot = operands.split_once("# ")?.1.split_whitespace().next()?;
            let target = self.slots.get(&u64::from_str_radix(slot, 16).ok()?);
            // A slot of another library's function has that function's name.
            let named = || operands.split_once('<').map(|(_, name)| name.trim_end_matches('>').to_owned());
            return target.and_then(|target| Some(self.functions.get(target)?.name.clone())).or_else(named);
        }
        operands.split_once('<').map(|(_, name)| name.trim_end_matches('>').to_owned())
    }
}

/// `0000000000042cf0 <name>:`
fn heading(line: &str) -> Option<(u64, &str)> {
    let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
    Some((u64::from_str_radix(address, 16).ok()?, name))
}

/// `0000000000140550 R_X86_64_RELATIVE  *ABS*+0x00000000000f1230`
fn relocation(line: &str) -> Option<(u64, u64)> {
    let (slot, target) = line.split_once(" R_X86_64_RELATIVE")?;
    let target = target.trim().strip_prefix("*ABS*+0x")?;
    Some((u64::from_str_radix(slot.trim(), 16).ok()?, u64::from_str_radix(target, 16).ok()?))
}

impl Instruction {
    /// `   42f0d: vzeroupper`
    fn parse(line: &str) -> Option<Self> {
        let (address, text) = line.trim_start().split_once(':')?;
        let address = u64::from_str_radix(address, 16).ok()?;
        let (mnemonic, operands) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if mnemonic.is_empty() {
            return None;
        }
        Some(Self { address, mnemonic: mnemonic.to_owned(), operands: operands.trim().to_owned() })
    }

    pub fn is_call(&self) -> bool {
        self.mnemonic.starts_with("call")
    }

    fn is_jump(&self) -> bool {
        self.mnemonic.starts_with('j')
    }

    /// To an address that is computed.
    pub fn is_indirect_jump(&self) -> bool {
        (self.is_jump() || self.mnemonic == "notrack") && self.operands.contains('*')
    }

    fn target(&self) -> Option<u64> {
        let address = self.operands.split_whitespace().next().filter(|_| self.is_jump())?;
        u64::from_str_radix(address, 16).ok()
    }

    /// Whether the next instruction may follow.
    fn goes_on(&self, listing: &Listing) -> bool {
        if self.is_call() {
            let callee = listing.callee(self);
            return !callee.is_some_and(|name| ENDS.iter().any(|end| name.contains(end)));
        }
        !(self.mnemonic.starts_with("jmp") || ["ret", "ud2", "notrack"].contains(&self.mnemonic.as_str()))
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mnemonic, self.operands)
    }
}

impl Function {
    /// Whether any instruction has this among its operands.
    pub fn uses(&self, operand: &str) -> bool {
        self.instructions.iter().any(|instruction| instruction.operands.contains(operand))
    }

    fn next(&self, index: usize, listing: &Listing) -> impl Iterator<Item = usize> {
        let instruction = &self.instructions[index];
        let target = instruction.target().and_then(|target| {
            self.instructions.binary_search_by_key(&target, |instruction| instruction.address).ok()
        });
        let following =
            Some(index + 1).filter(|next| *next < self.instructions.len() && instruction.goes_on(listing));
        target.into_iter().chain(following)
    }

    /// Whether a way leads from an instruction back to it.
    pub fn is_in_loop(&self, index: usize, listing: &Listing) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = self.next(index, listing).collect();
        while let Some(at) = open.pop() {
            if at == index {
                return true;
            }
            if seen.insert(at) {
                open.extend(self.next(at, listing));
            }
        }
        false
    }
}
