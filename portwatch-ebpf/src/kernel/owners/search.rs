//! Whether those who got the ports for the holders still have them.

use core::marker::PhantomData;

use portwatch_ebpf::abi::record::{OwnersRecord, flags, present};

use super::word;
use crate::{
    kernel::{
        generation::{Generation, Step},
        memory::{Memory, Ptr, offset, peek, poke, set},
        sock::Handle,
        task,
    },
    state::takers,
};

/// Looks for each holder.
#[inline(always)]
pub(super) fn search<G: Generation>(record: &mut OwnersRecord) {
    poke(&mut record.scratch, word::AT, 0);
    poke(&mut record.scratch, word::LEFT, 0);
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
        let at = peek(&record.scratch, word::AT);
        let left = peek(&record.scratch, word::LEFT);
        if left == 0 {
            // SAFETY: a member of ours; volatile so that the verifier does not follow the count.
            let count = unsafe { (&raw const record.count).read_volatile() };
            if at >= u64::from(count) {
                return false;
            }
            open::<F>(record, at as usize);
            poke(&mut record.scratch, word::AT, at + 1);
            return true;
        }
        let next = peek(&record.scratch, word::NEXT);
        if F::fetch::<u64>(next, 0) != peek(&record.scratch, word::FILE) {
            poke(&mut record.scratch, word::NEXT, next.wrapping_add(8));
            poke(&mut record.scratch, word::LEFT, left - 1);
            return true;
        }
        if let Some(holder) = record.holders.get_mut((at as usize).wrapping_sub(1)) {
            set(&mut holder.flags, flags::HAS_IT);
        }
        poke(&mut record.scratch, word::LEFT, 0);
        true
    }
}

/// Begins with a holder: its file, and the descriptor table of its taker, if that is the process still
/// that it was.
#[inline(never)]
fn open<F: Memory>(record: &mut OwnersRecord, at: usize) -> u32 {
    let Some(holder) = record.holders.get_mut(at) else {
        return 0;
    };
    if holder.present & present::TAKER == 0 {
        return 0;
    }
    let Some(taker) = takers::of(holder.inode) else {
        return 0;
    };
    // The memory of a task that is gone is another's, or anything.
    let leader = taker.leader;
    let start = F::fetch::<u64>(leader, offset!(task_start_boottime));
    let tgid = F::fetch::<u32>(leader, offset!(task_tgid));
    if start != holder.taker.start_time || tgid != holder.taker.tgid {
        return 0;
    }
    // It may have executed something else in the meantime.
    let exec = F::fetch::<u64>(leader, offset!(task_exec_id));
    holder.taker.process_key = task::process_key(start, exec, tgid);
    let at_name = offset!(task_comm);
    let name = (&raw mut holder.taker.comm).cast::<u64>();
    // SAFETY: the two halves of sixteen bytes; records keep names aligned.
    unsafe {
        name.write_volatile(F::fetch(leader, at_name));
        name.add(1).write_volatile(F::fetch(leader, at_name + 8));
    }
    let Some(&sk) = record.scratch.get(at) else {
        return 0;
    };
    let file = Handle::of::<F>(sk as Ptr).file();
    let files = F::fetch::<u64>(leader, offset!(task_files));
    let table = F::fetch::<u64>(files, offset!(files_fdt));
    let size = F::fetch::<u32>(table, offset!(fdt_max_fds));
    if file.is_null() || table == 0 {
        return 0;
    }
    poke(&mut record.scratch, word::FILE, file as u64);
    poke(
        &mut record.scratch,
        word::NEXT,
        F::fetch(table, offset!(fdt_fd)),
    );
    poke(&mut record.scratch, word::LEFT, u64::from(size));
    0
}
