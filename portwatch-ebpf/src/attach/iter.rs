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

    /// The task and the file, if these are there. Each pointer is loaded once: the verifier asks of each load
    /// anew whether it is null.
    #[inline(always)]
    pub(crate) fn task_and_file(&self) -> Option<(Ptr, Ptr)> {
        // SAFETY: the kernel's arguments; volatile so that the compiler loads none of them twice.
        let (task, file) = unsafe {
            (
                (&raw const (*self.0).task).read_volatile(),
                (&raw const (*self.0).file).read_volatile(),
            )
        };
        (!task.is_null() && !file.is_null()).then_some((task, file))
    }
}

/// `bpf_iter_task_file(meta, task, fd, file)`.
#[inline(always)]
pub(crate) fn task_file<G: Generation>(ctx: &IterContext) {
    let Some((task, file)) = ctx.task_and_file() else {
        return;
    };
    // SAFETY: the kernel's arguments, and the first is never null; loaded once.
    let (seq, fd) = unsafe {
        let meta = (&raw const (*ctx.0).meta).read_volatile();
        (
            (&raw const (*meta).seq).read_volatile(),
            (&raw const (*ctx.0).fd).read_volatile(),
        )
    };
    descriptor::write::<G>(seq, task, fd, file);
}
