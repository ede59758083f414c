//! Three ways to read kernel memory, and the offsets to read at.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated},
    macros::map,
    maps::PerCpuArray,
};
use portwatch_ebpf::abi::{
    config::{Config, RDONLY_CAST},
    layout::Layout,
};

use super::generation::ROOMS;

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

/// Whether a detail is collected (bits of `portwatch_ebpf::abi::config::detail`).
#[inline(always)]
pub(crate) fn detailed(bits: u32) -> bool {
    config!(details) & bits != 0
}

/// Words that are read together.
pub(crate) const ROW: usize = 8;

/// An address in the kernel. Not dereferenceable by itself.
pub(crate) type Ptr = *const c_void;

/// Writes zeros over a record, word by word: the compiler would call a memset() that writes, and has
/// the verifier follow, every byte.
///
/// # Safety
/// `T` must be a whole number of u64, aligned as one, and plain integers.
#[inline(always)]
pub(crate) unsafe fn zero<T>(record: *mut T) {
    let words = record.cast::<u64>();
    let count = size_of::<T>() / 8;
    let mut at = 0;
    // Eight at a time: a loop over single words is left a loop, which runs four instructions a word.
    while at + 8 <= count {
        for ahead in [0, 1, 2, 3, 4, 5, 6, 7] {
            // SAFETY: within the record.
            unsafe { words.add(at + ahead).write_volatile(0) };
        }
        at += 8;
    }
    while at < count {
        // SAFETY: within the record.
        unsafe { words.add(at).write_volatile(0) };
        at += 1;
    }
}

/// Reads a word of scratch memory as something that the verifier knows nothing about.
#[inline(always)]
pub(crate) fn peek<const N: usize>(words: &[u64; N], at: usize) -> u64 {
    // SAFETY: the callers' indices are constants within the array.
    unsafe { (&raw const *words).cast::<u64>().add(at).read_volatile() }
}

/// Writes a word of scratch memory.
#[inline(always)]
pub(crate) fn poke<const N: usize>(words: &mut [u64; N], at: usize, value: u64) {
    // SAFETY: as `peek`.
    unsafe {
        (&raw mut *words)
            .cast::<u64>()
            .add(at)
            .write_volatile(value)
    };
}

/// A number of which the compiler forgets what it knows. Of a check that it thinks needless it leaves one that the
/// verifier needs; and of several zeros in a row it does not make a call of memset(), which is a function of the
/// program: before 6.4 verifiers do not follow through such a call which numbers an address was computed from, take
/// all numbers for ones that matter, and walk each path to its end.
#[inline(always)]
pub(crate) fn unknown(mut number: u64) -> u64 {
    // SAFETY: a move from a register to itself.
    unsafe {
        asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack));
    }
    number
}

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

/// The same without a helper, for hot paths: through the memory of a map, which the verifier does not
/// follow either.
#[inline(always)]
pub(crate) fn number_in(room: u32, pointer: Ptr) -> u64 {
    let Some(word) = NUMBER.get_ptr_mut(room) else {
        return 0;
    };
    // SAFETY: the room of this program on this CPU, which it has to itself while it runs.
    unsafe {
        word.write_volatile(pointer as u64);
        word.read_volatile()
    }
}

#[map]
static NUMBER: PerCpuArray<u64> = PerCpuArray::with_max_entries(ROOMS, 0);

/// Adds to a word of a map, atomically; on x86 a full barrier too.
///
/// Spelled out: the library has no atomic operations for a target that has no compare-and-swap in all
/// its versions, and this one every kernel knows.
///
/// # Safety
/// `word` points to an aligned word of a map.
#[inline(always)]
pub(crate) unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) word, value = in(reg) value);
    }
}

/// How a pointer may be followed.
///
/// A hook is called with live sockets, so there is nothing that could not be read, and no `Option`
/// says so: its payload would be an uninitialised register on one path, with which the compiler
/// computes before it looks at the tag and which old verifiers refuse; and every one of them doubles
/// the states to look at. What cannot be read after all (a descriptor that is closed meanwhile, on
/// raw tracepoints) reads as 0, and with helpers 0 leads to 0.
pub(crate) trait Memory {
    /// Whether members are loaded through pointers that the verifier knows: following three of them
    /// costs less than one call of a helper.
    const PLAIN: bool;

