//! What is known of a register, and what operations make of it.

use super::instruction::{Instruction, alu, class, jump};

/// What a register has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    /// Anything.
    #[default]
    Unknown,
    /// This.
    Number(u64),
    /// The address of a constant.
    Constant {
        /// The section it is in.
        section: usize,
        /// Bytes from its beginning.
        offset: u64,
    },
}

impl Value {
    /// What is known where two ways meet.
    pub(super) fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::Unknown }
    }

    pub(super) const fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// The second operand.
pub(super) fn operand(instruction: Instruction, src: Value) -> Value {
    if instruction.is_by_register() {
        src
    } else {
        Value::Number(i64::from(instruction.immediate).cast_unsigned())
    }
}

/// What an operation of ALU or ALU64 makes of two values.
pub(super) fn computed(instruction: Instruction, dst: Value, src: Value) -> Value {
    let operand = operand(instruction, src);
    let is_wide = instruction.class() == class::ALU64;
    let operation = instruction.operation();
    if operation == alu::MOV {
        return match (instruction.offset, is_wide, operand) {
            (0, true, value) => value,
            (0, false, Value::Number(number)) => Value::Number(number & u64::from(u32::MAX)),
            _ => Value::Unknown,
        };
    }
    if let (Value::Constant { section, offset }, Value::Number(number), alu::ADD, true) =
        (dst, operand, operation, is_wide)
    {
        let offset = offset.wrapping_add(number);
        return Value::Constant { section, offset };
    }
    match (dst, operand) {
        (Value::Number(dst), Value::Number(operand)) if is_wide => wide(operation, dst, operand),
        (Value::Number(dst), Value::Number(operand)) => {
            narrow(operation, dst as u32, operand as u32)
        }
        _ => None,
    }
    .map_or(Value::Unknown, Value::Number)
}

/// `None` where nobody needs to know.
fn wide(operation: u8, dst: u64, operand: u64) -> Option<u64> {
    Some(match operation {
        alu::ADD => dst.wrapping_add(operand),
        alu::SUB => dst.wrapping_sub(operand),
        alu::MUL => dst.wrapping_mul(operand),
        alu::OR => dst | operand,
        alu::AND => dst & operand,
        alu::XOR => dst ^ operand,
        alu::LSH => dst.checked_shl(u32::try_from(operand).ok()?)?,
        alu::RSH => dst.checked_shr(u32::try_from(operand).ok()?)?,
        _ => return None,
    })
}

/// The same for the lower halves; the upper half becomes 0.
fn narrow(operation: u8, dst: u32, operand: u32) -> Option<u64> {
    let result = match operation {
        alu::LSH => dst.checked_shl(operand)?,
        alu::RSH => dst.checked_shr(operand)?,
        // Of these the lower half depends on the lower halves alone.
        _ => wide(operation, dst.into(), operand.into())? as u32,
    };
    Some(result.into())
}

/// Whether a branch is taken; `None` where that is not known.
pub(super) fn is_taken(instruction: Instruction, dst: Value, src: Value) -> Option<bool> {
    let (mut one, mut other) = (dst.number()?, operand(instruction, src).number()?);
    let (mut signed, mut signed_other) = (one.cast_signed(), other.cast_signed());
    if instruction.class() == class::JMP32 {
        (one, other) = (one & u64::from(u32::MAX), other & u64::from(u32::MAX));
        signed = (one as u32).cast_signed().into();
        signed_other = (other as u32).cast_signed().into();
    }
    Some(match instruction.operation() {
        jump::EQ => one == other,
        jump::NE => one != other,
        jump::GT => one > other,
        jump::GE => one >= other,
        jump::LT => one < other,
        jump::LE => one <= other,
        jump::SET => one & other != 0,
        jump::SGT => signed > signed_other,
        jump::SGE => signed >= signed_other,
        jump::SLT => signed < signed_other,
        jump::SLE => signed <= signed_other,
        // may_goto, which the kernel decides.
        _ => return None,
    })
}
