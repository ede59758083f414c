//! Whether those who got the ports for the holders still have them.

use core::marker::PhantomData;

use portwatch_ebpf::abi::record::{
    HOLDER_CLASSES, MAX_HOLDERS, OwnersRecord, SCRATCH, flags, present,
};

use crate::{
    kernel::{
        generation::{Generation, Step},
        memory::{Memory, Ptr, offset, peek, poke, set},
        sock::{self, Handle},
        task,
    },
    state::{closers, takers},
};

/// Words of the record's scratch, behind the chosen holders and over the other candidates: three for
/// each holder, and where the search stands.
mod word {
    use super::MAX_HOLDERS;

    /// The holder's open file.
    pub(super) const FILE: usize = MAX_HOLDERS;
    /// The next entry of the descriptor table that is looked through.
    pub(super) const NEXT: usize = FILE + MAX_HOLDERS;
    /// How many are left.
    pub(super) const LEFT: usize = NEXT + MAX_HOLDERS;
    /// The holder that is looked for.
    pub(super) const AT: usize = LEFT + MAX_HOLDERS;
}

const _: () = assert!(word::AT < MAX_HOLDERS * HOLDER_CLASSES && word::AT < SCRATCH);

/// Looks for each holder, after [`open`].
#[inline(always)]
pub(super) fn search<G: Generation>(record: &mut OwnersRecord) {
    poke(&mut record.scratch, word::AT, 0);
    G::repeat::<Search<G::Far>>(record);
}

/// The search for the holders' files among the descriptors of those who got the ports for them: whether
/// they still have them at this moment. One holder after the other, in one flat loop.
struct Search<F>(PhantomData<F>);

impl<F: Memory> Step for Search<F> {
    type Record = OwnersRecord;
    const BOUND: u32 = 128;
    const LIMIT: u32 = 1 << 15;

    #[inline(always)]
    fn step(record: &mut OwnersRecord, _round: u32) -> bool {
        let at = peek(&record.scratch, word::AT) as usize;
        if at >= super::count(record) || at >= MAX_HOLDERS {
            return false;
        }
        let Some(&left) = record.scratch.get(word::LEFT + at) else {
            return false;
        };
        if left == 0 {
            poke(&mut record.scratch, word::AT, at as u64 + 1);
            return true;
        }
        let Some(&file) = record.scratch.get(word::FILE + at) else {
            return false;
        };
        let Some(next) = record.scratch.get_mut(word::NEXT + at) else {
            return false;
        };
        let entry = *next;
        *next = entry.wrapping_add(8);
        let found = F::fetch::<u64>(entry, 0) == file;
        if let Some(slot) = record.scratch.get_mut(word::LEFT + at) {
            *slot = if found { 0 } else { left - 1 };
        }
        if found && let Some(holder) = record.holders.get_mut(at) {
            set(&mut holder.found.flags, flags::HAS_IT);
        }
        true
    }
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
    let Some(holder) = record.holders.get_mut(at) else {
        return 0;
    };
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
    let Some(&sk) = record.scratch.get(at) else {
        return 0;
    };
    let place = sock::place::<F>(
        sk as Ptr,
        holder.found.local_port,
        holder.found.protocol as u8,
    );
    if leader == closers::leader(place, holder.found.inode) {
        set(&mut holder.found.flags, flags::CLOSING);
    }
    let file = Handle::of::<F>(sk as Ptr).file();
    let files = F::fetch::<u64>(leader, offset!(task_files));
    let table = F::fetch::<u64>(files, offset!(files_fdt));
    let size = F::fetch::<u32>(table, offset!(fdt_max_fds));
    let first = F::fetch::<u64>(table, offset!(fdt_fd));
    if file.is_null() || table == 0 {
        return 0;
    }
    for (word, value) in [
        (word::FILE, file as u64),
        (word::NEXT, first),
        (word::LEFT, u64::from(size)),
    ] {
        if let Some(slot) = record.scratch.get_mut(word + at) {
            *slot = value;
        }
    }
    0
}
