//! The list of programs.

use core::ffi::c_void;

use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
    RetProbeContext,
};

use portwatch_ebpf::abi::calls::Function;

use crate::{
    attach::{
        iter::{self, IterContext},
        kprobe, ports, raw_tp, tracing,
    },
    hook::release::What,
    kernel::generation::{Bounded, Casting, Looped, NO_ROOM, ROOMS},
};

/// The programs that keep something while they run, each in a room of its own.
#[repr(u32)]
pub(crate) enum Room {
    Bind4,
    Bind6,
    BindRefused,
    Listen,
    ListenEarly,
    ListenRefused,
    ConnectStream,
    Connect4,
    Connect6,
    PreConnect,
    ConnectDatagram,
    ConnectRefused,
    Autobind,
    State,
    Release,
    Taken4,
    Taken6,
    SysExit,
    Accepted,
    AcceptFailed,
    HeldTcp,
    HeldTcp4,
    HeldTcp6,
    HeldUdp,
    LeavesTcp,
    LeavesWait,
    LeavesUdp,
    LeftTcp,
    LeftWait,
    LeftUdp,
}

const _: () = assert!((Room::LeftUdp as u32) < ROOMS);

/// One program: kind, name, context, call. Where the call takes a generation it exists once for each,
/// under a name that says which, with a room if it keeps something.
///
/// Each has a section of its own, `kind/name`, where aya's attributes would put all of a kind into
/// one: user space leaves out what a plan does not name, section by section.
macro_rules! program {
    (@one $kind:ident, $name:expr, $context:ty, |$ctx:ident| $call:expr) => {
        const _: () = {
            #[unsafe(export_name = $name)]
            #[unsafe(link_section = concat!(stringify!($kind), "/", $name))]
            fn program(context: *mut c_void) -> u32 {
                let $ctx = <$context>::new(context);
                $call;
                0
            }
        };
    };
    ($kind:ident, $name:ident, $context:ty, |$ctx:ident| $call:expr) => {
        program!(@one $kind, stringify!($name), $context, |$ctx| $call);
    };
    ($kind:ident, $name:ident in $room:ident, $context:ty, |$ctx:ident, $generation:ident| $call:expr) => {
        program!(@each $kind, $name, { Room::$room as u32 }, $context, |$ctx, $generation| $call);
    };
    ($kind:ident, $name:ident, $context:ty, |$ctx:ident, $generation:ident| $call:expr) => {
        program!(@each $kind, $name, { NO_ROOM }, $context, |$ctx, $generation| $call);
    };
    (@each $kind:ident, $name:ident, $room:expr, $context:ty, |$ctx:ident, $generation:ident| $call:expr) => {
        program!(@one $kind, concat!(stringify!($name), "_bounded"), $context, |$ctx| {
            type $generation = Bounded<$room>;
            $call
        });
        program!(@one $kind, concat!(stringify!($name), "_looped"), $context, |$ctx| {
            type $generation = Looped<$room>;
            $call
        });
        program!(@one $kind, concat!(stringify!($name), "_casting"), $context, |$ctx| {
            type $generation = Casting<$room>;
            $call
        });
    };
}
pub(crate) use program;

program!(fentry, bind4_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Bind)
});
program!(fentry, bind6_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Bind)
});
program!(
    fexit,
    bind4_tracing in Bind4,
    FExitContext,
    |ctx, G| tracing::bind::<G>(&ctx)
);
program!(
    fexit,
    bind6_tracing in Bind6,
    FExitContext,
    |ctx, G| tracing::bind::<G>(&ctx)
);
program!(
    fexit,
    bind_refused_tracing in BindRefused,
    FExitContext,
    |ctx, G| tracing::bind_refused::<G>(&ctx)
);
program!(fentry, listen_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Listen)
});
program!(
    fexit,
    listen_tracing in Listen,
    FExitContext,
    |ctx, G| tracing::listen::<G>(&ctx)
);
program!(
    fexit,
    listen_early_tracing in ListenEarly,
    FExitContext,
    |ctx, G| tracing::listen_early::<G>(&ctx)
);
program!(
    fexit,
    listen_refused_tracing in ListenRefused,
    FExitContext,
    |ctx, G| tracing::listen_refused::<G>(&ctx)
);
program!(
    fexit,
    taken4_tracing in Taken4,
    FExitContext,
    |ctx, G| tracing::taken::<G>(&ctx)
);
program!(
    fexit,
    taken6_tracing in Taken6,
    FExitContext,
    |ctx, G| tracing::taken::<G>(&ctx)
);
program!(fentry, connect_stream_enter_tracing, FEntryContext, |ctx| {
    tracing::connect_stream_entered(&ctx)
});
program!(
    fexit,
    connect_stream_tracing in ConnectStream,
    FExitContext,
    |ctx, G| tracing::connect_stream::<G>(&ctx)
);
program!(
    fentry,
    connect_datagram_enter_tracing,
    FEntryContext,
    |ctx| tracing::connect_datagram_entered(&ctx)
);
program!(
    fexit,
    connect_datagram_tracing in ConnectDatagram,
    FExitContext,
    |ctx, G| tracing::connect_datagram::<G>(&ctx)
);
program!(
    fexit,
    connect_refused_tracing in ConnectRefused,
    FExitContext,
    |ctx, G| tracing::connect_refused::<G>(&ctx)
);
program!(fentry, autobind_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Autobind)
});
program!(
    fexit,
    autobind_tracing in Autobind,
    FExitContext,
    |ctx, G| tracing::autobind::<G>(&ctx)
);
program!(
    tp_btf,
    state_tracing in State,
    BtfTracePointContext,
    |ctx, G| tracing::state_changed::<G>(&ctx)
);
program!(
    fentry,
    release_tracing in Release,
    FEntryContext,
    |ctx, G| tracing::release::<G>(&ctx)
);
program!(fentry, accept_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Accept)
});
program!(
    fexit,
    accept_failed_tracing in AcceptFailed,
    FExitContext,
    |ctx, G| tracing::accept_failed::<G>(&ctx)
);
program!(
    fentry,
    accepted_tracing in Accepted,
    FEntryContext,
    |ctx, G| tracing::accepted::<G>(&ctx)
);
program!(tp_btf, fork_tracing, BtfTracePointContext, |ctx| {
    tracing::forked(&ctx)
});
program!(tp_btf, free_tracing, BtfTracePointContext, |ctx| {
    tracing::freed(&ctx)
});

