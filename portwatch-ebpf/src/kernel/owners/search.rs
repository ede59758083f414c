//! Whether those who got the ports for the holders still have them, and whether the caller has them too.

use core::marker::PhantomData;

use portwatch_ebpf::abi::record::{
    HOLDER_CLASSES, HolderRecord, MAX_HOLDERS, OwnersRecord, flags, present,
};

use crate::{
    kernel::{
        generation::{Generation, Step},
        memory::{Memory, Ptr, offset, peek, poke, set},
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
}

const _: () = assert!(word::OWN_SIZE < MAX_HOLDERS * HOLDER_CLASSES);

/// Looks for each holder, after [`open`].
#[inline(always)]
pub(super) fn search<G: Generation>(record: &mut OwnersRecord) {
    let files = Current::<G>::get().pointer(offset!(task_files));
    let table = G::Far::load::<u64>(files, offset!(files_fdt));
    let size = G::Far::fetch::<u32>(table, offset!(fdt_max_fds));
    let first = G::Far::fetch::<u64>(table, offset!(fdt_fd));
    poke(&mut record.scratch, word::OWN_FIRST, first);
    poke(&mut record.scratch, word::OWN_SIZE, u64::from(size));
    poke(&mut record.scratch, word::AT, 0);
    poke(&mut record.scratch, word::IN_OWN, 0);
    G::repeat::<Search<G::Far>>(record);
}

/// The search for the holders' files among the descriptors of those who got the ports for them, whether
/// they still have them at this moment, and then among the caller's: that may have inherited them and be gone
/// before anybody else could look. One table after the other, in one flat loop.
struct Search<F>(PhantomData<F>);

impl<F: Memory> Step for Search<F> {
    type Record = OwnersRecord;
    const BOUND: u32 = 192;
    const LIMIT: u32 = 1 << 15;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, _round: u32) -> bool {
        let at = peek(&record.scratch, word::AT) as usize;
        if at >= super::count(record) || at >= MAX_HOLDERS {
            return false;
        }
        let in_own = peek(&record.scratch, word::IN_OWN) != 0;
        let first = peek(&record.scratch, word::OWN_FIRST);
        let size = peek(&record.scratch, word::OWN_SIZE);
        let Some(&file) = record.scratch.get(word::FILE + at) else {
            return false;
        };
        let Some(holder) = record.holders.get_mut(at) else {
            return false;
        };
        let Some(&left) = record.scratch.get(word::LEFT + at) else {
            return false;
        };
        let Some(next) = record.scratch.get_mut(word::NEXT + at) else {
            return false;
        };
        if left == 0 {
            if in_own {
                poke(&mut record.scratch, word::AT, at as u64 + 1);
                poke(&mut record.scratch, word::IN_OWN, 0);
                return true;
            }
            *next = first;
            let is_wanted = file != 0 && others_have(holder);
            if let Some(slot) = record.scratch.get_mut(word::LEFT + at) {
                *slot = if is_wanted { size } else { 0 };
            }
            poke(&mut record.scratch, word::IN_OWN, 1);
            return true;
        }
        let entry = *next;
        *next = entry.wrapping_add(8);
        let found = F::fetch::<u64>(entry, 0) == file;
        if found {
            let bit = if in_own {
                flags::CALLER_HAS_IT
            } else {
                flags::HAS_IT
            };
            set(&mut holder.found.flags, bit);
        }
        if let Some(slot) = record.scratch.get_mut(word::LEFT + at) {
            *slot = if found { 0 } else { left - 1 };
        }
        true
    }
}

/// Whether the open file has references beside that of who got the port.
#[inline(always)]
fn others_have(holder: &HolderRecord) -> bool {
    let known = u32::from(holder.found.flags & flags::HAS_IT != 0);
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
    let size = F::fetch::<u32>(table, offset!(fdt_max_fds));
    let first = F::fetch::<u64>(table, offset!(fdt_fd));
    if file.is_null() || table == 0 {
        return 0;
    }
    for (word, value) in [(word::NEXT, first), (word::LEFT, u64::from(size))] {
        if let Some(slot) = record.scratch.get_mut(word + at) {
            *slot = value;
        }
    }
    0
}
