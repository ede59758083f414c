//! What the programs remember between two calls. Sizes are bounds: what does not fit is counted.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use portwatch_ebpf::abi::{config::MAX_CGROUPS, record::SocketRecord};

use crate::kernel::generation::ROOMS;

use table::Table;

pub(crate) mod attempts;
pub(crate) mod calls;
pub(crate) mod churn;
pub(crate) mod closers;
pub(crate) mod held;
mod notes;
mod table;
pub(crate) mod takers;

/// Processes already announced, by the low bits of their id: see `kernel::image`.
#[unsafe(link_section = ".bss.ANNOUNCED")]
pub(crate) static ANNOUNCED: Table<u64, 1024> = Table::empty();

/// Process ids wanted.
#[map]
pub(crate) static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// User ids wanted.
#[map]
pub(crate) static UIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Network namespaces wanted.
#[map]
pub(crate) static NETNS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// One bit for each port wanted: local ports, then peer ports.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS, 0);

/// Words of [`PORTS`] for one side.
pub(crate) const PORT_WORDS: u32 = 65536 / 64;

/// Cgroups wanted: id in the lower 56 bits, depth in the upper 8; 0 ends the list.
#[map]
pub(crate) static CGROUPS: Array<u64> = Array::with_max_entries(MAX_CGROUPS, 0);

/// The command that is followed and its descendants, by process id.
#[map]
pub(crate) static DESCENDANTS: HashMap<u32, u8> = HashMap::with_max_entries(65536, 0);

/// Room to put an attempt together: too large for the stack beside everything else, and memory that
/// the verifier does not follow (see `kernel::memory::set`).
#[map]
static SCRATCH: PerCpuArray<SocketRecord> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The room of a program on this CPU.
#[inline(always)]
pub(crate) fn scratch(room: u32) -> Option<&'static mut SocketRecord> {
    // SAFETY: a program has its room to itself while it runs (see `kernel::generation::Generation::ROOM`).
    SCRATCH.get_ptr_mut(room).map(|room| unsafe { &mut *room })
}
