//! Whether those who got the ports for the holders still have them, and whether the caller has them too.

use core::marker::PhantomData;

use portwatch_ebpf::abi::record::{
    HOLDER_CLASSES, HolderRecord, MAX_HOLDERS, OwnersRecord,
    flags::{self, CALLER_HAS_IT, HAS_IT},
    present,
};

use crate::{
    kernel::{
        generation::{Generation, Step},
        memory::{Memory, Ptr, ROW, offset, peek, poke, set},
        sock::{self, Handle},
        task::{self, Current},
    },
    state::{closers, takers},
};

/// Words of the record's scratch, over the candidates: three for each holder, and where the search stands.
mod word {
    use super::MAX_HOLDERS;

    /// The holder's open file, in the place of its socket.
    pub(super) const FILE: usize = 0;
    /// The next entry of the descriptor table that is looked through.
    pub(super) const NEXT: usize = FILE + MAX_HOLDERS;
    /// How many are left.
    pub(super) const LEFT: usize = NEXT + MAX_HOLDERS;
    /// The holder that is looked for.
    pub(super) const AT: usize = LEFT + MAX_HOLDERS;
    /// 1 while that goes through the caller's table.
    pub(super) const IN_OWN: usize = AT + 1;
    /// The first entry of the caller's table.
    pub(super) const OWN_FIRST: usize = IN_OWN + 1;
    /// How many it has.
    pub(super) const OWN_SIZE: usize = OWN_FIRST + 1;
    /// A row of entries.
    pub(super) const ENTRIES: usize = OWN_SIZE + 1;
}

const _: () = assert!(word::ENTRIES + ROW <= MAX_HOLDERS * HOLDER_CLASSES);

/// How many entries of a table of that size are looked through: what it has is a multiple of a row (fs/file.c,
/// `alloc_fdtable`); what is none any more may say anything.
const fn whole_rows(size: u32) -> u64 {
    size as u64 & !(ROW as u64 - 1)
}

/// Looks for each holder, after [`open`].
#[inline(always)]
pub(super) fn search<G: Generation>(record: &mut OwnersRecord) {
    let files = Current::<G>::get().pointer(offset!(task_files));
    let table = G::Far::load::<u64>(files, offset!(files_fdt));
    let size = whole_rows(G::Far::fetch(table, offset!(fdt_max_fds)));
    let first = G::Far::fetch::<u64>(table, offset!(fdt_fd));
    poke(&mut record.scratch, word::OWN_FIRST, first);
    poke(&mut record.scratch, word::OWN_SIZE, size);
    poke(&mut record.scratch, word::AT, 0);
    poke(&mut record.scratch, word::IN_OWN, 0);
    G::repeat::<Search<G::Far>>(record);
}

/// The search for the holders' files among the descriptors of those who got the ports for them, whether
/// they still have them at this moment, and then among the caller's: that may have inherited them and be gone
/// before anybody else could look. One table after the other, in one flat loop, a row of entries at a time.
struct Search<F>(PhantomData<F>);

impl<F: Memory> Step for Search<F> {
    type Record = OwnersRecord;
    const BOUND: u32 = 48;
    const LIMIT: u32 = 1 << 13;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, _round: u32) -> bool {
        let at = peek(&record.scratch, word::AT) as usize;
        if at >= super::count(record) || at >= MAX_HOLDERS {
            return false;
        }
        let in_own = peek(&record.scratch, word::IN_OWN);
        let Some(&file) = record.scratch.get(word::FILE + at) else {
            return false;
        };
        let Some(&left) = record.scratch.get(word::LEFT + at) else {
            return false;
        };
        let Some(holder) = record.holders.get_mut(at) else {
            return false;
        };
        if left == 0 {
            if in_own != 0 {
                poke(&mut record.scratch, word::AT, at as u64 + 1);
                poke(&mut record.scratch, word::IN_OWN, 0);
                return true;
            }
            let is_wanted = file != 0 && others_have(holder);
            let size = if is_wanted {
                peek(&record.scratch, word::OWN_SIZE)
            } else {
                0
            };
            let first = peek(&record.scratch, word::OWN_FIRST);
            set_of(record, word::LEFT, at, size);
            set_of(record, word::NEXT, at, first);
            poke(&mut record.scratch, word::IN_OWN, 1);
            return true;
        }
        let Some(&entries) = record.scratch.get(word::NEXT + at) else {
            return false;
        };
        let Some(room) = record
            .scratch
            .get_mut(word::ENTRIES..)
            .and_then(<[u64]>::first_chunk_mut)
        else {
            return false;
        };
        // 0 or 1, without branches: old verifiers would go on from both ends of each.
        let found = contains(F::row(entries, room), file);
        let bit = HAS_IT + (CALLER_HAS_IT - HAS_IT) * in_own as u32;
        set(&mut holder.found.flags, bit * found as u32);
        set_of(
            record,
            word::NEXT,
            at,
            entries.wrapping_add(size_of::<[u64; ROW]>() as u64),
        );
        set_of(
            record,
            word::LEFT,
            at,
            left.wrapping_sub(ROW as u64) & found.wrapping_sub(1),
        );
        true
    }
}

