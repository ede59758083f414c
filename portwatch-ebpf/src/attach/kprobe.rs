//! kprobe and kretprobe pairs: the entry keeps the arguments by thread, the return picks them up.
//! Only on functions that do not sleep long: a kretprobe has few instances and drops what exceeds
//! them.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use portwatch_ebpf::abi::{calls::Function, config::detail, record::loss};

use super::raw_tp::Raw;
use crate::{
    emit,
    hook::{Returned, accept, autobind, bind, closed, connect, is_refusal, listen},
    kernel::{
        generation::Generation,
        memory::{Memory, Probed, Ptr, config, detailed, offset},
        request::{AF_INET6, Request, Space},
        task,
    },
    state::calls::{Entered, Entry, enter, leave, start, take_start},
};

/// Whether the first argument is a sock or a struct socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Sock,
    Socket,
}

impl First {
    /// What the bind hooks take on this kernel.
    pub(crate) fn of_bind() -> Self {
        if config!(bind_takes_socket) != 0 {
            Self::Socket
        } else {
            Self::Sock
        }
    }

    /// What the listen hook takes on this kernel.
    pub(crate) fn of_listen() -> Self {
        if config!(listen_takes_socket) != 0 {
            Self::Socket
        } else {
            Self::Sock
        }
    }
}

/// Entry of a function (sk or sock, second, third, …). What would have to be looked up waits for the
/// return, where a security hook has mostly nothing to tell.
#[inline(always)]
pub(crate) fn entered(ctx: &ProbeContext, function: Function) {
    let (Some(first), second, third) = (
        ctx.arg::<u64>(0),
        ctx.arg::<u64>(1).unwrap_or(0),
        ctx.arg::<u64>(2).unwrap_or(0),
    ) else {
        return;
    };
    let entry = Entry {
        first,
        second,
        third,
        started: if function.tells_when() || detailed(detail::REST) {
            emit::now()
        } else {
            0
        },
    };
    match enter(task::ids(), function, &entry) {
        Entered::Kept => {}
        // Kretprobes have few instances, and the kernel does not count what it misses for that.
        Entered::Replacing if function.tells() => emit::lost(loss::RETURN_MISSED),
        Entered::Replacing => {}
        Entered::Full => emit::lost(loss::TABLE_FULL),
    }
}

/// What was kept of a call that has returned.
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) returned: Returned,
}

impl Kept {
    /// The sock it was about.
    #[inline(always)]
    pub(super) fn sk<G: Generation>(&self, first: First) -> Ptr {
        let first_argument = self.entry.first as Ptr;
        match first {
            First::Sock => first_argument,
            First::Socket => G::Far::load(first_argument, offset!(socket_sk)),
        }
    }
}

#[inline(always)]
pub(super) fn returned(ctx: &RetProbeContext, function: Function) -> Option<Kept> {
    let entry = leave(task::ids(), function)?;
    let returned = Returned {
        code: ctx.ret::<i32>(),
        started: entry.started,
        refused_by_policy: false,
    };
    Some(Kept { entry, returned })
}

pub(super) fn request<G: Generation>(entry: &Entry) -> Option<&'static Request> {
    Request::read(
        G::ROOM,
        entry.second as Ptr,
        entry.third as u32,
        Space::Kernel,
    )
}

/// Entry of inet_release.
#[inline(always)]
pub(crate) fn release<G: Generation>(ctx: &ProbeContext) {
    let Some(socket) = ctx.arg::<u64>(0) else {
        return;
    };
    let sk = G::Far::fetch::<Ptr>(socket, offset!(socket_sk));
    // A socket that could not be made has none.
    if !sk.is_null() {
        closed::by_caller::<Raw<G>>(sk);
    }
}

/// Entry of inet_csk_accept, which may sleep for hours: only when it began is noted.
#[inline(always)]
pub(crate) fn accept_entered(_ctx: &ProbeContext) {
    if detailed(detail::REST) {
        start(task::ids(), Function::Accept, emit::now());
    }
}

/// Entry of security_sock_graft, which sock_graft() ends in.
#[inline(always)]
pub(crate) fn accepted<G: Generation>(ctx: &ProbeContext) {
    let Some(sk) = ctx.arg::<Ptr>(0) else {
        return;
    };
    let started = if detailed(detail::REST) {
        take_start(task::ids(), Function::Accept)
    } else {
        0
    };
    accept::accepted::<Raw<G>>(sk, started);
}

