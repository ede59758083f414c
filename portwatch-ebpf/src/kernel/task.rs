//! `struct task_struct` of the task that runs now.

use core::marker::PhantomData;

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{
            bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
        },
    },
    macros::map,
    maps::PerCpuArray,
};
use portwatch_ebpf::abi::{
    churn::Row,
    config::{detail, helper},
    layout::ABSENT,
    record::{TaskRecord, flags, present},
};

use super::{
    generation::{Generation, ROOMS},
    memory::{Memory, Ptr, Typed, config, detailed, number, offset, set},
};

/// include/uapi/linux/capability.h
const CAP_NET_BIND_SERVICE: u32 = 10;
/// include/linux/sched.h
const PF_IO_WORKER: u32 = 0x0000_0010;
/// include/linux/sched.h
const PF_KTHREAD: u32 = 0x0020_0000;
/// include/linux/sched.h
const PF_WQ_WORKER: u32 = 0x0000_0020;
/// arch/x86/include/asm/thread_info.h
const TS_COMPAT: u32 = 2;
/// Kernel stacks without KASAN (arch/x86/include/asm/page_64_types.h). Only used where
/// bpf_task_pt_regs is missing, that is before 5.15.
const THREAD_SIZE: u32 = 16 << 10;

/// Process and thread id of the running task.
#[derive(Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
}

impl Ids {
    /// As one number.
    fn both(self) -> u64 {
        u64::from(self.tgid) << 32 | u64::from(self.tid)
    }
}

pub(crate) fn ids() -> Ids {
    let both = bpf_get_current_pid_tgid();
    Ids {
        tgid: (both >> 32) as u32,
        tid: both as u32,
    }
}

pub(crate) fn uid() -> u32 {
    bpf_get_current_uid_gid() as u32
}

/// The running task, as a BTF pointer where the kernel can give one.
///
/// Its members are loaded directly, but for pointers: since 6.2 the verifier asks, for each pointer
/// that is loaded from a trusted one (and this one is), whether it stays trusted, by four searches
/// through all of the kernel's types (kernel/bpf/verifier.c `check_ptr_to_btf_access`,
/// kernel/bpf/btf.c `btf_nested_type_is_trusted`): half of a start, by a profile on 6.18.
pub(crate) struct Current<G>(Ptr, PhantomData<G>);

impl<G> Clone for Current<G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G> Copy for Current<G> {}

impl<G: Generation> Current<G> {
    #[inline(always)]
    pub(crate) fn get() -> Self {
        let task = if typed::<G>() {
            // SAFETY: no arguments.
            unsafe { bpf_get_current_task_btf() }.cast_const().cast()
        } else {
            // SAFETY: no arguments; the number is the address of the task.
            unsafe { bpf_get_current_task() as Ptr }
        };
        Self(task, PhantomData)
    }

