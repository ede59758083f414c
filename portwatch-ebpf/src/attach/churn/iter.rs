//! The iterators by which ports are found that are held already.

use core::ffi::c_void;

use crate::{
    attach::{iter::IterContext, raw_tp::Raw},
    hook::churn::older,
    kernel::{
        generation::Generation,
        memory::{Ptr, number},
    },
};

/// `bpf_iter_task_file(meta, task, fd, file)`.
#[inline(always)]
pub(crate) fn descriptor<G: Generation>(ctx: &IterContext) {
    if let Some((task, file)) = ctx.task_and_file() {
        older::descriptor::<Raw<G>>(task, file);
    }
}

/// `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c). After the last socket the pointer is null.
#[repr(C)]
struct Tcp {
    meta: Ptr,
    sk: Ptr,
    uid: u32,
}

/// What the program of that iterator is called with.
pub(crate) struct TcpContext(*const Tcp);

impl TcpContext {
    pub(crate) fn new(context: *mut c_void) -> Self {
        Self(context.cast_const().cast())
    }
}

/// `bpf_iter_tcp(meta, sk_common, uid)`.
#[inline(always)]
pub(crate) fn connection<G: Generation>(ctx: &TcpContext) {
    // SAFETY: the kernel's argument, loaded once.
    let sk = unsafe { (&raw const (*ctx.0).sk).read_volatile() };
    if !sk.is_null() {
        older::connection::<Raw<G>>(number(sk) as Ptr);
    }
}
