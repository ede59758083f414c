//! Which values registers have at each instruction, and which instructions are never reached: constants are
//! followed along the ways that they leave open (Wegman and Zadeck, "Constant propagation with conditional
//! branches", 1991).

use super::{
    Constants, Reference,
    blocks::Blocks,
    instruction::{BY_REGISTER, Instruction, LOAD_WIDE, MEMORY, MODE, Next, REGISTERS, alu, class},
    value::{Value, computed, is_taken, operand},
};

type Registers = [Value; REGISTERS];

/// The registers that a call leaves nothing in: r0 to r5.
pub(super) const CLOBBERED: usize = 6;

/// What becomes of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// This does the same.
    Becomes(Instruction),
    /// It is not reached, or has no effect.
    Goes,
}

/// A function, and what it refers to.
pub(super) struct Flow<'a> {
    pub(super) code: &'a [Instruction],
    pub(super) blocks: &'a Blocks,
    pub(super) reference: &'a dyn Fn(usize) -> Option<Reference>,
    pub(super) constants: &'a dyn Constants,
}

impl Flow<'_> {
    /// What becomes of each slot.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let before = self.settled();
        let mut fates = vec![Fate::Goes; self.code.len()];
        for (block, registers) in self.blocks.iter().zip(before) {
            let Some(mut registers) = registers else {
                continue;
            };
            for (slot, instruction) in self.blocks.instructions(self.code, block) {
                let fate = self.fate(&registers, instruction);
                for fate_of_slot in fates.iter_mut().skip(slot).take(instruction.width()) {
                    *fate_of_slot = fate;
                }
                self.step(&mut registers, slot, instruction);
            }
        }
        fates
    }

    /// The registers at the beginning of each block; `None` of one that is not reached.
    fn settled(&self) -> Vec<Option<Registers>> {
        let mut before: Vec<Option<Registers>> = vec![None; self.blocks.len()];
        // Whoever calls may have anything in them.
        let mut reached = vec![(0, [Value::Unknown; REGISTERS])];
        while let Some((block, registers)) = reached.pop() {
            let Some(known) = before.get_mut(block) else {
                continue;
            };
            let joined = match *known {
                Some(known) => join(known, registers),
                None => registers,
            };
            if *known == Some(joined) {
                continue;
            }
            *known = Some(joined);
            self.leave(block, joined, &mut reached);
        }
        before
    }

    /// Goes through a block and on to those that follow.
    fn leave(&self, block: usize, mut registers: Registers, to: &mut Vec<(usize, Registers)>) {
        let Some(range) = self.blocks.get(block) else {
            return;
        };
        let mut taken = None;
        for (slot, instruction) in self.blocks.instructions(self.code, range) {
            taken = decision(&registers, instruction);
            self.step(&mut registers, slot, instruction);
        }
        let ways = self.blocks.ways(self.code, block);
        if taken != Some(true) || ways.there.is_none() {
            to.extend(ways.follows.map(|block| (block, registers)));
        }
        if taken != Some(false) {
            to.extend(ways.there.map(|block| (block, registers)));
        }
    }

    /// Has one instruction done.
    fn step(&self, registers: &mut Registers, slot: usize, instruction: Instruction) {
        let value = match instruction.class() {
            class::ALU | class::ALU64 if instruction.operation() == alu::END => Value::Unknown,
            class::ALU | class::ALU64 => computed(
                instruction,
                of(registers, instruction.dst()),
                of(registers, instruction.src()),
            ),
            class::LD => self.wide(slot, instruction),
            class::LDX => self
                .loaded(registers, instruction)
                .map_or(Value::Unknown, Value::Number),
            class::STX if instruction.code & MODE != MEMORY => {
                // Atomic: with some of them one of these gets what was there.
                for register in [0, instruction.src(), instruction.dst()] {
                    put(registers, register, Value::Unknown);
                }
                return;
            }
            _ if instruction.is_call() => {
                for register in 0..CLOBBERED {
                    put(registers, register, Value::Unknown);
                }
                return;
            }
            _ => return,
        };
        put(registers, instruction.dst(), value);
    }

    /// What a load of two slots has.
    fn wide(&self, slot: usize, instruction: Instruction) -> Value {
        if instruction.code != LOAD_WIDE {
            return Value::Unknown;
        }
        match (self.reference)(slot) {
            Some(Reference::Constant { section, offset }) => Value::Constant { section, offset },
            Some(Reference::Other) => Value::Unknown,
            None if instruction.src() == 0 => {
                let upper = self.code.get(slot + 1).map_or(0, |slot| slot.immediate);
                let [lower, upper] =
                    [instruction.immediate, upper].map(|half| u64::from(half.cast_unsigned()));
                Value::Number(upper << 32 | lower)
            }
            None => Value::Unknown,
        }
    }

    /// What is loaded, if that is a constant.
    fn loaded(&self, registers: &Registers, instruction: Instruction) -> Option<u64> {
        let Value::Constant { section, offset } = of(registers, instruction.src()) else {
            return None;
        };
        if instruction.code & MODE != MEMORY {
            return None;
        }
        let offset = offset.checked_add_signed(instruction.offset.into())?;
        self.constants.load(section, offset, instruction.size())
    }

    fn fate(&self, registers: &Registers, instruction: Instruction) -> Fate {
        if let Some(taken) = decision(registers, instruction) {
            return if taken {
                Fate::Becomes(instruction.always())
            } else {
                Fate::Goes
            };
        }
        let dst = of(registers, instruction.dst());
        let src = of(registers, instruction.src());
        let set = |value: u64| Instruction::set(instruction.dst(), value);
        let by_number = || {
            let number = operand(instruction, src).number()?;
            instruction.by_number(number)
        };
        let is_by_register = instruction.code & BY_REGISTER != 0;
        let other = match instruction.class() {
            class::LDX => self.loaded(registers, instruction).and_then(set),
            class::ALU | class::ALU64 if instruction.operation() == alu::END => None,
            class::ALU | class::ALU64 if instruction.operation() == alu::MOV && !is_by_register => {
                None
            }
            class::ALU | class::ALU64 => {
                let result = computed(instruction, dst, src).number().and_then(set);
                result.or_else(|| is_by_register.then(by_number).flatten())
            }
            class::JMP | class::JMP32 if is_by_register => match instruction.next() {
                Next::Branches(_) => by_number(),
                _ => None,
            },
            _ => None,
        };
        other.map_or(Fate::Stays, Fate::Becomes)
    }
}

/// Whether a branch is taken, if that is known.
fn decision(registers: &Registers, instruction: Instruction) -> Option<bool> {
    match instruction.next() {
        Next::Branches(_) => is_taken(
            instruction,
            of(registers, instruction.dst()),
            of(registers, instruction.src()),
        ),
        _ => None,
    }
}

fn join(one: Registers, other: Registers) -> Registers {
    let mut joined = one;
    for (value, other) in joined.iter_mut().zip(other) {
        *value = value.join(other);
    }
    joined
}

fn of(registers: &Registers, register: usize) -> Value {
    registers.get(register).copied().unwrap_or_default()
}

fn put(registers: &mut Registers, register: usize, value: Value) {
    if let Some(place) = registers.get_mut(register) {
        *place = value;
    }
}
