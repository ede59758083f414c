//! The list of programs.

use core::ffi::c_void;

use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
    RetProbeContext,
};

use crate::{
    attach::{
        kprobe::{self, First},
        raw_tp, tracing,
    },
    kernel::repeat::{Bounded, Looped, ROOMS},
    state::Function,
};

/// The programs that keep something while they run, each in a room of its own.
#[repr(u32)]
enum Room {
    Bind4,
    Bind6,
    BindRefused,
    Listen,
    ListenEarly,
    ListenRefused,
    ConnectStream,
    Connect4,
    Connect6,
    PreConnect4,
    PreConnect6,
    ConnectDatagram,
    ConnectRefused,
    Autobind,
    State,
    SysExit,
}

const _: () = assert!((Room::SysExit as u32) < ROOMS);

/// One program: kind, name, context, call. With a second name it exists twice: with bpf_loop() and,
/// under that name, with loops of its own; and it has a room.
///
/// Each has a section of its own, `kind/name`, where aya's attributes would put all of a kind into
/// one: user space leaves out what a plan does not name, section by section.
macro_rules! program {
    ($kind:ident, $name:ident, $context:ty, |$ctx:ident| $call:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = concat!(stringify!($kind), "/", stringify!($name)))]
        fn $name(context: *mut c_void) -> u32 {
            let $ctx = <$context>::new(context);
            $call;
            0
        }
    };
    ($kind:ident, $name:ident / $bounded:ident in $room:ident, $context:ty, |$ctx:ident, $repeat:ident| $call:expr) => {
        program!($kind, $name, $context, |$ctx| {
            type $repeat = Looped<{ Room::$room as u32 }>;
            $call
        });
        program!($kind, $bounded, $context, |$ctx| {
            type $repeat = Bounded<{ Room::$room as u32 }>;
            $call
        });
    };
}

program!(fentry, bind4_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Bind)
});
program!(fentry, bind6_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Bind)
});
program!(
    fexit,
    bind4_tracing / bind4_tracing_bounded in Bind4,
    FExitContext,
    |ctx, R| tracing::bind::<R>(&ctx)
);
program!(
    fexit,
    bind6_tracing / bind6_tracing_bounded in Bind6,
    FExitContext,
    |ctx, R| tracing::bind::<R>(&ctx)
);
program!(
    fexit,
    bind_refused_tracing / bind_refused_tracing_bounded in BindRefused,
    FExitContext,
    |ctx, R| tracing::bind_refused::<R>(&ctx)
);
program!(fentry, listen_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Listen)
});
program!(
    fexit,
    listen_tracing / listen_tracing_bounded in Listen,
    FExitContext,
    |ctx, R| tracing::listen::<R>(&ctx)
);
program!(
    fexit,
    listen_early_tracing / listen_early_tracing_bounded in ListenEarly,
    FExitContext,
    |ctx, R| tracing::listen_early::<R>(&ctx)
);
program!(
    fexit,
    listen_refused_tracing / listen_refused_tracing_bounded in ListenRefused,
    FExitContext,
    |ctx, R| tracing::listen_refused::<R>(&ctx)
);
program!(fentry, connect_stream_enter_tracing, FEntryContext, |ctx| {
    tracing::connect_stream_entered(&ctx)
});
program!(
    fexit,
    connect_stream_tracing / connect_stream_tracing_bounded in ConnectStream,
    FExitContext,
    |ctx, R| tracing::connect_stream::<R>(&ctx)
);
program!(
    fentry,
    connect_datagram_enter_tracing,
    FEntryContext,
    |ctx| tracing::connect_datagram_entered(&ctx)
);
program!(
    fexit,
    connect_datagram_tracing / connect_datagram_tracing_bounded in ConnectDatagram,
    FExitContext,
    |ctx, R| tracing::connect_datagram::<R>(&ctx)
);
program!(
    fexit,
    connect_refused_tracing / connect_refused_tracing_bounded in ConnectRefused,
    FExitContext,
    |ctx, R| tracing::connect_refused::<R>(&ctx)
);
program!(fentry, autobind_enter_tracing, FEntryContext, |ctx| {
    tracing::entered(&ctx, Function::Autobind)
});
program!(
    fexit,
    autobind_tracing / autobind_tracing_bounded in Autobind,
    FExitContext,
    |ctx, R| tracing::autobind::<R>(&ctx)
);
program!(
    tp_btf,
    state_tracing / state_tracing_bounded in State,
    BtfTracePointContext,
    |ctx, R| tracing::state_changed::<R>(&ctx)
);
program!(tp_btf, fork_tracing, BtfTracePointContext, |ctx| {
    tracing::forked(&ctx)
});
program!(tp_btf, free_tracing, BtfTracePointContext, |ctx| {
    tracing::freed(&ctx)
});

