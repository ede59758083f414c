//! fentry, fexit and BTF tracepoints: arguments are BTF pointers, the return value follows the
//! arguments.

use core::marker::PhantomData;

use aya_ebpf::{
    EbpfContext as _,
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use portwatch_ebpf::abi::{calls::Function, config::detail, layout::ABSENT, record::loss};

use crate::{
    emit, filter,
    hook::{
        self, Backend, Returned, accept, autobind, bind, closed, connect, is_refusal, listen, taken,
    },
    kernel::{
        generation::Generation,
        memory::{Memory, Probed, Ptr, Typed, config, detailed, offset},
        request::{Request, Space},
        sock::{self, Kind},
        task,
    },
    state::calls::{Entered, Entry, enter, leave, start, take_start},
};

/// This way in.
pub(crate) struct Tracing<G>(PhantomData<G>);

impl<G: Generation> Backend for Tracing<G> {
    type Memory = Typed;
    type Generation = G;

    #[inline(always)]
    fn cookie(sk: Ptr, held: Ptr) -> u64 {
        // The helper takes only what the hook itself was given.
        if sk == held {
            sock::assigned_cookie(sk)
        } else {
            sock::existing_cookie::<Typed>(held)
        }
    }
}

pub(super) fn sk_of(socket: Ptr) -> Ptr {
    Typed::load(socket, offset!(socket_sk))
}

/// First argument of a hook that takes a struct socket on some kernels and a sock on others.
#[inline(always)]
fn sk(first: Ptr, takes_socket: u32) -> Ptr {
    if takes_socket != 0 {
        sk_of(first)
    } else {
        first
    }
}

/// A call whose entry is noted where somebody wants to know how long it took.
#[inline(always)]
fn returned(code: i32, function: Function) -> Returned {
    Returned {
        code,
        started: if detailed(detail::REST) {
            take_start(task::ids(), function)
        } else {
            0
        },
        refused_by_policy: false,
    }
}

/// SS_UNCONNECTED (include/uapi/linux/net.h)
const UNCONNECTED: u32 = 1;

/// A call whose entry is not looked at here.
fn untimed(code: i32) -> Returned {
    Returned {
        code,
        started: 0,
        refused_by_policy: false,
    }
}

fn policy(code: i32) -> Returned {
    Returned {
        code,
        started: 0,
        refused_by_policy: true,
    }
}

pub(super) fn request<G: Generation>(address: Ptr, len: u32) -> Option<&'static Request> {
    Request::read(G::ROOM, address, len, Space::Kernel)
}

/// Entry of a function of which only the duration is wanted.
#[inline(always)]
pub(crate) fn entered(_ctx: &FEntryContext, function: Function) {
    start(task::ids(), function, emit::now());
}

/// fexit of inet_bind_sk, inet6_bind_sk, inet_bind or inet6_bind.
#[inline(always)]
pub(crate) fn bind<G: Generation>(ctx: &FExitContext) {
    let sk = sk(ctx.arg(0), config!(bind_takes_socket));
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    bind::returned::<Tracing<G>>(sk, returned(ctx.arg(3), Function::Bind), || {
        request::<G>(address, len)
    });
}

/// fexit of the same, where the program above may be preempted and then skipped for others.
#[inline(always)]
pub(crate) fn taken<G: Generation>(ctx: &FExitContext) {
    let sk = sk(ctx.arg(0), config!(bind_takes_socket));
    if ctx.arg::<i32>(3) == 0 && Kind::of::<Typed>(sk).is_some() {
        taken::by_caller::<Tracing<G>>(sk);
    }
}

/// fexit of __inet_listen_sk or inet_listen.
#[inline(always)]
pub(crate) fn listen<G: Generation>(ctx: &FExitContext) {
    let sk = sk(ctx.arg(0), config!(listen_takes_socket));
    listen::returned::<Tracing<G>>(sk, ctx.arg(1), returned(ctx.arg(2), Function::Listen));
}