program!(kprobe, bind_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Bind)
});
program!(
    kretprobe,
    bind_kprobe in Bind4,
    RetProbeContext,
    |ctx, G| kprobe::bind::<G>(&ctx)
);
program!(kprobe, bind_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseBind)
});
program!(
    kretprobe,
    bind_refused_kprobe in BindRefused,
    RetProbeContext,
    |ctx, G| kprobe::bind_refused::<G>(&ctx)
);
program!(kprobe, listen_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Listen)
});
program!(
    kretprobe,
    listen_kprobe in Listen,
    RetProbeContext,
    |ctx, G| kprobe::listen::<G>(&ctx)
);
program!(kprobe, listen_early_enter_kprobe, ProbeContext, |ctx| {
    kprobe::listen_early_entered(&ctx)
});
program!(
    kretprobe,
    listen_early_kprobe in ListenEarly,
    RetProbeContext,
    |ctx, G| kprobe::listen_early::<G>(&ctx)
);
program!(kprobe, listen_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseListen)
});
program!(
    kretprobe,
    listen_refused_kprobe in ListenRefused,
    RetProbeContext,
    |ctx, G| kprobe::listen_refused::<G>(&ctx)
);
program!(kprobe, connect4_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Connect4)
});
program!(
    kretprobe,
    connect4_kprobe in Connect4,
    RetProbeContext,
    |ctx, G| kprobe::connect_stream::<G>(&ctx, Function::Connect4)
);
program!(kprobe, connect6_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Connect6)
});
program!(
    kretprobe,
    connect6_kprobe in Connect6,
    RetProbeContext,
    |ctx, G| kprobe::connect_stream::<G>(&ctx, Function::Connect6)
);
program!(kprobe, pre_connect_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::PreConnect)
});
program!(
    kretprobe,
    pre_connect_kprobe in PreConnect,
    RetProbeContext,
    |ctx, G| kprobe::connect_gate::<G>(&ctx)
);
program!(kprobe, connect_datagram_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::ConnectDatagram)
});
program!(
    kretprobe,
    connect_datagram_kprobe in ConnectDatagram,
    RetProbeContext,
    |ctx, G| kprobe::connect_datagram::<G>(&ctx)
);
program!(kprobe, connect_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseConnect)
});
program!(
    kretprobe,
    connect_refused_kprobe in ConnectRefused,
    RetProbeContext,
    |ctx, G| kprobe::connect_refused::<G>(&ctx)
);
program!(kprobe, autobind_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Autobind)
});
program!(
    kretprobe,
    autobind_kprobe in Autobind,
    RetProbeContext,
    |ctx, G| kprobe::autobind::<G>(&ctx)
);

program!(
    kprobe,
    release_kprobe in Release,
    ProbeContext,
    |ctx, G| kprobe::release::<G>(&ctx)
);

program!(kprobe, accept_enter_kprobe, ProbeContext, |ctx| {
    kprobe::accept_entered(&ctx)
});
program!(
    kprobe,
    accepted_kprobe in Accepted,
    ProbeContext,
    |ctx, G| kprobe::accepted::<G>(&ctx)
);

program!(
    raw_tp,
    accept_exit_raw in Accepted,
    RawTracePointContext,
    |ctx, G| raw_tp::accept_exit::<G>(&ctx)
);
program!(
    raw_tp,
    sys_exit_raw in SysExit,
    RawTracePointContext,
    |ctx, G| raw_tp::sys_exit::<G>(&ctx)
);
program!(
    raw_tp,
    state_raw in State,
    RawTracePointContext,
    |ctx, G| raw_tp::state_changed::<G>(&ctx)
);
program!(raw_tp, fork_raw, RawTracePointContext, |ctx| {
    raw_tp::forked(&ctx)
});
program!(raw_tp, free_raw, RawTracePointContext, |ctx| {
    raw_tp::freed(&ctx)
});

