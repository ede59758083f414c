//! Instructions of eBPF (Documentation/bpf/standardization/instruction-set.rst).

/// Bytes of a slot.
pub(crate) const SLOT: usize = 8;

/// Registers: r0 to r10.
pub(super) const REGISTERS: usize = 11;

/// Classes, the lower three bits of the code.
pub(super) mod class {
    pub(crate) const LD: u8 = 0;
    pub(crate) const LDX: u8 = 1;
    pub(crate) const ST: u8 = 2;
    pub(crate) const STX: u8 = 3;
    pub(crate) const ALU: u8 = 4;
    pub(crate) const JMP: u8 = 5;
    pub(crate) const JMP32: u8 = 6;
    pub(crate) const ALU64: u8 = 7;
}

/// Operations of ALU and ALU64.
pub(super) mod alu {
    pub(crate) const ADD: u8 = 0x00;
    pub(crate) const SUB: u8 = 0x10;
    pub(crate) const MUL: u8 = 0x20;
    pub(crate) const DIV: u8 = 0x30;
    pub(crate) const OR: u8 = 0x40;
    pub(crate) const AND: u8 = 0x50;
    pub(crate) const LSH: u8 = 0x60;
    pub(crate) const RSH: u8 = 0x70;
    pub(crate) const NEG: u8 = 0x80;
    pub(crate) const MOD: u8 = 0x90;
    pub(crate) const XOR: u8 = 0xa0;
    pub(crate) const MOV: u8 = 0xb0;
    pub(crate) const ARSH: u8 = 0xc0;
    pub(crate) const END: u8 = 0xd0;
}

/// Operations of JMP and JMP32.
pub(super) mod jump {
    pub(crate) const ALWAYS: u8 = 0x00;
    pub(crate) const EQ: u8 = 0x10;
    pub(crate) const GT: u8 = 0x20;
    pub(crate) const GE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x40;
    pub(crate) const NE: u8 = 0x50;
    pub(crate) const SGT: u8 = 0x60;
    pub(crate) const SGE: u8 = 0x70;
    pub(crate) const CALL: u8 = 0x80;
    pub(crate) const EXIT: u8 = 0x90;
    pub(crate) const LT: u8 = 0xa0;
    pub(crate) const LE: u8 = 0xb0;
    pub(crate) const SLT: u8 = 0xc0;
    pub(crate) const SLE: u8 = 0xd0;
}

/// Bit of the code: the second operand is a register.
pub(super) const BY_REGISTER: u8 = 0x08;
/// A load of 64 bits from the instruction itself, which has two slots.
pub(super) const LOAD_WIDE: u8 = 0x18;
/// Bits of the code of a load or store: how.
pub(super) const MODE: u8 = 0xe0;
/// An ordinary one.
pub(super) const MEMORY: u8 = 0x60;
/// `src` of a call of a function of the same program (BPF_PSEUDO_CALL).
pub(crate) const TO_FUNCTION: u8 = 1;

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Opcode.
    pub(crate) code: u8,
    /// Destination register, in the lower half, and source register.
    pub(crate) registers: u8,
    /// Of a jump how many slots, of a load or store how many bytes.
    pub(crate) offset: i16,
    /// Second operand.
    pub(crate) immediate: i32,
}

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// With what follows.
    Follows,
    /// There, so many slots after the following one.
    Jumps(i64),
    /// There or with what follows.
    Branches(i64),
    /// Nowhere.
    Ends,
}

impl Instruction {
    /// From eight bytes.
    pub(crate) const fn from_bytes(bytes: [u8; SLOT]) -> Self {
        let [code, registers, a, b, c, d, e, f] = bytes;
        Self {
            code,
            registers,
            offset: i16::from_ne_bytes([a, b]),
            immediate: i32::from_ne_bytes([c, d, e, f]),
        }
    }

    /// As eight bytes.
    pub(crate) fn bytes(self) -> [u8; SLOT] {
        let [a, b] = self.offset.to_ne_bytes();
        let [c, d, e, f] = self.immediate.to_ne_bytes();
        [self.code, self.registers, a, b, c, d, e, f]
    }

    pub(super) const fn class(self) -> u8 {
        self.code & 7
    }

    /// Of ALU, ALU64, JMP and JMP32.
    pub(super) const fn operation(self) -> u8 {
        self.code & 0xf0
    }

    pub(super) const fn dst(self) -> usize {
        (self.registers & 0xf) as usize
    }

    pub(super) const fn src(self) -> usize {
        (self.registers >> 4) as usize
    }

    pub(super) const fn is_by_register(self) -> bool {
        self.code & BY_REGISTER != 0
    }

