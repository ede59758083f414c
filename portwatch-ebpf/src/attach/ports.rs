//! Functions that put sockets into the kernel's tables of ports and take them out, by trampolines and by
//! kprobes: no system calls, so that the task that runs may be anybody.

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_ebpf::abi::{
    calls::{self, Function},
    record::loss,
};

use crate::{
    emit,
    hook::release::{self, What},
    kernel::{
        generation::Generation,
        memory::{Ptr, number_in},
        task,
    },
    state::{
        calls::{Entered, Entry, enter, leave},
        held::LEAVING,
    },
};

/// A BTF pointer as a plain number: what is read here is read the same on both ways in.
#[inline(always)]
fn plain<G: Generation>(sk: Ptr) -> Ptr {
    number_in(G::ROOM, sk) as Ptr
}

/// fexit of a function that gives a port to a socket, with 0 if it could.
#[inline(always)]
pub(crate) fn taken_tracing<G: Generation>(ctx: &FExitContext, sk: usize, returned: usize) {
    if ctx.arg::<i32>(returned) == 0 {
        release::taken::<G>(plain::<G>(ctx.arg(sk)));
    }
}

/// fentry of a function that takes a socket out.
#[inline(always)]
pub(crate) fn leaves_tracing<G: Generation>(ctx: &FEntryContext, what: What) {
    let sk = plain::<G>(ctx.arg(0));
    release::leaves::<G>(sk as u64, sk, what);
}

/// fexit of the same. The socket itself may be gone.
#[inline(always)]
pub(crate) fn left_tracing<G: Generation>(ctx: &FExitContext) {
    release::left::<G>(plain::<G>(ctx.arg(0)) as u64);
}

/// Entry of a function that gives a port to a socket, which is this argument.
#[inline(always)]
pub(crate) fn taking_kprobe(ctx: &ProbeContext, sk: usize) {
    let Some(first) = ctx.arg::<u64>(sk) else {
        return;
    };
    let entry = Entry {
        first,
        second: 0,
        third: 0,
        started: 0,
    };
    match enter(task::ids(), Function::TakePort, &entry) {
        Entered::Kept => {}
        Entered::Replacing => emit::lost(loss::RETURN_MISSED),
        Entered::Full => emit::lost(loss::TABLE_FULL),
    }
}

/// Its return.
#[inline(always)]
pub(crate) fn taken_kprobe<G: Generation>(ctx: &RetProbeContext) {
    if let Some(entry) = leave(task::ids(), Function::TakePort)
        && ctx.ret::<i32>() == 0
    {
        release::taken::<G>(entry.first as Ptr);
    }
}

/// Tells this departure from all others that are under way: none of these functions sleeps. The idle tasks
/// of all CPUs have the id 0, and in them timers run that end TIME_WAIT.
#[inline(always)]
fn departure(function: Function) -> u64 {
    let tid = task::ids().tid;
    let tid = if tid == 0 {
        // SAFETY: no arguments.
        u32::MAX - unsafe { bpf_get_smp_processor_id() }
    } else {
        tid
    };
    calls::key(tid, function)
}

/// Entry of a function that takes a socket out.
#[inline(always)]
pub(crate) fn leaves_kprobe<G: Generation>(ctx: &ProbeContext, function: Function, what: What) {
    let Some(sk) = ctx.arg::<Ptr>(0) else {
        return;
    };
    let call = departure(function);
    // The kernel has missed a return: kretprobes have few instances.
    if LEAVING.remove(call).is_ok() {
        emit::lost(loss::RETURN_MISSED);
    }
    release::leaves::<G>(call, sk, what);
}

/// Its return.
#[inline(always)]
pub(crate) fn left_kprobe<G: Generation>(_ctx: &RetProbeContext, function: Function) {
    release::left::<G>(departure(function));
}