/// fexit of inet_listen where __inet_listen_sk tells the rest: it refuses sockets in use by itself.
#[inline(always)]
pub(crate) fn listen_early<G: Generation>(ctx: &FExitContext) {
    let socket: Ptr = ctx.arg(0);
    if Typed::load::<u32>(socket, offset!(socket_state)) != UNCONNECTED {
        listen::in_use::<Tracing<G>>(sk_of(socket), ctx.arg(1), untimed(ctx.arg(2)));
    }
}

/// fexit of inet_autobind.
#[inline(always)]
pub(crate) fn autobind<G: Generation>(ctx: &FExitContext) {
    autobind::returned::<Tracing<G>>(ctx.arg(0), returned(ctx.arg(1), Function::Autobind));
}

/// fentry of inet_release.
#[inline(always)]
pub(crate) fn release<G: Generation>(ctx: &FEntryContext) {
    let sk = sk_of(ctx.arg(0));
    // A socket that could not be made has none.
    if !sk.is_null() {
        closed::by_caller::<Tracing<G>>(sk);
    }
}

/// fentry of inet_dgram_connect.
#[inline(always)]
pub(crate) fn connect_datagram_entered(ctx: &FEntryContext) {
    let entry = Entry {
        first: ctx.arg(0),
        second: 0,
        third: 0,
        started: emit::now(),
    };
    // When the table is full the port is told twice, by autobind and by connect.
    let _ = enter(task::ids(), Function::ConnectDatagram, &entry);
}

/// fexit of inet_dgram_connect.
#[inline(always)]
pub(crate) fn connect_datagram<G: Generation>(ctx: &FExitContext) {
    let entry = leave(task::ids(), Function::ConnectDatagram);
    let sk = sk_of(ctx.arg(0));
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    let returned = Returned {
        code: ctx.arg(4),
        started: entry.map_or(0, |entry| entry.started),
        refused_by_policy: false,
    };
    connect::returned_at_once::<Tracing<G>>(sk, returned, || request::<G>(address, len));
}

/// include/uapi/linux/net.h
const SS_CONNECTING: u32 = 2;

/// Whether this is the call on the TCP socket inside an MPTCP one, which belongs to the program's struct
/// socket (6.1, net/mptcp/protocol.c, mptcp_connect): the outer call tells it.
#[inline(always)]
fn is_inside_mptcp(socket: Ptr) -> bool {
    config!(mptcp_connects) != 0 && Typed::load::<Ptr>(sk_of(socket), offset!(sk_socket)) != socket
}

/// `second` of the entry of a call that only waits for the attempt of an earlier one.
const AGAIN: u64 = 1;

/// fentry of __inet_stream_connect.
#[inline(always)]
pub(crate) fn connect_stream_entered(ctx: &FEntryContext) {
    let socket: Ptr = ctx.arg(0);
    if is_inside_mptcp(socket) || !filter::caller() {
        return;
    }
    let again = Typed::load::<u32>(socket, offset!(socket_state)) == SS_CONNECTING;
    // Not in a slot that another task may overwrite: a call may sleep for minutes, and its beginning
    // tells what is its own of what has happened to the socket.
    let entry = Entry {
        first: 0,
        second: if again { AGAIN } else { 0 },
        third: 0,
        started: emit::now(),
    };
    // The kernel itself counts the returns that it misses here.
    if enter(task::ids(), Function::ConnectStream, &entry) == Entered::Full {
        emit::lost(loss::TABLE_FULL);
    }
}

