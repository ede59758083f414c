//! The programs of `churn`, and the tables they count in.

mod iterator;
mod mapped;
mod rows;
mod slots;
mod sums;

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::Iter,
};
use portwatch_ebpf::abi::churn::{HOLD_BUCKETS, Hold, Key, PLACES, Place, TAILS, WAYS};

use super::{
    Globals, LoadError, NOT_OF_ITERATOR, attach_program, detach_program, failed, find, map,
    planned, read, verify,
};
use crate::{
    facts::Gathered,
    plan::{Attachment, Plan},
};
pub use iterator::Link;
use iterator::link_iterator;
pub use rows::Rows;
use slots::Slots;
use sums::{NOTHING, plus};

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tuples and processes that are told apart.
    pub tuples: u32,
    /// Ports that are remembered while they are held, beside those that have a place of their own.
    pub holds: u32,
}

impl Sizes {
    /// Buckets of places: for half of as many ports, as far as there can be.
    fn buckets(self) -> u32 {
        (self.holds / (2 * WAYS as u32))
            .next_power_of_two()
            .min(HOLD_BUCKETS)
    }
}

/// Nothing goes through the ring: as small as a ring can be on any machine.
const RING: u32 = 64 << 10;

/// Loaded programs and their tables. Dropping it detaches them.
pub struct Counting {
    ebpf: Ebpf,
    rows: Rows,
    tuple_rows: HashMap<MapData, [u8; size_of::<Key>()], u32>,
    place_slots: HashMap<MapData, u32, u32>,
    place_claims: Array<MapData, u64>,
    place_counts: PerCpuArray<MapData, [u8; size_of::<Place>()]>,
    holds: HashMap<MapData, u64, [u8; size_of::<Hold>()]>,
    slots: Slots,
    last_row: PerCpuArray<MapData, u64>,
    look: Array<MapData, u32>,
    descendants: HashMap<MapData, u32, u8>,
    ids: BTreeMap<&'static str, u32>,
}

/// Loads the programs of a plan; nothing is attached yet. `iterators`: those that [`Counting::look`] may use.
///
/// # Errors
/// When the kernel refuses a map or a program, named.
pub fn load(
    gathered: &Gathered,
    plan: &Plan,
    iterators: &[Attachment],
    sizes: Sizes,
) -> Result<Counting, LoadError> {
    let Gathered { facts, ids } = gathered;
    let btf = super::ids::types(plan.attachments.iter().copied(), ids)?;
    let programs = plan.programs().chain(iterators.iter().copied());
    let rows = sizes.tuples + TAILS;
    let mut config = plan.config;
    config.rows = rows;
    config.hold_buckets = sizes.buckets();
    let globals = Globals::of(facts, &config);
    let object = planned(facts, programs, &globals)?;
    // What follows calls from entry to return, and a command, is in use here too.
    let unneeded: Vec<&str> = NOT_OF_ITERATOR
        .iter()
        .copied()
        .filter(|name| !["CALLS", "DESCENDANTS", "INFLIGHT"].contains(name))
        .collect();
    let mut ebpf = read(
        &object,
        &globals,
        RING,
        &unneeded,
        &[
            ("ROWS", rows),
            ("TUPLE_ROWS", sizes.tuples),
            ("HOLDS", sizes.holds),
            ("HOLD_SLOTS", config.hold_buckets),
        ],
    )?;
    verify::all(&mut ebpf, &plan.attachments, &btf)?;
    Ok(Counting {
        rows: Rows::map(&mut ebpf, rows)?,
        tuple_rows: map(&mut ebpf, "TUPLE_ROWS")?,
        place_slots: map(&mut ebpf, "PLACE_SLOTS")?,
        place_claims: map(&mut ebpf, "PLACE_CLAIMS")?,
        place_counts: map(&mut ebpf, "PLACE_COUNTS")?,
        holds: map(&mut ebpf, "HOLDS")?,
        slots: Slots::map(&mut ebpf, config.hold_buckets)?,
        last_row: map(&mut ebpf, "LAST_ROW")?,
        look: map(&mut ebpf, "LOOK")?,
        descendants: map(&mut ebpf, "DESCENDANTS")?,
        ids: ids.clone(),
        ebpf,
    })
}

