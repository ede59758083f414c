//! The executable and the arguments of the running process, told once ahead of its first event, so
//! that a process that is gone a millisecond later is named too and exec itself costs nothing.

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_probe_read_user_buf, generated::bpf_probe_read_kernel_str};
use portwatch_ebpf::abi::record::{
    ARGS_LEN, Header, NAME_LEN, PATH_LEN, ProcessRecord, VERSION, flags, kind, present,
};

use super::{
    generation::{Bounded, Casting, Generation, Looped, NO_ROOM, Step},
    memory::{Memory, Ptr, offset, peek, poke, set, zero},
    task::Caller,
};
use crate::{
    diagnose::{note, say},
    emit,
    state::ANNOUNCED,
};

/// Sends the running process ahead of its first event. When the ring is full it is tried again with
/// the next event; nothing is counted as lost, since the event itself says who it was.
#[inline(always)]
pub(crate) fn announce<G: Generation>(caller: &Caller<G>) {
    let key = caller.key;
    // A direct-mapped cache: a collision only means that a process is told twice.
    let slot = ANNOUNCED.slot(caller.ids.tgid.into());
    // SAFETY: a slot of ours, one aligned word.
    if unsafe { *slot } == key {
        return;
    }
    if G::send_image() == 0 {
        // SAFETY: as above.
        unsafe { *slot = key };
        say(note::ANNOUNCED, 0);
    } else {
        say(note::NOT_ANNOUNCED, 0);
    }
}

/// Global functions: the verifier looks at them once a program, not once for every way to get here.
#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_image_bounded() -> i32 {
    send::<Bounded<NO_ROOM>>(&Caller::read())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_image_looped() -> i32 {
    send::<Looped<NO_ROOM>>(&Caller::read())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn portwatch_send_image_casting() -> i32 {
    send::<Casting<NO_ROOM>>(&Caller::read())
}

#[inline(always)]
fn send<G: Generation>(caller: &Caller<G>) -> i32 {
    let mm = caller.task.pointer(offset!(task_mm));
    if mm.is_null() {
        return 0;
    }
    let Some(mut entry) = emit::EVENTS.reserve::<ProcessRecord>(0) else {
        return 1;
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
    // SAFETY: a record of the ABI: plain integers, a multiple of eight bytes.
    unsafe { zero(&raw mut record.task) };
    caller.describe(&mut record.task, &mut record.present);
    record.flags = 0;
    record.path_len = 0;
    record.args_len = 0;
    path::<G>(record, mm);
    args::<G>(record, mm);
    entry.submit(0);
    0
}

/// The way from the executable up to the root of its mounts.
struct Climb<F>(PhantomData<F>);

/// Words of the record's scratch.
mod word {
    pub(super) const DENTRY: usize = 0;
    pub(super) const MNT: usize = 1;
    pub(super) const END: usize = 2;
}

/// The climb ended at the top.
const TOP: u64 = 1;
/// The climb ended where memory could not be read.
const UNREADABLE: u64 = 2;

impl<F: Memory> Step for Climb<F> {
    type Record = ProcessRecord;
    const BOUND: u32 = 20;
    const LIMIT: u32 = 64;

    #[inline(always)]
    fn step(record: &mut ProcessRecord, _round: u32) -> bool {
        let (dentry, mnt) = (
            peek(&record.scratch, word::DENTRY),
            peek(&record.scratch, word::MNT),
        );
        if F::fetch::<u64>(mnt, offset!(vfsmount_root)) == dentry {
            let mount = mnt.wrapping_sub(u64::from(offset!(mount_mnt)));
            let parent = F::fetch::<u64>(mount, offset!(mount_parent));
            if parent == mount {
                poke(&mut record.scratch, word::END, TOP);
                return false;
            }
            let at = F::fetch::<u64>(mount, offset!(mount_mountpoint));
            poke(&mut record.scratch, word::DENTRY, at);
            let mnt = parent.wrapping_add(u64::from(offset!(mount_mnt)));
            poke(&mut record.scratch, word::MNT, mnt);
            return true;
        }
        let parent = F::fetch::<u64>(dentry, offset!(dentry_parent));
        if parent == dentry {
            poke(&mut record.scratch, word::END, TOP);
            return false;
        }
        // SAFETY: a member of ours; volatile so that the verifier does not follow the length from
        // round to round.
        let len = unsafe { (&raw const record.path_len).read_volatile() } as usize;
        if len >= PATH_LEN {
            return false;
        }
        let name = F::fetch::<u64>(dentry, offset!(dentry_name)) as Ptr;
        // SAFETY: len < PATH_LEN, and the array is NAME_LEN longer than that.
        let copied = unsafe {
            bpf_probe_read_kernel_str(
                record.path.as_mut_ptr().add(len).cast(),
                NAME_LEN as u32,
                name,
            )
        };
        if copied <= 0 {
            poke(&mut record.scratch, word::END, UNREADABLE);
            return false;
        }
        record.path_len = (len as u32).wrapping_add(copied as u32);
        poke(&mut record.scratch, word::DENTRY, parent);
        true
    }
}

#[inline(always)]
fn path<G: Generation>(record: &mut ProcessRecord, mm: Ptr) {
    let file = G::Far::fetch::<u64>(mm as u64, offset!(mm_exe_file));
    poke(
        &mut record.scratch,
        word::DENTRY,
        G::Far::fetch::<u64>(file, offset!(file_dentry)),
    );
    poke(
        &mut record.scratch,
        word::MNT,
        G::Far::fetch::<u64>(file, offset!(file_mnt)),
    );
    poke(&mut record.scratch, word::END, 0);
    G::repeat::<Climb<G::Far>>(record);
    let end = peek(&record.scratch, word::END);
    // SAFETY: words.
    unsafe { zero(&raw mut record.scratch) };
    if end == UNREADABLE {
        return;
    }
    if end != TOP {
        set(&mut record.flags, flags::CUT_PATH);
    }
    set(&mut record.present, present::PATH);
}

#[inline(always)]
fn args<G: Generation>(record: &mut ProcessRecord, mm: Ptr) {
    let start = G::Far::load::<u64>(mm, offset!(mm_arg_start));
    let end = G::Far::load::<u64>(mm, offset!(mm_arg_end));
    let mut len = end.wrapping_sub(start);
    if len > ARGS_LEN as u64 {
        len = ARGS_LEN as u64;
        set(&mut record.flags, flags::CUT_ARGS);
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