    /// A member that is no pointer.
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        if typed::<G>() {
            Typed::load(self.0, offset)
        } else {
            G::Far::load(self.0, offset)
        }
    }

    /// A member that is a pointer, as a plain number.
    #[inline(always)]
    pub(crate) fn pointer(self, offset: u32) -> Ptr {
        G::Far::load(self.0, offset)
    }

    fn flags(self) -> u32 {
        self.load(offset!(task_flags))
    }

    /// Whether this is a thread of the kernel.
    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.flags() & PF_KTHREAD != 0
    }

    /// Whether this is a thread of the kernel that does what others have put off (Documentation/core-api/
    /// workqueue.rst): it only happens to run.
    #[inline(always)]
    fn is_anybodys(self) -> bool {
        self.flags() & (PF_KTHREAD | PF_WQ_WORKER) == PF_KTHREAD | PF_WQ_WORKER
    }

    /// Whether this is a worker or submission thread of io_uring.
    #[inline(always)]
    pub(crate) fn is_io_worker(self) -> bool {
        self.flags() & PF_IO_WORKER != 0
    }

    /// Whether the task has ever set up io_uring.
    #[inline(always)]
    pub(crate) fn has_io_uring(self) -> bool {
        let at = offset!(task_io_uring);
        at != ABSENT && !self.pointer(at).is_null()
    }

    /// Whether the running system call is a 32-bit one.
    #[inline(always)]
    pub(crate) fn is_compat(self) -> bool {
        let at = offset!(task_status);
        at != ABSENT && self.load::<u32>(at) & TS_COMPAT != 0
    }

    /// Number of the system call the task is in; 0 (read) where this kernel's registers are not known.
    #[inline(always)]
    pub(crate) fn syscall(self) -> u64 {
        if offset!(regs_orig_ax) == ABSENT {
            return 0;
        }
        if G::HELPERS || config!(helpers) & helper::TASK_PT_REGS != 0 {
            // SAFETY: the verifier knows the task as a BTF pointer.
            let regs = unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as Ptr;
            return Typed::load(regs, offset!(regs_orig_ax));
        }
        let stack = self.pointer(offset!(task_stack));
        G::Far::load(
            stack,
            THREAD_SIZE - offset!(pt_regs_size) + offset!(regs_orig_ax),
        )
    }

    /// Whether the task has CAP_NET_BIND_SERVICE in the user namespace that a network namespace belongs
    /// to, as a bit of `flags`; 0 where that is not told by the task's own namespace
    /// (security/commoncap.c, `cap_capable`).
    #[inline(always)]
    pub(crate) fn may_bind_low(self, net_user_ns: Ptr) -> u32 {
        let cred = self.pointer(offset!(task_cred));
        let effective = G::Far::load::<u32>(cred, offset!(cred_cap_effective));
        if effective >> CAP_NET_BIND_SERVICE & 1 == 0 {
            return flags::MAY_NOT_BIND_LOW;
        }
        let own = G::Far::load::<Ptr>(cred, offset!(cred_user_ns));
        if own == net_user_ns || G::Far::load::<u32>(own, offset!(user_ns_level)) == 0 {
            flags::MAY_BIND_LOW
        } else {
            0
        }
    }

    /// The task name.
    #[inline(always)]
    fn comm(self, to: &mut [u8; 16]) {
        if typed::<G>() {
            let at = offset!(task_comm);
            let to = (&raw mut *to).cast::<u64>();
            // SAFETY: the two halves of sixteen bytes; records keep names aligned.
            unsafe {
                to.write_volatile(self.load::<u64>(at));
                to.add(1).write_volatile(self.load::<u64>(at + 8));
            }
            return;
        }
        // SAFETY: the helper writes at most what it is told; it cannot fail with sixteen bytes.
        unsafe { bpf_get_current_comm(to.as_mut_ptr().cast(), 16) };
    }

    /// Its struct task_struct, and what identifies its process together with what that executes; zeros of
    /// a thread that is not the main one.
    #[inline(always)]
    pub(crate) fn main_thread(self) -> (u64, u64) {
        let Ids { tgid, tid } = ids();
        if tgid != tid {
            return (0, 0);
        }
        let start = self.load::<u64>(offset!(task_start_boottime));
        let exec = self.load::<u64>(offset!(task_exec_id));
        let leader = self.pointer(offset!(task_group_leader)) as u64;
        (leader, process_key(start, exec, tgid))
    }

    #[inline(always)]
    fn parent(self) -> u32 {
        G::Far::load(self.pointer(offset!(task_real_parent)), offset!(task_tgid))
    }
}

/// What stays the same from one call of a thread to the next, as long as it does not exec.
#[repr(C)]
#[derive(Clone, Copy)]
struct Identity {
    /// The thread: its ids, its own start, its count of exec calls.
    ids: u64,
    started: u64,
    exec: u64,
    /// struct task_struct of the main thread.
    leader: u64,
    /// When the process started.
    start: u64,
    /// Differs from process to process and changes at every exec.
    key: u64,
    /// Process id in its own pid namespace.
    vpid: u64,
}

impl Identity {
    /// Asks the kernel's structures, hop by hop.
    #[inline(always)]
    fn read<G: Generation>(task: Current<G>, ids: Ids, started: u64, exec: u64) -> Self {
        let Ids { tgid, tid } = ids;
        let (leader, start) = if tgid == tid {
            (number(task.0) as Ptr, started)
        } else {
            let leader = task.pointer(offset!(task_group_leader));
            (
                leader,
                G::Far::load::<u64>(leader, offset!(task_start_boottime)),
            )
        };
        let pid = G::Far::load::<Ptr>(leader, offset!(task_thread_pid));
        let level = G::Far::load::<u32>(pid, offset!(pid_level));
        let vpid = number_at::<G::Far>(pid, level, tgid);
        Self {
            ids: ids.both(),
            started,
            exec,
            leader: leader as u64,
            start,
            key: process_key(start, exec, tgid),
            vpid: u64::from(vpid),
        }
    }
}

/// The number of a process, which has this one in the initial pid namespace, in the namespace of its
/// own or around it that lies so deep.
#[inline(always)]
fn number_at<F: Memory>(pid: Ptr, level: u32, tgid: u32) -> u32 {
    if level == 0 {
        return tgid;
    }
    let at = offset!(pid_numbers) + (level & 31) * offset!(upid_size) + offset!(upid_nr);
    F::load(pid, at)
}

