//! Descriptors of sockets, whoever has them: what the kernel's iterator over all descriptor tables
//! shows one after the other (kernel/bpf/task_iter.c, `bpf_iter_task_file`). It alone sees sockets that
//! are bound and do not listen, on every kernel.

use aya_ebpf::{helpers::generated::bpf_seq_write, macros::map, maps::PerCpuArray};
use portwatch_ebpf::abi::record::{DescriptorRecord, Header, VERSION, flags, kind, present};

use super::{
    found,
    generation::Generation,
    memory::{Memory, Ptr, Typed, offset, set, zero},
    sock::{self, Kind},
    task::{self, Current},
};

/// Where the record is put together: memory of a map, which the verifier does not follow.
#[map]
static DESCRIPTOR: PerCpuArray<DescriptorRecord> = PerCpuArray::with_max_entries(1, 0);

/// Writes the descriptor to the file of the iterator if it is of a socket with ports.
///
/// The kernel passes over threads that share the table of their process (since 5.10, 203d7b054fc7).
#[inline(always)]
pub(crate) fn write<G: Generation>(seq: Ptr, task: Ptr, fd: u32, file: Ptr) {
    let sk = sock::of_file::<G::Far>(file);
    if sk.is_null() {
        return;
    }
    let Some(kind) = Kind::of::<G::Far>(sk) else {
        return;
    };
    let Some(record) = DESCRIPTOR.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the slot of this CPU, which the iterator has to itself while its program runs: it is read
    // by one thread of portwatch. A record of the ABI: plain integers, a multiple of eight bytes.
    let record = unsafe {
        zero(record);
        &mut *record
    };
    record.header = Header {
        version: VERSION,
        kind: kind::DESCRIPTOR,
        len: size_of::<DescriptorRecord>() as u32,
    };
    let tgid = Typed::load::<u32>(task, offset!(task_tgid));
    record.pid = task::number_for::<G>(Current::get(), task, tgid);
    record.fd = fd;
    record.netns = sock::netns::<G::Far>(sk);
    record.of_thread = u32::from(Typed::load::<u32>(task, offset!(task_pid)) != tgid);
    found::describe::<G::Far>(&mut record.found, sock::acting::<G::Far>(sk));
    if kind.is_mptcp() {
        set(&mut record.found.flags, flags::MPTCP);
    }
    record.found.inode = sock::inode_of_file::<G::Far>(file);
    set(&mut record.found.present, present::INODE | present::NETNS);
    // What does not fit the kernel's buffer is shown again in the next one (kernel/bpf/bpf_iter.c,
    // `bpf_seq_read`).
    // SAFETY: the verifier knows the file; the record is as long as told.
    unsafe {
        bpf_seq_write(
            seq.cast_mut().cast(),
            (&raw const *record).cast(),
            size_of::<DescriptorRecord>() as u32,
        );
    }
}
