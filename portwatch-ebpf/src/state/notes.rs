//! Notes of who did something to a socket, for whoever asks later.
//!
//! In slots of an array, chosen by what the note is about: writing one costs a few dozen instructions,
//! none has to be taken out, and a later one overwrites an earlier one in its slot.

use portwatch_ebpf::abi::record::TaskRecord;

use crate::kernel::memory::zero;

/// A note.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Note<const N: usize> {
    /// What it is about; the first word is 0 while the rest is written.
    key: [u64; N],
    /// Who did it.
    who: Who,
}

/// Who did it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Who {
    /// When, CLOCK_BOOTTIME, ns.
    pub(crate) at: u64,
    /// struct task_struct of the main thread. It may be gone: see `kernel::owners`.
    pub(crate) leader: u64,
    /// Bits of `record::present` of the task.
    pub(crate) present: u32,
    /// Must be 0.
    reserved: u32,
    /// The process.
    pub(crate) task: TaskRecord,
}

/// Writes a note; what of it `fill` leaves alone is an earlier one's.
///
/// Two write to a slot at once only when two sockets share it within a microsecond, or two threads work on
/// one socket; a mixed note names no process that the kernel knows under that id and start.
///
/// # Safety
/// `note` points to a slot of a map.
#[inline(always)]
pub(super) unsafe fn write<const N: usize>(
    note: *mut Note<N>,
    key: [u64; N],
    fill: impl FnOnce(&mut Who),
) {
    // SAFETY: the caller's.
    unsafe {
        let own = (&raw mut (*note).key).cast::<u64>();
        own.write_volatile(0);
        fill(&mut (*note).who);
        // The first word last: until then it is 0.
        for (at, &word) in key.iter().enumerate().rev() {
            own.add(at).write_volatile(word);
        }
    }
}

impl Who {
    /// Forgets the process that was noted before.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        // SAFETY: plain integers, a whole number of words.
        unsafe { zero(&raw mut self.task) };
        self.present = 0;
    }
}

/// Whether a note is about `key`, of which the last words may be left out.
///
/// # Safety
/// As for [`write`].
#[inline(always)]
unsafe fn is_about<const N: usize, const M: usize>(note: *const Note<N>, key: &[u64; M]) -> bool {
    const { assert!(M <= N) };
    // SAFETY: the caller's; M is at most N.
    unsafe {
        let own = (&raw const (*note).key).cast::<u64>();
        let mut differs = 0;
        for (at, &word) in key.iter().enumerate() {
            differs |= own.add(at).read_volatile() ^ word;
        }
        differs == 0
    }
}

/// Copies a note that is about `key`: when, and who; the bits of `present` of its task, else 0.
///
/// # Safety
/// As for [`write`].
#[inline(always)]
pub(super) unsafe fn copy<const N: usize, const M: usize>(
    note: *const Note<N>,
    key: [u64; M],
    at: &mut u64,
    task: &mut TaskRecord,
) -> u32 {
    // SAFETY: the caller's, and a record of the ring: plain integers, whole numbers of words.
    unsafe {
        if !is_about(note, &key) {
            return 0;
        }
        *at = (&raw const (*note).who.at).read_volatile();
        let from = (&raw const (*note).who.task).cast::<u64>();
        let to = (&raw mut *task).cast::<u64>();
        for word in 0..size_of::<TaskRecord>() / 8 {
            to.add(word).write_volatile(from.add(word).read_volatile());
        }
        let present = (&raw const (*note).who.present).read_volatile();
        // Written meanwhile, it is about something else.
        if is_about(note, &key) { present } else { 0 }
    }
}

/// The main thread of the process that a note about `key` names; 0 where there is none. Whether it is of a
/// process that was copied from the note, its ids tell.
///
/// # Safety
/// As for [`write`].
#[inline(always)]
pub(super) unsafe fn leader<const N: usize, const M: usize>(
    note: *const Note<N>,
    key: [u64; M],
) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        if is_about(note, &key) {
            (&raw const (*note).who.leader).read_volatile()
        } else {
            0
        }
    }
}

/// What identifies the process that a note about `key` names; 0 where there is none.
///
/// # Safety
/// As for [`write`].
#[inline(always)]
pub(super) unsafe fn process<const N: usize, const M: usize>(
    note: *const Note<N>,
    key: [u64; M],
) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        if is_about(note, &key) {
            (&raw const (*note).who.task.process_key).read_volatile()
        } else {
            0
        }
    }
}

/// A word of what a note is about.
///
/// # Safety
/// As for [`write`].
#[inline(always)]
pub(super) unsafe fn word<const AT: usize, const N: usize>(note: *const Note<N>) -> u64 {
    const { assert!(AT < N) };
    // SAFETY: the caller's; AT is less than N.
    unsafe {
        (&raw const (*note).key)
            .cast::<u64>()
            .add(AT)
            .read_volatile()
    }
}
