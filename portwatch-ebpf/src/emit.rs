//! The ring buffer: reserve, submit, and account for what did not fit.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use portwatch_ebpf::abi::record::{Header, SocketRecord, VERSION, kind, loss};

use crate::{
    diagnose::{note, say},
    kernel::memory,
};

/// Records on their way to user space. The loader sets the size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Events lost, per CPU, by [`loss`]; the last slot counts all of them.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::SLOTS, 0);

/// Counts a lost event. A function of its own: each look at a map is a place where the kernel copies a program anew
/// while it loads it (kernel/bpf/verifier.c, `do_misc_fixups`), and this is called from many.
#[inline(never)]
pub(crate) fn lost(reason: u32) {
    add(reason);
    add(loss::ALL);
    say(note::LOST, u64::from(reason));
}

#[inline(always)]
fn add(slot: u32) {
    if let Some(count) = LOST.get_ptr_mut(slot) {
        // Another program may come in between: of a softirq or, on 7.x, of another task.
        // SAFETY: this CPU's slot of our map.
        unsafe { memory::add(count, 1) };
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

/// A socket record being written.
pub(crate) struct Entry(RingBufEntry<SocketRecord>);

impl Entry {
    /// Reserves a record; `None` when the ring is full, which is counted.
    #[inline(always)]
    pub(crate) fn reserve() -> Option<Self> {
        let entry = EVENTS.reserve::<SocketRecord>(0);
        if entry.is_none() {
            lost(loss::RING_FULL);
        }
        entry.map(Self)
    }

    /// The record. `hook::common` writes all of it.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> &mut SocketRecord {
        // SAFETY: the entry is ours and as large as the record; all of it is plain integers.
        unsafe { &mut *self.0.as_mut_ptr() }
    }

    /// Hands it over.
    #[inline(always)]
    pub(crate) fn submit(mut self) {
        stamp(self.record());
        self.0.submit(0);
    }
}

/// Copies a finished record into the ring.
#[inline(always)]
pub(crate) fn copy(record: &SocketRecord) {
    if EVENTS.output::<SocketRecord>(record, 0).is_err() {
        lost(loss::RING_FULL);
    }
}