/// fexit of __inet_stream_connect.
#[inline(always)]
pub(crate) fn connect_stream<G: Generation>(ctx: &FExitContext) {
    let socket: Ptr = ctx.arg(0);
    // Before the table is asked, which costs more.
    if is_inside_mptcp(socket) || !filter::caller() {
        return;
    }
    let sk = sk_of(socket);
    let mut returned = untimed(ctx.arg(5));
    // Nothing is known of an entry whose program the kernel has skipped (7.x).
    match leave(task::ids(), Function::ConnectStream) {
        Some(entry) if entry.second == AGAIN => return,
        Some(entry) => returned.started = entry.started,
        None if connect::is_of_earlier_call::<Tracing<G>>(sk, returned) => return,
        None => {}
    }
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    connect::stream_returned::<Tracing<G>>(sk, returned, || request::<G>(address, len));
}

/// tp_btf inet_sock_set_state.
#[inline(always)]
pub(crate) fn state_changed<G: Generation>(ctx: &BtfTracePointContext) {
    // 5.10 leaves junk above the low bits of an int.
    let old = ctx.arg::<u32>(1) as u8;
    let new = ctx.arg::<u32>(2) as u8;
    hook::state_changed::<Tracing<G>>(ctx.arg(0), old, new);
}

/// fexit of security_socket_bind.
#[inline(always)]
pub(crate) fn bind_refused<G: Generation>(ctx: &FExitContext) {
    let code = ctx.arg::<i32>(3);
    if !is_refusal(code) {
        return;
    }
    let sk = sk_of(ctx.arg(0));
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    bind::refused::<Tracing<G>>(sk, policy(code), || request::<G>(address, len));
}

/// fexit of security_socket_listen.
#[inline(always)]
pub(crate) fn listen_refused<G: Generation>(ctx: &FExitContext) {
    let code = ctx.arg::<i32>(2);
    if !is_refusal(code) {
        return;
    }
    let sk = sk_of(ctx.arg(0));
    listen::returned::<Tracing<G>>(sk, ctx.arg(1), policy(code));
}

/// fexit of security_socket_connect.
#[inline(always)]
pub(crate) fn connect_refused<G: Generation>(ctx: &FExitContext) {
    let code = ctx.arg::<i32>(3);
    if !is_refusal(code) {
        return;
    }
    let sk = sk_of(ctx.arg(0));
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    connect::returned_at_once::<Tracing<G>>(sk, policy(code), || request::<G>(address, len));
}

/// An argument, or behind them what is returned, as a plain number. By the helper: 5.10 refuses to load a
/// pointer to anything but a struct (kernel/bpf/btf.c, `btf_ctx_access`).
#[inline(always)]
fn word(ctx: &FExitContext, index: u32) -> u64 {
    Probed::load(ctx.as_ptr().cast_const(), index * 8)
}

/// fexit of inet_csk_accept: of what it returns `security_sock_graft` tells.
#[inline(always)]
pub(crate) fn accept_failed<G: Generation>(ctx: &FExitContext) {
    // (sk, flags, err, kern) before 6.10, (sk, arg) since.
    let at = offset!(accept_arg_err);
    let (returned_at, error_at, at) = if at == ABSENT { (4, 2, 0) } else { (2, 1, at) };
    if word(ctx, returned_at) != 0 {
        return;
    }
    let code = G::Far::fetch::<i32>(word(ctx, error_at), at);
    accept::failed::<Tracing<G>>(ctx.arg(0), returned(code, Function::Accept));
}

/// fentry of security_sock_graft, which sock_graft() ends in.
#[inline(always)]
pub(crate) fn accepted<G: Generation>(ctx: &FEntryContext) {
    let Returned { started, .. } = returned(0, Function::Accept);
    accept::accepted::<Tracing<G>>(ctx.arg(0), started);
}

/// tp_btf sched_process_fork.
#[inline(always)]
pub(crate) fn forked(ctx: &BtfTracePointContext) {
    hook::process::forked::<Typed>(ctx.arg(0), ctx.arg(1));
}

/// tp_btf sched_process_free.
#[inline(always)]
pub(crate) fn freed(ctx: &BtfTracePointContext) {
    hook::process::freed::<Typed>(ctx.arg(0));
}