/// The number of the process of a task, which has this one in the initial pid namespace, in that of a
/// reader who may see it.
#[inline(always)]
pub(crate) fn number_for<G: Generation>(reader: Current<G>, task: Ptr, tgid: u32) -> u32 {
    let own = reader.pointer(offset!(task_thread_pid));
    let level = G::Far::load::<u32>(own, offset!(pid_level));
    let leader = G::Far::load::<Ptr>(task, offset!(task_group_leader));
    let pid = G::Far::load::<Ptr>(leader, offset!(task_thread_pid));
    number_at::<G::Far>(pid, level, tgid)
}

/// Tells processes apart, and what one executes before and after exec.
pub(crate) fn process_key(start: u64, exec: u64, tgid: u32) -> u64 {
    start.rotate_left(8) ^ exec ^ (u64::from(tgid) << 40)
}

/// The thread that each program has last seen on each CPU.
#[map]
static LAST: PerCpuArray<Identity> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The running task as the process that asked, looked up once for a hook.
pub(crate) struct Caller<G> {
    pub(crate) task: Current<G>,
    pub(crate) ids: Ids,
    /// struct task_struct of its main thread.
    pub(crate) leader: u64,
    start: u64,
    /// Identifies process and executable together.
    pub(crate) key: u64,
    vpid: u32,
}

impl<G: Generation> Caller<G> {
    /// Remembers the answer in the room of this program.
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        let task = Current::get();
        let ids = ids();
        let started = task.load::<u64>(offset!(task_start_boottime));
        let exec = task.load::<u64>(offset!(task_exec_id));
        let last = LAST.get_ptr_mut(G::ROOM)?;
        // SAFETY: the room of this program on this CPU, which it has to itself while it runs.
        let last = unsafe { &mut *last };
        if last.ids != ids.both() || last.started != started || last.exec != exec {
            *last = Identity::read(task, ids, started, exec);
        }
        Some(Self::with(task, ids, last))
    }

    /// For where there is no room.
    #[inline(always)]
    pub(crate) fn read() -> Self {
        let task = Current::get();
        let ids = ids();
        let started = task.load::<u64>(offset!(task_start_boottime));
        let exec = task.load::<u64>(offset!(task_exec_id));
        Self::with(task, ids, &Identity::read(task, ids, started, exec))
    }

    #[inline(always)]
    fn with(task: Current<G>, ids: Ids, identity: &Identity) -> Self {
        Self {
            task,
            ids,
            leader: identity.leader,
            start: identity.start,
            key: identity.key,
            vpid: identity.vpid as u32,
        }
    }

    /// Names the process in a row.
    #[inline(always)]
    pub(crate) fn name(&self, row: &mut Row) {
        name::<G::Far>(row, self.leader as Ptr, self.start, self.ids.tgid);
        // SAFETY: no arguments.
        row.cgroup = unsafe { bpf_get_current_cgroup_id() };
    }

    /// Whether it is nobody that can be named.
    #[inline(always)]
    pub(crate) fn is_nobody(&self) -> bool {
        self.task.is_anybodys()
    }

    /// Fills in the task, which is zeroed, and the bits of `present`. Nobody is left at that.
    #[inline(always)]
    pub(crate) fn describe(&self, record: &mut TaskRecord, present: &mut u32) {
        if self.is_nobody() {
            return;
        }
        let Self {
            task,
            ids: Ids { tgid, tid },
            leader: _,
            start,
            key,
            vpid,
        } = *self;
        record.tgid = tgid;
        record.tid = tid;
        task.comm(&mut record.comm);
        record.start_time = start;
        record.process_key = key;
        record.vpid = vpid;
        set(present, present::COMM | present::START_TIME | present::VPID);
        if detailed(detail::USER) {
            record.uid = uid();
        }
        if detailed(detail::CGROUP) {
            // SAFETY: no arguments.
            record.cgroup = unsafe { bpf_get_current_cgroup_id() };
        }
        if detailed(detail::REST) {
            self.relate(record, present);
        }
    }

    /// Fills in the parent.
    #[inline(always)]
    pub(crate) fn relate(&self, record: &mut TaskRecord, present: &mut u32) {
        record.parent = self.task.parent();
        set(present, present::PARENT);
    }
}

/// Names a process in a row, by its main thread.
#[inline(always)]
pub(crate) fn name<F: Memory>(row: &mut Row, leader: Ptr, start: u64, tgid: u32) {
    let at = offset!(task_comm);
    let name = (&raw mut row.comm).cast::<u64>();
    // SAFETY: the two halves of sixteen bytes; rows keep names aligned.
    unsafe {
        name.write_volatile(F::load(leader, at));
        name.add(1).write_volatile(F::load(leader, at + 8));
    }
    row.started = start;
    row.pid = tgid;
}

#[inline(always)]
fn typed<G: Generation>() -> bool {
    G::HELPERS || config!(helpers) & helper::TASK_BTF != 0
}
