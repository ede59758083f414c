//! A function in pieces that are run from their beginning to their end.

use std::ops::Range;

use super::instruction::{Instruction, Next};

/// The pieces, by their number.
pub(super) struct Blocks {
    ranges: Vec<Range<usize>>,
    /// Of each slot the block that begins there.
    begins: Vec<Option<usize>>,
    /// Of each slot whether an instruction begins there.
    is_whole: Vec<bool>,
}

/// Where a block goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    /// The block after it.
    pub(super) follows: Option<usize>,
    /// The block that it jumps to.
    pub(super) there: Option<usize>,
}

impl Blocks {
    /// `None` of code that a compiler does not make, or that has instructions that are not known here.
    pub(super) fn of(code: &[Instruction]) -> Option<Self> {
        let mut is_first = vec![false; code.len()];
        *is_first.first_mut()? = true;
        let mut is_whole = vec![false; code.len() + 1];
        let mut slot = 0;
        while let Some(&instruction) = code.get(slot) {
            *is_whole.get_mut(slot)? = true;
            if !instruction.is_known() {
                return None;
            }
            let after = slot + instruction.width();
            let to = match instruction.next() {
                Next::Jumps(by) | Next::Branches(by) => Some(target(slot, by)?),
                Next::Ends => None,
                Next::Follows => {
                    slot = after;
                    continue;
                }
            };
            for first in [Some(after), to].into_iter().flatten() {
                if first < code.len() {
                    *is_first.get_mut(first)? = true;
                } else if first != after || to == Some(first) {
                    return None;
                }
            }
            slot = after;
        }
        let starts = is_first.iter().enumerate();
        let starts: Vec<usize> = starts
            .filter_map(|(slot, &first)| first.then_some(slot))
            .collect();
        // No jump goes into the middle of an instruction.
        if slot != code.len()
            || starts
                .iter()
                .any(|&start| is_whole.get(start) != Some(&true))
        {
            return None;
        }
        let ends = starts.iter().skip(1).copied().chain([code.len()]);
        let ranges: Vec<_> = starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| start..end)
            .collect();
        let mut begins = vec![None; code.len()];
        for (block, range) in ranges.iter().enumerate() {
            *begins.get_mut(range.start)? = Some(block);
        }
        Some(Self {
            ranges,
            begins,
            is_whole,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator {
        self.ranges.iter().cloned()
    }

    pub(super) fn get(&self, block: usize) -> Option<Range<usize>> {
        self.ranges.get(block).cloned()
    }

    /// The instructions of a block, with their slots.
    pub(super) fn instructions(
        &self,
        code: &[Instruction],
        block: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (usize, Instruction)> {
        block
            .filter(|&slot| self.is_whole.get(slot) == Some(&true))
            .filter_map(|slot| Some((slot, *code.get(slot)?)))
    }

    /// Where a block goes on, by its last instruction in this version of the code.
    pub(super) fn ways(&self, code: &[Instruction], block: usize) -> Ways {
        let range = self.get(block).unwrap_or_default();
        // The second slot of a wide load has a code of 0, and goes on.
        let last = range.end.wrapping_sub(1);
        let next = code.get(last).map_or(Next::Ends, |last| last.next());
        let there = |by| self.begins.get(target(last, by)?).copied().flatten();
        let follows = (block + 1 < self.len()).then_some(block + 1);
        match next {
            Next::Follows => Ways {
                follows,
                there: None,
            },
            Next::Jumps(by) => Ways {
                follows: None,
                there: there(by),
            },
            Next::Branches(by) => Ways {
                follows,
                there: there(by),
            },
            Next::Ends => Ways {
                follows: None,
                there: None,
            },
        }
    }
}

/// The slot that a jump leads to.
pub(super) fn target(slot: usize, by: i64) -> Option<usize> {
    let slot = i64::try_from(slot).ok()?;
    usize::try_from(slot.checked_add(1)?.checked_add(by)?).ok()
}