    /// Slots that it has.
    pub(super) const fn width(self) -> usize {
        if self.code == LOAD_WIDE { 2 } else { 1 }
    }

    pub(super) const fn is_alu(self) -> bool {
        matches!(self.class(), class::ALU | class::ALU64)
    }

    /// Whether it is a call.
    pub(crate) const fn is_call(self) -> bool {
        self.code == class::JMP | jump::CALL
    }

    /// Whether it is one of a function of the same section, so many slots after the following one.
    pub(crate) const fn is_call_of_function(self) -> bool {
        self.is_call() && self.registers >> 4 == TO_FUNCTION
    }

    /// Whether it is one of a helper of the kernel, by its number.
    pub(crate) const fn is_call_of_helper(self) -> bool {
        self.is_call() && self.registers >> 4 == 0
    }

    /// Bytes that a load or store moves.
    pub(super) const fn size(self) -> usize {
        match self.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// Whether it is one of those that are known here; a jump or call through a register is not.
    pub(super) const fn is_known(self) -> bool {
        match self.class() {
            class::LD => self.code == LOAD_WIDE,
            class::JMP => match self.operation() {
                jump::ALWAYS | jump::CALL | jump::EXIT => !self.is_by_register(),
                operation => operation <= jump::SLE || self.is_may_goto(),
            },
            class::JMP32 => match self.operation() {
                jump::ALWAYS => !self.is_by_register(),
                jump::CALL | jump::EXIT => false,
                operation => operation <= jump::SLE,
            },
            _ => true,
        }
    }

    /// A branch that the kernel takes after a while (BPF_JCOND).
    pub(super) const fn is_may_goto(self) -> bool {
        self.code == class::JMP | 0xe0
    }

    pub(super) fn next(self) -> Next {
        if !matches!(self.class(), class::JMP | class::JMP32) {
            return Next::Follows;
        }
        match self.operation() {
            jump::ALWAYS if self.class() == class::JMP => Next::Jumps(self.offset.into()),
            // BPF_JMP32 | BPF_JA: a jump further than the offset can say.
            jump::ALWAYS => Next::Jumps(self.immediate.into()),
            jump::CALL => Next::Follows,
            jump::EXIT => Next::Ends,
            _ => Next::Branches(self.offset.into()),
        }
    }

    /// The same, with the number as its second operand; `None` where it cannot have it. What the verifier
    /// turns away (a division by 0, a shift by too much) stays what it is.
    pub(super) fn by_number(self, number: u64) -> Option<Self> {
        let is_wide = matches!(self.class(), class::ALU64 | class::JMP);
        let immediate = immediate(number, is_wide)?;
        if self.is_alu() {
            let bits = if is_wide { 64 } else { 32 };
            match self.operation() {
                alu::NEG | alu::END => return None,
                alu::DIV | alu::MOD if immediate == 0 => return None,
                alu::LSH | alu::RSH | alu::ARSH if !(0..bits).contains(&immediate) => return None,
                // With sign extension.
                alu::MOV if self.offset != 0 => return None,
                _ => {}
            }
        }
        Some(Self {
            code: self.code & !BY_REGISTER,
            registers: self.registers & 0xf,
            immediate,
            ..self
        })
    }

    /// One that gives a register this value, if a single slot can.
    pub(super) fn set(register: usize, value: u64) -> Option<Self> {
        let (class, immediate) = match u32::try_from(value) {
            // The upper half becomes 0.
            Ok(value) => (class::ALU, value.cast_signed()),
            Err(_) => (class::ALU64, immediate(value, true)?),
        };
        Some(Self {
            code: class | alu::MOV,
            registers: register as u8,
            offset: 0,
            immediate,
        })
    }

    /// The same jump or branch, to so many slots after the following one.
    pub(super) fn leading(self, by: i64) -> Self {
        if self.code == class::JMP32 | jump::ALWAYS {
            let immediate = i32::try_from(by).unwrap_or(self.immediate);
            Self { immediate, ..self }
        } else {
            let offset = i16::try_from(by).unwrap_or(self.offset);
            Self { offset, ..self }
        }
    }

    /// A jump to there instead.
    pub(super) fn always(self) -> Self {
        Self {
            code: class::JMP | jump::ALWAYS,
            registers: 0,
            offset: self.offset,
            immediate: 0,
        }
    }
}

/// The number as an operand of 32 bits, whose sign is extended where the operation has 64.
fn immediate(number: u64, is_wide: bool) -> Option<i32> {
    if is_wide {
        i32::try_from(number.cast_signed()).ok()
    } else {
        Some((number as u32).cast_signed())
    }
}