/// Writes a word of a holder.
#[inline(always)]
fn set_of(record: &mut OwnersRecord, word: usize, at: usize, value: u64) {
    if let Some(slot) = record.scratch.get_mut(word + at) {
        *slot = value;
    }
}

/// Whether a word is among those, as 1 or 0.
#[inline(always)]
fn contains(row: [u64; ROW], word: u64) -> u64 {
    // Of x and its negative one has the sign unless x is 0.
    let signs = row.map(|entry| entry ^ word).map(|x| x | x.wrapping_neg());
    let all = signs.into_iter().fold(u64::MAX, |all, sign| all & sign);
    all >> 63 ^ 1
}

/// Whether the open file has references beside that of who got the port.
#[inline(always)]
fn others_have(holder: &HolderRecord) -> bool {
    let known = u32::from(holder.found.flags & HAS_IT != 0);
    holder.found.references > known
}

/// Prepares the search for a holder: its file, and the descriptor table of its taker, if that is the
/// process still that it was.
#[inline(never)]
pub(super) fn open<F: Memory>(record: &mut OwnersRecord, at: usize) -> u32 {
    if at >= MAX_HOLDERS {
        return 0;
    }
    if let Some(left) = record.scratch.get_mut(word::LEFT + at) {
        *left = 0;
    }
    let Some(slot) = record.scratch.get_mut(at) else {
        return 0;
    };
    let sk = *slot as Ptr;
    let Some(holder) = record.holders.get_mut(at) else {
        return 0;
    };
    // Of smaller structs nothing lies there.
    let has_file = holder.found.present & present::REFERENCES != 0;
    let file = if has_file {
        Handle::of::<F>(sk).file()
    } else {
        core::ptr::null()
    };
    *slot = file as u64;
    if holder.found.present & present::TAKER == 0 {
        return 0;
    }
    // The memory of a task that is gone is another's, or anything.
    let leader = takers::leader(holder.found.inode);
    let start = F::fetch::<u64>(leader, offset!(task_start_boottime));
    let tgid = F::fetch::<u32>(leader, offset!(task_tgid));
    if start != holder.task.start_time || tgid != holder.task.tgid {
        return 0;
    }
    // It may have executed something else in the meantime.
    let exec = F::fetch::<u64>(leader, offset!(task_exec_id));
    holder.now.process_key = task::process_key(start, exec, tgid);
    let cred = F::fetch::<u64>(leader, offset!(task_cred));
    holder.now.uid = F::fetch(cred, offset!(cred_uid));
    let parent = F::fetch::<u64>(leader, offset!(task_real_parent));
    holder.now.parent = F::fetch(parent, offset!(task_tgid));
    let at_name = offset!(task_comm);
    let name = (&raw mut holder.now.comm).cast::<u64>();
    // SAFETY: the two halves of sixteen bytes; records keep names aligned.
    unsafe {
        name.write_volatile(F::fetch(leader, at_name));
        name.add(1).write_volatile(F::fetch(leader, at_name + 8));
    }
    let place = sock::place::<F>(sk, holder.found.local_port, holder.found.protocol as u8);
    if leader == closers::leader(place, holder.found.inode) {
        set(&mut holder.found.flags, flags::CLOSING);
    }
    let files = F::fetch::<u64>(leader, offset!(task_files));
    let table = F::fetch::<u64>(files, offset!(files_fdt));
    let size = whole_rows(F::fetch(table, offset!(fdt_max_fds)));
    let first = F::fetch::<u64>(table, offset!(fdt_fd));
    if file.is_null() || table == 0 {
        return 0;
    }
    for (word, value) in [(word::NEXT, first), (word::LEFT, size)] {
        if let Some(slot) = record.scratch.get_mut(word + at) {
            *slot = value;
        }
    }
    0
}