    /// Reads a number or pointer of 1, 2, 4 or 8 bytes at `base + offset`.
    fn load<T: Copy>(base: Ptr, offset: u32) -> T;

    /// Reads a row of words; `_room` is there for one, in memory that the verifier does not follow.
    #[inline(always)]
    fn row(from: u64, _room: &mut [u64; ROW]) -> [u64; ROW] {
        [0, 8, 16, 24, 32, 40, 48, 56].map(|at| Self::fetch(from, at))
    }

    /// As [`Memory::load`], from a plain number.
    #[inline(always)]
    fn fetch<T: Copy>(from: u64, offset: u32) -> T {
        Self::load(from as Ptr, offset)
    }

    /// Reads one bit of a bitfield or flag word as 0 or 1. `bits` counts bits from the start of the
    /// struct.
    #[inline(always)]
    fn bit(base: Ptr, bits: u32) -> u32 {
        Self::bits(base, bits) & 1
    }

    /// Reads up to the end of a byte from a bit on.
    #[inline(always)]
    fn bits(base: Ptr, bits: u32) -> u32 {
        u32::from(Self::load::<u8>(base, bits >> 3)) >> (bits & 7)
    }
}

/// For pointers the verifier knows the BTF type of: a plain load. What may be null is compared with
/// 0 first: the kernel makes 0 of a load that faults, but before 6.5 (dced881ead78) it looks for the
/// place to go on at in a table that a program with functions does not have, and 5.10 crashes.
pub(crate) struct Typed;

impl Memory for Typed {
    const PLAIN: bool = true;

    #[inline(always)]
    fn load<T: Copy>(base: Ptr, offset: u32) -> T {
        // SAFETY: the verifier refuses the program unless base is a BTF pointer and offset names a
        // member of this size; callers know that it is not null.
        unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) }
    }
}

/// For every other pointer, on every kernel: bpf_probe_read_kernel, some ninety instructions. What cannot be read is 0:
/// the helper zeroes what it cannot fill (mm/maccess.c).
pub(crate) struct Probed;

impl Memory for Probed {
    const PLAIN: bool = false;

    #[inline(always)]
    fn load<T: Copy>(base: Ptr, offset: u32) -> T {
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut value: T = unsafe { core::mem::zeroed() };
        // SAFETY: writes size_of::<T>() bytes to value; the address is checked by the helper.
        unsafe {
            generated::bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                base.wrapping_byte_add(offset as usize),
            );
        }
        value
    }

    /// One call instead of eight.
    #[inline(always)]
    fn row(from: u64, room: &mut [u64; ROW]) -> [u64; ROW] {
        let room = &raw mut *room;
        // SAFETY: writes the room, whole; the address is checked by the helper.
        unsafe {
            generated::bpf_probe_read_kernel(
                room.cast(),
                size_of::<[u64; ROW]>() as u32,
                from as Ptr,
            );
            room.read()
        }
    }
}

/// The same by a load, some ten instructions. What cannot be read is 0 here too, user space and null
/// included (arch/x86/net/bpf_jit_comp.c, BPF_PROBE_MEM).
pub(crate) struct Cast;

impl Memory for Cast {
    const PLAIN: bool = false;

    #[inline(always)]
    fn load<T: Copy>(base: Ptr, offset: u32) -> T {
        let place = cast(base.wrapping_byte_add(offset as usize) as u64);
        // SAFETY: the verifier lets it pass: at most the first word of a struct that begins with one.
        unsafe { place.cast::<T>().read_volatile() }
    }
}

/// Makes of a number a pointer that the verifier lets us load a word through. It is no call in the
/// end: the kernel puts a move there (kernel/bpf/verifier.c, `fixup_kfunc_call`).
#[inline(always)]
fn cast(address: u64) -> Ptr {
    // SAFETY: a call of the function that user space puts here: it takes any number and the id of a
    // struct.
    let cast: unsafe extern "C" fn(u64, u32) -> Ptr =
        unsafe { core::mem::transmute(RDONLY_CAST as usize) };
    let word = config!(word_type);
    // SAFETY: as above.
    unsafe { cast(address, word) }
}