impl Counting {
    /// Attaches the loaded programs in the order of the plan.
    ///
    /// # Errors
    /// When the kernel refuses one, named.
    pub fn attach(&mut self, plan: &Plan) -> Result<(), LoadError> {
        for attachment in &plan.attachments {
            attach_program(&mut self.ebpf, *attachment)?;
        }
        Ok(())
    }

    /// Detaches them: from now on nothing is counted.
    pub fn detach(&mut self, plan: &Plan) {
        for attachment in plan.attachments.iter().rev() {
            if let Some(program) = find(&mut self.ebpf, attachment.program, attachment.generation) {
                // One that is not attached has nothing to detach.
                let _ = detach_program(program);
            }
        }
    }

    /// Makes the programs follow a process and its descendants.
    ///
    /// # Errors
    /// When the kernel refuses the entry.
    pub fn follow(&mut self, pid: u32) -> Result<(), LoadError> {
        self.descendants
            .insert(pid, 1, 0)
            .map_err(|source| failed("DESCENDANTS", source))
    }

    /// Instructions the verifier looked at, by program; those that are attached.
    #[must_use]
    pub fn verified(&self, plan: &Plan) -> Vec<(&'static str, u32)> {
        super::verified(&self.ebpf, plan.programs())
    }

    /// Times the kernel skipped a program, because it was running already on that CPU. 0 where it does
    /// not count them (before 5.12).
    #[must_use]
    pub fn skipped(&self) -> u64 {
        super::skipped(&self.ebpf)
    }

    /// Whether the kernel lets the tables be read.
    #[must_use]
    pub fn are_readable(&self) -> bool {
        self.look.get(&0, 0).is_ok()
    }

    /// The file of an iterator; [`run`] of a copy of it in a network namespace runs it there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn iterator(&mut self, iterator: Attachment) -> Result<Link, LoadError> {
        let types = super::ids::types([iterator], &self.ids)?;
        verify::all(&mut self.ebpf, &[iterator], &types)?;
        let mut link = None;
        super::with_program(&mut self.ebpf, iterator, "attach", |program, _| {
            let program: &mut Iter = program.try_into()?;
            link = Some(link_iterator(program)?);
            Ok(())
        })?;
        link.ok_or(LoadError::Lacks(iterator.program))
    }

    /// Begins a look at all sockets: what is seen or taken from now on has its number.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn begin_look(&mut self, number: u32) -> Result<(), LoadError> {
        self.look
            .set(0, number, 0)
            .map_err(|source| failed("LOOK", source))
    }

    /// Forgets what a look has not seen in these network namespaces, or `everywhere`, as given back; how many that
    /// was. What there was no room to tell apart by namespace goes only if the look was everywhere.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn end_look(
        &mut self,
        number: u32,
        netns: &BTreeSet<u32>,
        everywhere: bool,
    ) -> Result<u64, LoadError> {
        let slots = self.place_slots.iter().filter_map(Result::ok);
        let seen = Seen::of(
            number,
            everywhere,
            slots.filter(|(inode, _)| netns.contains(inode)),
        );
        let gone: Vec<(u64, Hold)> = self
            .holds
            .iter()
            .filter_map(Result::ok)
            .map(|(sk, bytes)| (sk, plain::<Hold>(&bytes)))
            .filter(|(_, hold)| seen.is_gone(hold))
            .collect();
        let mut count = 0;
        for (sk, hold) in gone {
            // It may have been given back meanwhile, which the programs have counted, and be another's.
            let same = self.holds.get(&sk, 0);
            let is_same = same.is_ok_and(|bytes| plain::<Hold>(&bytes) == hold);
            if !is_same || self.holds.remove(&sk).is_err() {
                continue;
            }
            self.slots.unspill(hold.home);
            count += 1;
            self.rows.gone(hold);
        }
        for hold in self.slots.gone(&|hold| seen.is_gone(hold)) {
            count += 1;
            self.rows.gone(hold);
        }
        Ok(count)
    }

    /// The rows.
    #[must_use]
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Gives up a row: from now on its tuple gets another one. What is counted there still comes from
    /// programs that have found it before, or from ports that are held.
    pub fn abandon(&mut self, key: &Key) {
        let mut bytes = [0; size_of::<Key>()];
        // SAFETY: as many bytes as the key has, all of them plain integers without padding.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(key).cast(),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        if let Ok(row) = self.tuple_rows.get(&bytes, 0) {
            self.rows.leave(row);
            // Not there: it was abandoned before.
            let _ = self.tuple_rows.remove(&bytes);
        }
    }

    /// Has the programs look up their next row, and the slot of its network namespace.
    fn forget_last(&mut self) -> Result<(), LoadError> {
        let failed = |source| failed("LAST_ROW", source);
        let none = vec![0; aya::util::nr_cpus().unwrap_or(1)];
        let none = aya::maps::PerCpuValues::try_from(none)
            .map_err(|error| failed(MapError::IoError(error)))?;
        self.last_row.set(0, none, 0).map_err(failed)
    }

    /// What happened in each network namespace, over all CPUs; 0 is all that there was no room for.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn places(&self) -> Result<Vec<(u32, Place)>, LoadError> {
        let slots = self.place_slots.iter().filter_map(Result::ok);
        [(0, 0)]
            .into_iter()
            .chain(slots)
            .map(|(netns, slot)| {
                let counts = self
                    .place_counts
                    .get(&(slot % PLACES), 0)
                    .map_err(|source| failed("PLACE_COUNTS", source))?;
                let all = counts.iter().map(|bytes| plain::<Place>(bytes));
                Ok((netns, all.fold(NOTHING, |sum, one| plus(&sum, &one))))
            })
            .collect()
    }

    /// Gives the slot of a network namespace that is gone to others, whose counters begin there.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn forget_place(&mut self, netns: u32) -> Result<(), LoadError> {
        let Ok(slot) = self.place_slots.get(&netns, 0) else {
            return Ok(());
        };
        self.place_slots
            .remove(&netns)
            .map_err(|source| failed("PLACE_SLOTS", source))?;
        self.forget_last()?;
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let zeros = vec![[0; size_of::<Place>()]; cpus];
        let zeros = aya::maps::PerCpuValues::try_from(zeros)
            .map_err(|error| failed("PLACE_COUNTS", MapError::IoError(error)))?;
        self.place_counts
            .set(slot, zeros, 0)
            .map_err(|source| failed("PLACE_COUNTS", source))?;
        self.place_claims
            .set(slot, 0, 0)
            .map_err(|source| failed("PLACE_CLAIMS", source))?;
        // A program may have looked it up in between.
        self.forget_last()
    }
}

