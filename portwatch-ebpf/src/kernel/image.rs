//! The executable and the arguments of the running process, told once ahead of its first event, so
//! that a process that is gone a millisecond later is named too and exec itself costs nothing.

use aya_ebpf::helpers::{bpf_probe_read_user_buf, generated::bpf_probe_read_kernel_str};
use portwatch_ebpf::abi::record::{
    flags, kind, present, Header, ProcessRecord, ARGS_LEN, NAME_LEN, PATH_LEN, VERSION,
};

use super::{
    memory::{offset, set, Memory, Probed, Ptr},
    task::Current,
};
use crate::{emit, state::ANNOUNCED};

/// Components of a path, mounts crossed included, that are followed at most.
const MAX_DEPTH: u32 = 24;

/// Sends the process ahead of its first event. When the ring is full it is tried again with the
/// next event; nothing is counted as lost, since the event itself says who it was.
#[inline(always)]
pub(crate) fn announce(task: Current, tgid: u32, key: u64) {
    // A direct-mapped cache: a collision only means that a process is told twice.
    let Some(slot) = ANNOUNCED.get_ptr_mut(tgid & (crate::state::ANNOUNCED_SLOTS - 1)) else {
        return;
    };
    // SAFETY: a slot of our map, one aligned word.
    if unsafe { *slot } == key {
        return;
    }
    if send(task) {
        // SAFETY: as above.
        unsafe { *slot = key };
    }
}

#[inline(never)]
fn send(task: Current) -> bool {
    let Some(mm) = task.load::<Ptr>(offset!(task_mm)) else {
        return true;
    };
    if mm.is_null() {
        return true;
    }
    let Some(mut entry) = emit::EVENTS.reserve::<ProcessRecord>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours and as large as the record; every member is written before submit:
    // the arrays up to the lengths told, the rest zeroed by the kernel when the ring was made and
    // never holding anything but earlier records.
    let record = unsafe { &mut *record };
    record.header = Header {
        version: VERSION,
        kind: kind::PROCESS,
        len: size_of::<ProcessRecord>() as u32,
    };
    record.present = 0;
    task.describe(&mut record.task, &mut record.present);
    record.flags = 0;
    record.path_len = 0;
    record.args_len = 0;
    path(record, mm);
    args(record, mm);
    entry.submit(0);
    true
}

#[inline(always)]
fn path(record: &mut ProcessRecord, mm: Ptr) {
    let Some(file) = Probed::load::<Ptr>(mm, offset!(mm_exe_file)) else {
        return;
    };
    let Some(mut dentry) = Probed::load::<Ptr>(file, offset!(file_dentry)) else {
        return;
    };
    let Some(mut mnt) = Probed::load::<Ptr>(file, offset!(file_mnt)) else {
        return;
    };
    let mut complete = false;
    for _ in 0..MAX_DEPTH {
        if Probed::load::<Ptr>(mnt, offset!(vfsmount_root)) == Some(dentry) {
            let mount = mnt.wrapping_byte_sub(offset!(mount_mnt) as usize);
            let Some(parent) = Probed::load::<Ptr>(mount, offset!(mount_parent)) else {
                return;
            };
            if parent == mount {
                complete = true;
                break;
            }
            let Some(at) = Probed::load::<Ptr>(mount, offset!(mount_mountpoint)) else {
                return;
            };
            dentry = at;
            mnt = parent.wrapping_byte_add(offset!(mount_mnt) as usize);
            continue;
        }
        let Some(parent) = Probed::load::<Ptr>(dentry, offset!(dentry_parent)) else {
            return;
        };
        if parent == dentry {
            complete = true;
            break;
        }
        let Some(name) = Probed::load::<Ptr>(dentry, offset!(dentry_name)) else {
            return;
        };
        // The length lies in the record, where the verifier does not follow it from round to round:
        // followed, every round would double the states it has to look at.
        // SAFETY: a member of ours; volatile for the reason above.
        let len = unsafe { (&raw const record.path_len).read_volatile() } as usize;
        if len >= PATH_LEN {
            break;
        }
        // SAFETY: len < PATH_LEN, and the array is NAME_LEN longer than that.
        let copied = unsafe {
            bpf_probe_read_kernel_str(
                record.path.as_mut_ptr().add(len).cast(),
                NAME_LEN as u32,
                name,
            )
        };
        if copied <= 0 || copied > NAME_LEN as i64 {
            return;
        }
        record.path_len = (len + copied as usize) as u32;
        dentry = parent;
    }
    if !complete {
        set(&mut record.flags, flags::CUT);
    }
    set(&mut record.present, present::PATH);
}

#[inline(always)]
fn args(record: &mut ProcessRecord, mm: Ptr) {
    let (Some(start), Some(end)) = (
        Probed::load::<u64>(mm, offset!(mm_arg_start)),
        Probed::load::<u64>(mm, offset!(mm_arg_end)),
    ) else {
        return;
    };
    let mut len = end.wrapping_sub(start);
    if len > ARGS_LEN as u64 {
        len = ARGS_LEN as u64;
        set(&mut record.flags, flags::CUT);
    }
    if len == 0 {
        return;
    }
    let Some(to) = record.args.get_mut(..len as usize) else {
        return;
    };
    // SAFETY: the helper checks the address and fails instead of faulting.
    if unsafe { bpf_probe_read_user_buf(start as *const u8, to) }.is_ok() {
        record.args_len = len as u32;
        set(&mut record.present, present::ARGS);
    }
}
