//! `struct task_struct` of the task that runs now.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{
        bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
    },
};
use portwatch_ebpf::abi::{
    config::helper,
    layout::ABSENT,
    record::{TaskRecord, present},
};

use super::memory::{Memory, Probed, Ptr, Typed, config, offset, set};

/// include/linux/sched.h
const PF_IO_WORKER: u32 = 0x0000_0010;
/// include/linux/sched.h
const PF_KTHREAD: u32 = 0x0020_0000;
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
#[derive(Clone, Copy)]
pub(crate) struct Current(Ptr);

impl Current {
    #[inline(always)]
    pub(crate) fn get() -> Self {
        if typed() {
            // SAFETY: no arguments.
            Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
        } else {
            // SAFETY: no arguments; the number is the address of the task.
            Self(unsafe { bpf_get_current_task() } as Ptr)
        }
    }

    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> T {
        load(self.0, offset)
    }

    fn flags(self) -> u32 {
        self.load(offset!(task_flags))
    }

    /// Whether this is a thread of the kernel.
    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.flags() & PF_KTHREAD != 0
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
        at != ABSENT && !self.load::<Ptr>(at).is_null()
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
        if config!(helpers) & helper::TASK_PT_REGS != 0 {
            // SAFETY: the verifier knows the task as a BTF pointer.
            let regs = unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as Ptr;
            return Typed::load(regs, offset!(regs_orig_ax));
        }
        let stack = self.load::<Ptr>(offset!(task_stack));
        Probed::load(
            stack,
            THREAD_SIZE - offset!(pt_regs_size) + offset!(regs_orig_ax),
        )
    }

    /// When the process started, and a number that changes at every exec and differs from process to
    /// process.
    #[inline(always)]
    fn identity(self, tgid: u32) -> (u64, u64) {
        let leader = self.load::<Ptr>(offset!(task_group_leader));
        let start = load::<u64>(leader, offset!(task_start_boottime));
        let exec = self.load::<u64>(offset!(task_exec_id));
        (start, start.rotate_left(8) ^ exec ^ (u64::from(tgid) << 40))
    }

    /// Real user id in the initial user namespace.
    #[inline(always)]
    fn uid(self) -> u32 {
        if typed() {
            return load(self.load(offset!(task_cred)), offset!(cred_uid));
        }
        uid()
    }

    /// Id of the cgroup in the version 2 hierarchy.
    #[inline(always)]
    fn cgroup(self) -> u64 {
        let (set, group, node, id) = (
            offset!(task_cgroups),
            offset!(css_set_dfl_cgrp),
            offset!(cgroup_kn),
            offset!(kernfs_node_id),
        );
        if typed() && set != ABSENT && group != ABSENT && node != ABSENT && id != ABSENT {
            return load(load(load(self.load(set), group), node), id);
        }
        // SAFETY: no arguments.
        unsafe { bpf_get_current_cgroup_id() }
    }

    /// The task name.
    #[inline(always)]
    fn comm(self, to: &mut [u8; 16]) {
        if typed() {
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

    #[inline(always)]
    fn parent(self) -> u32 {
        load(self.load(offset!(task_real_parent)), offset!(task_tgid))
    }

    #[inline(always)]
    fn vpid(self, tgid: u32) -> u32 {
        let leader = self.load::<Ptr>(offset!(task_group_leader));
        let pid = load::<Ptr>(leader, offset!(task_thread_pid));
        let level = load::<u32>(pid, offset!(pid_level));
        if level == 0 {
            return tgid;
        }
        // An array of unknown length ends the struct: only a probe may read behind its first entry.
        let at = offset!(pid_numbers) + (level & 31) * offset!(upid_size) + offset!(upid_nr);
        Probed::load(pid, at)
    }
}

/// The running task as the process that asked, looked up once for a hook.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) task: Current,
    pub(crate) ids: Ids,
    start: u64,
    /// Identifies process and executable together.
    pub(crate) key: u64,
}

impl Caller {
    #[inline(always)]
    pub(crate) fn get() -> Self {
        let task = Current::get();
        let ids = ids();
        let (start, key) = task.identity(ids.tgid);
        Self {
            task,
            ids,
            start,
            key,
        }
    }

    /// Fills in the task, which is zeroed, and the bits of `present`.
    #[inline(always)]
    pub(crate) fn describe(&self, record: &mut TaskRecord, present: &mut u32) {
        let Self {
            task,
            ids: Ids { tgid, tid },
            start,
            key,
        } = *self;
        record.tgid = tgid;
        record.tid = tid;
        record.uid = task.uid();
        record.cgroup = task.cgroup();
        task.comm(&mut record.comm);
        record.start_time = start;
        record.process_key = key;
        record.parent = task.parent();
        record.vpid = task.vpid(tgid);
        set(
            present,
            present::COMM | present::START_TIME | present::PARENT | present::VPID,
        );
    }
}

#[inline(always)]
fn typed() -> bool {
    config!(helpers) & helper::TASK_BTF != 0
}

#[inline(always)]
fn load<T: Copy>(base: Ptr, offset: u32) -> T {
    if typed() {
        Typed::load(base, offset)
    } else {
        Probed::load(base, offset)
    }
}