/// What a look has seen: its number, and the slots of network namespaces that it was in.
struct Seen {
    number: u32,
    slots: [bool; PLACES as usize],
}

impl Seen {
    /// `slots`: those of namespaces that it was in, by inode.
    fn of(number: u32, everywhere: bool, slots: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut seen = [everywhere; PLACES as usize];
        for (_, slot) in slots {
            if let Some(seen) = seen.get_mut(slot as usize) {
                *seen = true;
            }
        }
        Self {
            number,
            slots: seen,
        }
    }

    /// Whether it would have seen that, if it were there still.
    fn is_gone(&self, hold: &Hold) -> bool {
        let was_there = self
            .slots
            .get(usize::from(hold.place))
            .is_some_and(|&seen| seen);
        was_there && hold.look != self.number
    }
}

/// Types of the ABI that a map's bytes are: plain integers, for which any bytes are a value.
trait Plain: Copy {}
impl Plain for Place {}
impl Plain for Hold {}

fn plain<T: Plain>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: as many bytes as it has, and any bytes are one.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_look_could_have_seen_is_gone() {
        let hold = |place, look| Hold {
            since: 1,
            row: 2,
            look,
            port: 40_000,
            place,
            how: 1,
            waits: 1,
            home: 0,
        };
        let everywhere = Seen::of(7, true, std::iter::empty());
        let there = Seen::of(7, false, [(4_026_531_840, 3)].into_iter());
        for (place, look, gone_of_all, gone_of_one) in [
            (3, 6, true, true),
            (3, 7, false, false),
            (4, 6, true, false),
            (0, 6, true, false),
            (u16::MAX, 6, false, false),
        ] {
            let hold = hold(place, look);
            assert_eq!(everywhere.is_gone(&hold), gone_of_all, "{place} {look}");
            assert_eq!(there.is_gone(&hold), gone_of_one, "{place} {look}");
        }
    }

    #[test]
    fn places_are_for_a_part_of_what_can_be_held() {
        let buckets = |holds| Sizes { tuples: 0, holds }.buckets();
        assert_eq!(
            [16, 1000, 133_332, 1_333_332].map(buckets),
            [1, 64, 8192, 8192]
        );
    }
}
