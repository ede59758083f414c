//! Programs for one machine: what the loader knows when it loads them need not be asked for in the kernel.
//!
//! The programs find out from constants where the kernel's structures have their members, which helpers there are
//! and what is wanted. The verifier follows these constants too, and leaves out what they rule out. But it moves the
//! rest of a program once for each piece that it leaves out: that was a third of what loading them took in the kernel
//! (6.12). And what is left still loads each constant whenever it is needed, since the kernel's compiler to machine
//! code does not look at values. So constants are put in, and what they rule out is left out, before the kernel gets
//! the programs.
//!
//! Nothing is assumed of what a program does: what is not understood stays as it is, and the verifier has the last
//! word as always.

mod addresses;
mod blocks;
mod flow;
pub(crate) mod instruction;
mod live;
mod value;

#[cfg(test)]
mod tests;

use blocks::{Blocks, target};
use flow::{Fate, Flow};
use instruction::{Instruction, Next};

/// What an instruction refers to that is not in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A constant.
    Constant {
        /// The section it is in.
        section: usize,
        /// Bytes from its beginning.
        offset: u64,
    },
    /// Something else.
    Other,
}

/// Constants of the object.
pub(crate) trait Constants {
    /// So many bytes there, as a number; `None` where there is none.
    fn load(&self, section: usize, offset: u64, size: usize) -> Option<u64>;
}

/// A function after that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    /// Its code.
    pub(crate) code: Vec<Instruction>,
    /// Where each slot is now; `None` of one that is gone.
    pub(crate) moved: Vec<Option<usize>>,
}

/// Puts the constants into a function, and leaves out what they rule out. `reference`: what the instruction at a slot
/// refers to.
pub(crate) fn fold(
    code: &[Instruction],
    reference: &dyn Fn(usize) -> Option<Reference>,
    constants: &dyn Constants,
) -> Folded {
    let Some(blocks) = Blocks::of(code) else {
        return Folded {
            code: code.to_vec(),
            moved: (0..code.len()).map(Some).collect(),
        };
    };
    let flow = Flow {
        code,
        blocks: &blocks,
        reference,
        constants,
    };
    let mut fates = flow.fates();
    let mut code: Vec<Instruction> = code
        .iter()
        .zip(&fates)
        .map(|(&instruction, fate)| match fate {
            Fate::Becomes(other) => *other,
            Fate::Goes if matches!(instruction.next(), Next::Branches(_)) => NOTHING,
            Fate::Stays | Fate::Goes => instruction,
        })
        .collect();
    // Before, since a branch reads registers; and after, since there may be less left to jump over.
    without_jumps_to_next(&mut code, &mut fates);
    addresses::without_detours(&mut code, &blocks, &fates);
    live::without_dead(&code, &blocks, &mut fates);
    // What is left of a detour that was taken without need.
    addresses::without_additions(&mut code, &blocks, &mut fates);
    without_jumps_to_next(&mut code, &mut fates);
    compacted(&code, &fates)
}

/// A jump to what follows.
const NOTHING: Instruction = Instruction::from_bytes([0x05, 0, 0, 0, 0, 0, 0, 0]);

/// Has a jump or branch go where nothing stays between it and where it leads.
fn without_jumps_to_next(code: &mut [Instruction], fates: &mut [Fate]) {
    for slot in (0..code.len()).rev() {
        let Some(instruction) = code.get_mut(slot) else {
            continue;
        };
        let by = match instruction.next() {
            Next::Jumps(by) => by,
            Next::Branches(by) if !instruction.is_may_goto() => by,
            _ => continue,
        };
        let over = target(slot, by).and_then(|target| fates.get(slot + 1..target));
        if over.is_some_and(|over| over.iter().all(|fate| *fate == Fate::Goes))
            && let Some(fate) = fates.get_mut(slot)
        {
            *fate = Fate::Goes;
            // It leads there still.
            *instruction = instruction.always();
        }
    }
}

/// What stays, side by side.
fn compacted(code: &[Instruction], fates: &[Fate]) -> Folded {
    // Of each slot how many stay before it; one more for the end.
    let mut before = Vec::with_capacity(code.len() + 1);
    let mut count = 0;
    for fate in fates {
        before.push(count);
        count += usize::from(*fate != Fate::Goes);
    }
    before.push(count);
    let mut moved = vec![None; code.len()];
    let mut new = Vec::with_capacity(count);
    let mut slot = 0;
    while let Some(&instruction) = code.get(slot) {
        let width = instruction.width();
        if fates.get(slot) != Some(&Fate::Goes) {
            for at in slot..slot + width {
                if let Some(place) = moved.get_mut(at) {
                    *place = Some(new.len() + at - slot);
                }
            }
            let by = |by| {
                let target = target(slot, by).and_then(|target| before.get(target));
                let here = before.get(slot).copied().unwrap_or_default();
                // Not further than before.
                target.map_or(by, |&target| target as i64 - here as i64 - 1)
            };
            new.push(match instruction.next() {
                Next::Jumps(far) => instruction.leading(by(far)),
                Next::Branches(far) => instruction.leading(by(far)),
                Next::Follows | Next::Ends => instruction,
            });
            new.extend(code.get(slot + 1..slot + width).unwrap_or_default());
        }
        slot += width;
    }
    Folded { code: new, moved }
}
