//! Tables that programs have the address of.
//!
//! Each is a section of the object, of which the loader makes a map with a single value (`BPF_PSEUDO_MAP_VALUE`, since
//! 5.2). Nothing is looked up: that would be a call, or where the kernel puts the look into the program a place at
//! which it copies all of the program while it loads it (kernel/bpf/verifier.c, `do_misc_fixups`); and no branch asks
//! whether something is there.

use core::{cell::UnsafeCell, mem::MaybeUninit};

use crate::kernel::memory::unknown;

/// So many slots, a power of two, of which all bytes are 0 at first. Put it into a section `.bss.NAME`.
#[repr(transparent)]
pub(crate) struct Table<T, const N: usize>(UnsafeCell<MaybeUninit<[T; N]>>);

// SAFETY: it hands out no reference; how a slot is shared is up to who uses the address.
unsafe impl<T, const N: usize> Sync for Table<T, N> {}

impl<T: Copy, const N: usize> Table<T, N> {
    /// All zeros.
    pub(crate) const fn empty() -> Self {
        const { assert!(N.is_power_of_two() && size_of::<[T; N]>() <= 4 << 20) };
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// The slot that the lower bits of a number choose: never null, and within the table.
    #[inline(always)]
    pub(crate) fn slot(&'static self, number: u64) -> *mut T {
        // What the compiler knows of the number the verifier may not know.
        let at = unknown(number) & (N as u64 - 1);
        self.0.get().cast::<T>().wrapping_add(at as usize)
    }

    /// A slot that is known beforehand.
    #[inline(always)]
    pub(crate) fn at<const AT: usize>(&'static self) -> *mut T {
        const { assert!(AT < N) };
        self.0.get().cast::<T>().wrapping_add(AT)
    }
}