/// Return of inet_bind_sk, inet6_bind_sk, inet_bind or inet6_bind.
#[inline(always)]
pub(crate) fn bind<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::Bind) {
        bind::returned::<Raw<G>>(call.sk::<G>(First::of_bind()), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// Return of __inet_listen_sk or inet_listen.
#[inline(always)]
pub(crate) fn listen<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::Listen) {
        listen::returned::<Raw<G>>(
            call.sk::<G>(First::of_listen()),
            call.entry.second as u32,
            call.returned,
        );
    }
}

/// SS_UNCONNECTED (include/uapi/linux/net.h)
const UNCONNECTED: u32 = 1;

/// Entry of inet_listen where __inet_listen_sk tells the rest: it refuses sockets in use by itself.
#[inline(always)]
pub(crate) fn listen_early_entered(ctx: &ProbeContext) {
    let in_use = ctx
        .arg::<Ptr>(0)
        .is_some_and(|socket| Probed::load::<u32>(socket, offset!(socket_state)) != UNCONNECTED);
    if in_use {
        entered(ctx, Function::ListenEarly);
    } else if leave(task::ids(), Function::ListenEarly).is_some() {
        // The return of this call is none of that function's.
        emit::lost(loss::RETURN_MISSED);
    }
}

/// Return of inet_listen for such a socket.
#[inline(always)]
pub(crate) fn listen_early<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::ListenEarly) {
        listen::in_use::<Raw<G>>(
            call.sk::<G>(First::Socket),
            call.entry.second as u32,
            call.returned,
        );
    }
}

/// Return of inet_autobind.
#[inline(always)]
pub(crate) fn autobind<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::Autobind) {
        autobind::returned::<Raw<G>>(call.sk::<G>(First::Sock), call.returned);
    }
}

/// Return of inet_dgram_connect.
#[inline(always)]
pub(crate) fn connect_datagram<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::ConnectDatagram) {
        connect::returned_at_once::<Raw<G>>(call.sk::<G>(First::Socket), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// Return of tcp_v4_connect or tcp_v6_connect, and of the pre_connect functions in front of them,
/// which return 0 and are followed by the former, or end the call. For a v4-mapped peer the one
/// calls the other, and the outer return tells.
#[inline(always)]
pub(crate) fn connect_stream<G: Generation>(ctx: &RetProbeContext, function: Function) {
    let Some(Kept { entry, returned }) = returned(ctx, function) else {
        return;
    };
    let sk = entry.first as Ptr;
    if matches!(function, Function::Connect4)
        && G::Far::load::<u16>(sk, offset!(skc_family)) == AF_INET6
    {
        return;
    }
    connect::stream_returned::<Raw<G>>(sk, returned, || request::<G>(&entry));
}

/// Return of tcp_v4_pre_connect or tcp_v6_pre_connect: cgroup programs may refuse here.
#[inline(always)]
pub(crate) fn connect_gate<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::PreConnect)
        && is_refusal(call.returned.code)
    {
        connect::stream_returned::<Raw<G>>(call.sk::<G>(First::Sock), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// Return of security_socket_bind.
#[inline(always)]
pub(crate) fn bind_refused<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = refused(ctx, Function::RefuseBind) {
        bind::refused::<Raw<G>>(call.sk::<G>(First::Socket), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// Return of security_socket_listen.
#[inline(always)]
pub(crate) fn listen_refused<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = refused(ctx, Function::RefuseListen) {
        listen::returned::<Raw<G>>(
            call.sk::<G>(First::Socket),
            call.entry.second as u32,
            call.returned,
        );
    }
}

/// Return of security_socket_connect.
#[inline(always)]
pub(crate) fn connect_refused<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = refused(ctx, Function::RefuseConnect) {
        connect::returned_at_once::<Raw<G>>(call.sk::<G>(First::Socket), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// A security hook that said no.
#[inline(always)]
fn refused(ctx: &RetProbeContext, function: Function) -> Option<Kept> {
    let call = returned(ctx, function)?;
    let Kept { entry, returned } = call;
    is_refusal(returned.code).then_some(Kept {
        entry,
        returned: Returned {
            refused_by_policy: true,
            started: 0,
            ..returned
        },
    })
}
