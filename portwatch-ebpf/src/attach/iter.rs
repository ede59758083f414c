//! Iterators: programs that run because somebody reads their file.

use core::ffi::c_void;

use crate::kernel::{descriptor, generation::Generation, memory::Ptr};

/// What the program of an iterator is called with.
pub(crate) struct IterContext(*const TaskFile);

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c). After the last descriptor both pointers are
/// null.
#[repr(C)]
struct TaskFile {
    meta: *const Meta,
    task: Ptr,
    fd: u32,
    file: Ptr,
}

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
struct Meta {
    /// The file that is read.
    seq: Ptr,
}

impl IterContext {
    pub(crate) fn new(context: *mut c_void) -> Self {
        Self(context.cast_const().cast())
    }
}

/// `bpf_iter_task_file(meta, task, fd, file)`. Each pointer is loaded once: the verifier asks of each
/// load anew whether it is null.
#[inline(always)]
pub(crate) fn task_file<G: Generation>(ctx: &IterContext) {
    // SAFETY: the kernel's arguments; volatile so that the compiler loads none of them twice.
    let (meta, task, fd, file) = unsafe {
        (
            (&raw const (*ctx.0).meta).read_volatile(),
            (&raw const (*ctx.0).task).read_volatile(),
            (&raw const (*ctx.0).fd).read_volatile(),
            (&raw const (*ctx.0).file).read_volatile(),
        )
    };
    if task.is_null() || file.is_null() {
        return;
    }
    // SAFETY: never null.
    let seq = unsafe { (&raw const (*meta).seq).read_volatile() };
    descriptor::write::<G>(seq, task, fd, file);
}
