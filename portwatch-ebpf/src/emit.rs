//! The ring buffer: reserve, submit, and account for what did not fit.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use portwatch_ebpf::abi::record::{Header, SocketRecord, VERSION, kind, loss};

/// Records on their way to user space. The loader sets the size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Events lost, per CPU, by [`loss`]; the last slot counts all of them.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::SLOTS, 0);

/// Counts a lost event.
#[inline(always)]
pub(crate) fn lost(reason: u32) {
    add(reason);
    add(loss::ALL);
}

#[inline(always)]
fn add(slot: u32) {
    if let Some(count) = LOST.get_ptr_mut(slot) {
        // SAFETY: this CPU's slot of our map.
        unsafe { *count += 1 };
    }
}

/// Now, CLOCK_BOOTTIME, ns.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Fills in the header and says how much was lost before on this CPU.
#[inline(always)]
pub(crate) fn stamp(record: &mut SocketRecord) {
    record.header = Header {
        version: VERSION,
        kind: kind::SOCKET,
        len: size_of::<SocketRecord>() as u32,
    };
    // SAFETY: no arguments.
    record.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    record.lost = match LOST.get_ptr(loss::ALL) {
        // SAFETY: this CPU's slot of our map.
        Some(count) => unsafe { *count as u32 },
        None => 0,
    };
}

/// Reserves a socket record, lets `fill` write it, and submits it.
#[inline(always)]
pub(crate) fn socket(fill: impl FnOnce(&mut SocketRecord)) {
    let Some(mut entry) = EVENTS.reserve::<SocketRecord>(0) else {
        lost(loss::RING_FULL);
        return;
    };
    // SAFETY: the entry is ours and as large as the record; all of it is plain integers.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    fill(record);
    stamp(record);
    entry.submit(0);
}

/// Copies a finished record into the ring.
#[inline(always)]
pub(crate) fn copy(record: &SocketRecord) {
    if EVENTS.output::<SocketRecord>(record, 0).is_err() {
        lost(loss::RING_FULL);
    }
}