program!(kprobe, bind4_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Bind, First::of_bind())
});
program!(kprobe, bind6_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Bind, First::of_bind())
});
program!(
    kretprobe,
    bind4_kprobe / bind4_kprobe_bounded in Bind4,
    RetProbeContext,
    |ctx, R| kprobe::bind::<R>(&ctx)
);
program!(
    kretprobe,
    bind6_kprobe / bind6_kprobe_bounded in Bind6,
    RetProbeContext,
    |ctx, R| kprobe::bind::<R>(&ctx)
);
program!(kprobe, bind_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseBind, First::Socket)
});
program!(
    kretprobe,
    bind_refused_kprobe / bind_refused_kprobe_bounded in BindRefused,
    RetProbeContext,
    |ctx, R| kprobe::bind_refused::<R>(&ctx)
);
program!(kprobe, listen_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Listen, First::of_listen())
});
program!(
    kretprobe,
    listen_kprobe / listen_kprobe_bounded in Listen,
    RetProbeContext,
    |ctx, R| kprobe::listen::<R>(&ctx)
);
program!(kprobe, listen_early_enter_kprobe, ProbeContext, |ctx| {
    kprobe::listen_early_entered(&ctx)
});
program!(
    kretprobe,
    listen_early_kprobe / listen_early_kprobe_bounded in ListenEarly,
    RetProbeContext,
    |ctx, R| kprobe::listen_early::<R>(&ctx)
);
program!(kprobe, listen_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseListen, First::Socket)
});
program!(
    kretprobe,
    listen_refused_kprobe / listen_refused_kprobe_bounded in ListenRefused,
    RetProbeContext,
    |ctx, R| kprobe::listen_refused::<R>(&ctx)
);
program!(kprobe, connect4_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Connect4, First::Sock)
});
program!(
    kretprobe,
    connect4_kprobe / connect4_kprobe_bounded in Connect4,
    RetProbeContext,
    |ctx, R| kprobe::connect_stream::<R>(&ctx, Function::Connect4)
);
program!(kprobe, connect6_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Connect6, First::Sock)
});
program!(
    kretprobe,
    connect6_kprobe / connect6_kprobe_bounded in Connect6,
    RetProbeContext,
    |ctx, R| kprobe::connect_stream::<R>(&ctx, Function::Connect6)
);
program!(kprobe, pre_connect4_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::PreConnect, First::Sock)
});
program!(
    kretprobe,
    pre_connect4_kprobe / pre_connect4_kprobe_bounded in PreConnect4,
    RetProbeContext,
    |ctx, R| kprobe::connect_gate::<R>(&ctx)
);
program!(kprobe, pre_connect6_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::PreConnect, First::Sock)
});
program!(
    kretprobe,
    pre_connect6_kprobe / pre_connect6_kprobe_bounded in PreConnect6,
    RetProbeContext,
    |ctx, R| kprobe::connect_gate::<R>(&ctx)
);
program!(kprobe, connect_datagram_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::ConnectDatagram, First::Socket)
});
program!(
    kretprobe,
    connect_datagram_kprobe / connect_datagram_kprobe_bounded in ConnectDatagram,
    RetProbeContext,
    |ctx, R| kprobe::connect_datagram::<R>(&ctx)
);
program!(kprobe, connect_refused_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::RefuseConnect, First::Socket)
});
program!(
    kretprobe,
    connect_refused_kprobe / connect_refused_kprobe_bounded in ConnectRefused,
    RetProbeContext,
    |ctx, R| kprobe::connect_refused::<R>(&ctx)
);
program!(kprobe, autobind_enter_kprobe, ProbeContext, |ctx| {
    kprobe::entered(&ctx, Function::Autobind, First::Sock)
});
program!(
    kretprobe,
    autobind_kprobe / autobind_kprobe_bounded in Autobind,
    RetProbeContext,
    |ctx, R| kprobe::autobind::<R>(&ctx)
);

program!(
    raw_tp,
    sys_exit_raw / sys_exit_raw_bounded in SysExit,
    RawTracePointContext,
    |ctx, R| raw_tp::sys_exit::<R>(&ctx)
);
program!(
    raw_tp,
    state_raw / state_raw_bounded in State,
    RawTracePointContext,
    |ctx, R| raw_tp::state_changed::<R>(&ctx)
);
program!(raw_tp, fork_raw, RawTracePointContext, |ctx| {
    raw_tp::forked(&ctx)
});
program!(raw_tp, free_raw, RawTracePointContext, |ctx| {
    raw_tp::freed(&ctx)
});
