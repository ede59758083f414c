//! Following a command and its descendants.

use crate::{
    kernel::memory::{Memory, Ptr, offset},
    state::DESCENDANTS,
};

/// A task was forked. Threads have the process id of their parent, which is in the map already.
#[inline(always)]
pub(crate) fn forked<M: Memory>(parent: Ptr, child: Ptr) {
    let (parent, child) = (tgid::<M>(parent), tgid::<M>(child));
    if parent != child && DESCENDANTS.get_ptr(parent).is_some() {
        // Full: events of that child would be missing, so it is counted.
        if DESCENDANTS.insert(child, 1, 0).is_err() {
            crate::emit::lost(portwatch_ebpf::abi::record::loss::TABLE_FULL);
        }
    }
}

/// A task is gone for good. The main thread goes last, so its id stands for the process.
#[inline(always)]
pub(crate) fn freed<M: Memory>(task: Ptr) {
    let (tgid, tid) = (tgid::<M>(task), M::load::<u32>(task, offset!(task_pid)));
    if tgid == tid {
        let _ = DESCENDANTS.remove(tgid);
    }
}

#[inline(always)]
fn tgid<M: Memory>(task: Ptr) -> u32 {
    M::load(task, offset!(task_tgid))
}
