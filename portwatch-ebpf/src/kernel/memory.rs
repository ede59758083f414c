//! Two ways to read kernel memory, and the offsets to read at.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use portwatch_ebpf::abi::{config::Config, layout::Layout};

/// Offsets of kernel fields, filled in by the loader. Read a member with [`offset!`], never as a
/// whole: the verifier follows single loads from read-only data, not copies.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::EMPTY;

/// What to do, filled in by the loader. Read a member with [`config!`].
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::EMPTY;

/// The offset of a field, or ABSENT.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static of ours; volatile because the loader replaces its contents.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::memory::LAYOUT.$field) }
    };
}
pub(crate) use offset;

/// A member of the configuration.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: a static of ours; volatile because the loader replaces its contents.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::memory::CONFIG.$field) }
    };
}
pub(crate) use config;

/// An address in the kernel. Not dereferenceable by itself.
pub(crate) type Ptr = *const c_void;

/// Sets bits of a word that lies in memory, and leaves it there.
///
/// Kept in a register, a set of bits that is collected over a dozen branches is a different constant
/// on every path, and the verifier has to look at each of the 2¹² ends. Memory of the ring or of a
/// map it does not follow.
#[inline(always)]
pub(crate) fn set(word: &mut u32, bits: u32) {
    let word = &raw mut *word;
    // SAFETY: a valid reference a line above.
    unsafe { word.write_volatile(word.read_volatile() | bits) };
}

/// The address of a BTF pointer as a plain number, as global functions take it. Read back through a
/// helper: the verifier does not let arithmetic make a number of a pointer.
#[inline(always)]
pub(crate) fn number(pointer: Ptr) -> u64 {
    // SAFETY: reads our own stack.
    unsafe { bpf_probe_read_kernel((&raw const pointer).cast::<u64>()) }.unwrap_or(0)
}

/// How a pointer may be followed.
pub(crate) trait Memory {
    /// Reads a value of 1, 2, 4 or 8 bytes at `base + offset`.
    fn load<T: Copy>(base: Ptr, offset: u32) -> Option<T>;

    /// Reads 16 bytes (an IPv6 address).
    fn load16(base: Ptr, offset: u32) -> Option<[u8; 16]> {
        let high = Self::load::<[u8; 8]>(base, offset)?;
        let low = Self::load::<[u8; 8]>(base, offset + 8)?;
        let mut all = [0; 16];
        let (first, second) = all.split_at_mut(8);
        first.copy_from_slice(&high);
        second.copy_from_slice(&low);
        Some(all)
    }

    /// Reads one bit of a bitfield or flag word as 0 or 1. `bits` counts bits from the start of the
    /// struct.
    fn bit(base: Ptr, bits: u32) -> Option<u32> {
        Some(Self::bits(base, bits)? & 1)
    }

    /// Reads up to the end of a byte from a bit on.
    fn bits(base: Ptr, bits: u32) -> Option<u32> {
        Some(u32::from(Self::load::<u8>(base, bits >> 3)?) >> (bits & 7))
    }
}

/// For pointers the verifier knows the BTF type of: a plain load. The kernel turns a fault into 0.
pub(crate) struct Typed;

impl Memory for Typed {
    #[inline(always)]
    fn load<T: Copy>(base: Ptr, offset: u32) -> Option<T> {
        // SAFETY: the verifier refuses the program unless base is a BTF pointer and offset names a
        // member of this size; a fault reads as 0.
        Some(unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) })
    }
}

/// For every other pointer: bpf_probe_read_kernel.
pub(crate) struct Probed;

impl Memory for Probed {
    #[inline(always)]
    fn load<T: Copy>(base: Ptr, offset: u32) -> Option<T> {
        // SAFETY: the helper checks the address and fails instead of faulting.
        unsafe { bpf_probe_read_kernel(base.byte_add(offset as usize).cast::<T>()) }.ok()
    }

    #[inline(always)]
    fn load16(base: Ptr, offset: u32) -> Option<[u8; 16]> {
        Self::load(base, offset)
    }
}
