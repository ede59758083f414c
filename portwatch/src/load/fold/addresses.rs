//! Addresses that are computed for one load or store: they go into its offset.
//!
//! Where a member of a structure lies is known only when the programs are loaded, so the compiler adds it to the
//! address before each load. Once it is a number, the load itself can add it, and the copy and the addition go.

use std::ops::Range;

use super::{
    blocks::Blocks,
    flow::{CLOBBERED, Fate},
    instruction::{Instruction, MEMORY, MODE, REGISTERS, alu, class},
};

/// The register that has the end of the stack, which lies before it.
const FRAME: usize = 10;

/// That a register has what another one has, and so much more.
#[derive(Clone, Copy, Debug)]
struct Distance {
    from: usize,
    by: i64,
}

/// What registers have to do with each other at one instruction.
#[derive(Default)]
struct Known([Option<Distance>; REGISTERS]);

/// Has loads and stores begin at the register from which another one was computed. `code`: with the fates applied.
pub(super) fn without_detours(code: &mut [Instruction], blocks: &Blocks, fates: &[Fate]) {
    for block in blocks.iter() {
        let mut known = Known::default();
        for slot in block {
            let Some(instruction) = code.get_mut(slot).filter(|_| stays(fates, slot)) else {
                continue;
            };
            if let Some(direct) = known.direct(*instruction) {
                *instruction = direct;
            }
            known.step(*instruction);
        }
    }
}

/// Leaves out additions to a register that nothing but loads and stores look at before it is written anew.
pub(super) fn without_additions(code: &mut [Instruction], blocks: &Blocks, fates: &mut [Fate]) {
    for block in blocks.iter() {
        for slot in block.clone() {
            let Some((register, by)) = code
                .get(slot)
                .filter(|_| stays(fates, slot))
                .and_then(|instruction| addition(*instruction))
            else {
                continue;
            };
            let Some(uses) = uses(code, fates, slot + 1..block.end, register) else {
                continue;
            };
            let direct: Option<Vec<_>> = uses
                .into_iter()
                .map(|at| Some((at, moved(*code.get(at)?, register, by)?)))
                .collect();
            let (Some(direct), Some(fate)) = (direct, fates.get_mut(slot)) else {
                continue;
            };
            *fate = Fate::Goes;
            for (at, instruction) in direct {
                if let Some(place) = code.get_mut(at) {
                    *place = instruction;
                }
            }
        }
    }
}

/// The loads and stores that begin at a register, up to one that writes it; `None` where it is read otherwise, or may
/// be read after these slots.
fn uses(
    code: &[Instruction],
    fates: &[Fate],
    slots: Range<usize>,
    register: usize,
) -> Option<Vec<usize>> {
    let mut uses = Vec::new();
    for slot in slots.filter(|&slot| stays(fates, slot)) {
        let instruction = *code.get(slot)?;
        let is_base = base(instruction) == Some(register);
        if is_base {
            uses.push(slot);
        }
        match instruction.class() {
            class::LDX => {
                if !is_base && instruction.src() == register {
                    return None;
                }
                if instruction.dst() == register {
                    return Some(uses);
                }
            }
            class::ST if is_base || instruction.dst() != register => {}
            class::STX if is_base || instruction.dst() != register => {
                if instruction.src() == register || instruction.code & MODE != MEMORY {
                    return None;
                }
            }
            class::ALU | class::ALU64 => {
                let reads = instruction.is_by_register() && instruction.src() == register;
                let writes = instruction.dst() == register;
                if reads || writes && instruction.operation() != alu::MOV {
                    return None;
                }
                if writes {
                    return Some(uses);
                }
            }
            // Of a wide load the second slot is one of this class, of r0.
            class::LD if instruction.dst() != register => {}
            _ => return None,
        }
    }
    None
}

impl Known {
    /// The same load or store, from where its address was computed.
    fn direct(&self, instruction: Instruction) -> Option<Instruction> {
        let Distance { from, by } = (*self.0.get(base(instruction)?)?)?;
        moved(instruction, from, by)
    }

    fn step(&mut self, instruction: Instruction) {
        let dst = instruction.dst();
        match instruction.class() {
            class::ALU64 if is_copy(instruction) => {
                let src = instruction.src();
                if src == dst {
                    return;
                }
                let distance = self.of(src).unwrap_or(Distance { from: src, by: 0 });
                self.forget(dst);
                if distance.from != dst {
                    self.put(dst, Some(distance));
                }
            }
            class::ALU64 if addition(instruction).is_some() => {
                let by = i64::from(instruction.immediate);
                for distance in self.0.iter_mut().flatten() {
                    if distance.from == dst {
                        distance.by -= by;
                    }
                }
                if let Some(Some(distance)) = self.0.get_mut(dst) {
                    distance.by += by;
                }
            }
            class::ALU | class::ALU64 | class::LD | class::LDX => self.forget(dst),
            // Some atomic ones leave in these what was there.
            class::STX if instruction.code & MODE != MEMORY => {
                for register in [0, instruction.src(), dst] {
                    self.forget(register);
                }
            }
            _ if instruction.is_call() => {
                for register in 0..CLOBBERED {
                    self.forget(register);
                }
            }
            _ => {}
        }
    }

    fn of(&self, register: usize) -> Option<Distance> {
        self.0.get(register).copied().flatten()
    }

    fn put(&mut self, register: usize, distance: Option<Distance>) {
        if let Some(place) = self.0.get_mut(register) {
            *place = distance;
        }
    }

    /// A register is written.
    fn forget(&mut self, register: usize) {
        self.put(register, None);
        for distance in &mut self.0 {
            if distance.is_some_and(|distance| distance.from == register) {
                *distance = None;
            }
        }
    }
}

/// The register that has the address of a plain load or store.
fn base(instruction: Instruction) -> Option<usize> {
    match instruction.class() {
        _ if instruction.code & MODE != MEMORY => None,
        class::LDX => Some(instruction.src()),
        class::ST | class::STX => Some(instruction.dst()),
        _ => None,
    }
}

/// A load or store with another base, so much further; `None` where that is too far to say, or before the base: some of
/// the kernel's compilers to machine code take such a load for one of user memory, and make 0 of it (5.16 to 6.2,
/// arch/x86/net/bpf_jit_comp.c).
fn moved(instruction: Instruction, base: usize, by: i64) -> Option<Instruction> {
    let offset = i16::try_from(i64::from(instruction.offset).checked_add(by)?).ok()?;
    if offset < 0 && instruction.offset >= 0 && base != FRAME {
        return None;
    }
    let base = u8::try_from(base).ok()?;
    let registers = match instruction.class() {
        class::LDX => instruction.registers & 0x0f | base << 4,
        _ => instruction.registers & 0xf0 | base,
    };
    Some(Instruction {
        registers,
        offset,
        ..instruction
    })
}

/// Whether it copies all of a register.
fn is_copy(instruction: Instruction) -> bool {
    instruction.class() == class::ALU64
        && instruction.operation() == alu::MOV
        && instruction.is_by_register()
        && instruction.offset == 0
}

/// What adds a number to a register: which and how much.
fn addition(instruction: Instruction) -> Option<(usize, i64)> {
    let is_it = instruction.class() == class::ALU64
        && instruction.operation() == alu::ADD
        && !instruction.is_by_register();
    is_it.then(|| (instruction.dst(), instruction.immediate.into()))
}

fn stays(fates: &[Fate], slot: usize) -> bool {
    fates.get(slot).is_some_and(|fate| *fate != Fate::Goes)
}