// Tables of ports.
program!(
    fexit,
    held_tcp_tracing in HeldTcp,
    FExitContext,
    |ctx, G| ports::taken_tracing::<G>(&ctx, 0, 2)
);
program!(kprobe, held_tcp_enter_kprobe, ProbeContext, |ctx| {
    ports::taking_kprobe(&ctx, 0)
});
program!(
    kretprobe,
    held_tcp_kprobe in HeldTcp,
    RetProbeContext,
    |ctx, G| ports::taken_kprobe::<G>(&ctx)
);
program!(
    fexit,
    held_connect4_tracing in HeldTcp4,
    FExitContext,
    |ctx, G| ports::taken_tracing::<G>(&ctx, 1, 2)
);
program!(kprobe, held_connect4_enter_kprobe, ProbeContext, |ctx| {
    ports::taking_kprobe(&ctx, 1)
});
program!(
    kretprobe,
    held_connect4_kprobe in HeldTcp4,
    RetProbeContext,
    |ctx, G| ports::taken_kprobe::<G>(&ctx)
);
program!(
    fexit,
    held_connect6_tracing in HeldTcp6,
    FExitContext,
    |ctx, G| ports::taken_tracing::<G>(&ctx, 1, 2)
);
program!(kprobe, held_connect6_enter_kprobe, ProbeContext, |ctx| {
    ports::taking_kprobe(&ctx, 1)
});
program!(
    kretprobe,
    held_connect6_kprobe in HeldTcp6,
    RetProbeContext,
    |ctx, G| ports::taken_kprobe::<G>(&ctx)
);
program!(
    fexit,
    held_udp_tracing in HeldUdp,
    FExitContext,
    |ctx, G| ports::taken_tracing::<G>(&ctx, 0, 3)
);
program!(kprobe, held_udp_enter_kprobe, ProbeContext, |ctx| {
    ports::taking_kprobe(&ctx, 0)
});
program!(
    kretprobe,
    held_udp_kprobe in HeldUdp,
    RetProbeContext,
    |ctx, G| ports::taken_kprobe::<G>(&ctx)
);
program!(
    fentry,
    leave_tcp_enter_tracing in LeavesTcp,
    FEntryContext,
    |ctx, G| ports::leaves_tracing::<G>(&ctx, What::Tcp)
);
program!(
    fexit,
    leave_tcp_tracing in LeftTcp,
    FExitContext,
    |ctx, G| ports::left_tracing::<G>(&ctx)
);
program!(
    kprobe,
    leave_tcp_enter_kprobe in LeavesTcp,
    ProbeContext,
    |ctx, G| ports::leaves_kprobe::<G>(&ctx, Function::LeaveTcp, What::Tcp)
);
program!(
    kretprobe,
    leave_tcp_kprobe in LeftTcp,
    RetProbeContext,
    |ctx, G| ports::left_kprobe::<G>(&ctx, Function::LeaveTcp)
);
program!(
    fentry,
    leave_wait_enter_tracing in LeavesWait,
    FEntryContext,
    |ctx, G| ports::leaves_tracing::<G>(&ctx, What::Wait)
);
program!(
    fexit,
    leave_wait_tracing in LeftWait,
    FExitContext,
    |ctx, G| ports::left_tracing::<G>(&ctx)
);
program!(
    kprobe,
    leave_wait_enter_kprobe in LeavesWait,
    ProbeContext,
    |ctx, G| ports::leaves_kprobe::<G>(&ctx, Function::LeaveWait, What::Wait)
);
program!(
    kretprobe,
    leave_wait_kprobe in LeftWait,
    RetProbeContext,
    |ctx, G| ports::left_kprobe::<G>(&ctx, Function::LeaveWait)
);
program!(
    fentry,
    leave_udp_enter_tracing in LeavesUdp,
    FEntryContext,
    |ctx, G| ports::leaves_tracing::<G>(&ctx, What::Udp)
);
program!(
    fexit,
    leave_udp_tracing in LeftUdp,
    FExitContext,
    |ctx, G| ports::left_tracing::<G>(&ctx)
);
program!(
    kprobe,
    leave_udp_enter_kprobe in LeavesUdp,
    ProbeContext,
    |ctx, G| ports::leaves_kprobe::<G>(&ctx, Function::LeaveUdp, What::Udp)
);
program!(
    kretprobe,
    leave_udp_kprobe in LeftUdp,
    RetProbeContext,
    |ctx, G| ports::left_kprobe::<G>(&ctx, Function::LeaveUdp)
);

program!(iter, descriptors, IterContext, |ctx, G| {
    iter::task_file::<G>(&ctx)
});
