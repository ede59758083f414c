//! Kernels by what they let programs do: the programs exist once for each generation
//! (`portwatch-ebpf/src/kernel/generation.rs`).

use portwatch_ebpf::abi::config::helper;

use super::Facts;

/// BTF ids that a call of `bpf_rdonly_cast()` needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The function.
    pub function: u32,
    /// A struct that begins with a word of eight bytes.
    pub word: u32,
}

/// A generation of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Loops that the verifier walks round by round.
    Bounded,
    /// bpf_loop() (5.17).
    Looped,
    /// `bpf_rdonly_cast()` too (6.2; used since 6.11).
    Casting,
}

impl Generation {
    /// That of a kernel.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        const HELPERS: u32 = helper::TASK_BTF | helper::TASK_PT_REGS;
        if !facts.loops || facts.helpers & HELPERS != HELPERS {
            Self::Bounded
        } else if facts.cast.is_none() {
            Self::Looped
        } else {
            Self::Casting
        }
    }

    /// How its name stands in the names of programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounded => "bounded",
            Self::Looped => "looped",
            Self::Casting => "casting",
        }
    }
}
