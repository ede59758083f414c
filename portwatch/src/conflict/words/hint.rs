//! What to do about it, in one line.

mod remove;

use super::{
    Case,
    held::{left, picked, vanishes},
    not_local,
    owner::{
        Kin, besides, called, forwards, is_caller, is_own, is_systemd, kin, paths, testator, unit,
    },
    phrase::{either, harmless, is_any, is_wildcard, sentence},
    policy,
    refused::scopeless,
    sharing,
};
use crate::event::{
    Exhausted, Kind, Op, Overlap, Owner, RESERVED_PORTS, Reason, Scope, TcpState, Transport,
};

/// What the user can do, where that is known.
#[must_use]
pub fn hint(case: &Case<'_>) -> Option<String> {
    let sentences: Vec<String> = match case.verdict.kind {
        _ if all_vanish(case) => vec!["try again".to_owned()],
        Kind::Listener | Kind::Bound => held(case),
        Kind::Accepted => accepted(case),
        Kind::Client => client(case),
        Kind::Closing => closing(case),
        Kind::TimeWait => time_wait(case),
        Kind::Kernel => kernel(case),
        Kind::Gone => vec!["trying again should work now".to_owned()],
        Kind::Exhausted => vec![exhausted(case)],
        Kind::AlreadyBound => vec!["a socket can be bound only once: make a new one".to_owned()],
        Kind::Privileged => vec![privileged(case)],
        Kind::NotLocal => not_local::hint(case),
        Kind::Policy => vec![policy::hint(case)],
        Kind::Unknown if !case.verdict.culprits.is_empty() => accepted(case),
        Kind::Unknown => scopeless(case.event)
            .map(|_| "set sin6_scope_id, or bind the socket to a device".to_owned())
            .into_iter()
            .collect(),
    };
    let sentences: Vec<String> = sentences.iter().map(|words| sentence(words)).collect();
    (!sentences.is_empty()).then(|| harmless(&sentences.join(" ")))
}

/// Sockets that stay until somebody closes them.
fn held(case: &Case<'_>) -> Vec<String> {
    let Some((culprit, owner)) = case.held().next() else {
        return Vec::new();
    };
    let choices = if case.held().all(|(_, owner)| is_own(case, owner)) {
        own(case, culprit.overlap, owner)
    } else if let Some(id) = remove::pod_mate(case, owner) {
        vec![format!(
            "another container of this pod ({id}) has it: give one of them another port"
        )]
    } else {
        only_ipv6(case)
            .into_iter()
            .chain([elsewhere(case).to_owned()])
            .chain(remove::choices(case))
            .collect()
    };
    sharing::advice(case)
        .into_iter()
        .chain(either(&choices))
        .chain(inherited(case))
        .collect()
}

/// Whether all that is in the way will be gone at once. A TCP connection takes longer to end.
fn all_vanish(case: &Case<'_>) -> bool {
    let stays = |kind| matches!(kind, Kind::Client | Kind::Accepted);
    let mut held = case.held().peekable();
    held.peek().is_some()
        && held.all(|(culprit, _)| {
            let is_tcp = culprit.holder.transport == Transport::Tcp;
            vanishes(culprit) && !(is_tcp && stays(culprit.kind))
        })
}

/// The caller has the port itself.
fn own(case: &Case<'_>, overlap: Option<Overlap>, owner: &Owner) -> Vec<String> {
    let only_ipv6 = |socket: &str| format!("set IPV6_V6ONLY on {socket}");
    let is_one = case.verdict.culprits.len() == 1;
    match overlap {
        Some(Overlap::DualStack) if is_any(case.event.local.address) => vec![
            only_ipv6("the [::] socket before bind()"),
            close(
                case,
                owner,
                if is_one {
                    "the other one"
                } else {
                    "the others"
                },
            ),
        ],
        Some(Overlap::DualStack) => vec![
            "let the [::] socket do for both".to_owned(),
            only_ipv6("it before its bind()"),
        ],
        _ if owner.processes.iter().any(is_systemd) => {
            vec!["use the socket that has it".to_owned()]
        }
        _ if !is_one => vec![
            "use the sockets that have it".to_owned(),
            close(case, owner, "them"),
        ],
        _ => vec![
            "use the socket that has it".to_owned(),
            close(case, owner, "it"),
        ],
    }
}

/// How to close a socket of the caller.
fn close(case: &Case<'_>, owner: &Owner, what: &str) -> String {
    let is_alone = besides(case, owner).is_empty();
    let place = if is_alone {
        "first"
    } else {
        "in all processes"
    };
    format!("close {what} {place}")
}

/// A connection that a listener took, or that is not known to be a client's.
fn accepted(case: &Case<'_>) -> Vec<String> {
    let mut choices = vec!["wait until the connection is closed".to_owned()];
    if let Some((_, owner)) = case.held().next()
        && is_own(case, owner)
    {
        choices.push(if besides(case, owner).is_empty() {
            "close it".to_owned()
        } else {
            close(case, owner, "it")
        });
    }
    choices.push(elsewhere(case).to_owned());
    choices.extend(remove::choices(case));
    let advice = sharing::advice(case);
    let lingers = lingers(case, advice.is_some());
    advice
        .into_iter()
        .chain(either(&choices))
        .chain(lingers)
        .collect()
}

/// That a connection which is closed on this side first, as one is that its process is stopped for, keeps the
/// port for TIME_WAIT, which is shared by the same rules (include/net/tcp.h, TCP_TIMEWAIT_LEN).
fn lingers(case: &Case<'_>, is_shared: bool) -> Option<String> {
    let ends_here = |state| {
        matches!(
            state,
            TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing
        )
    };
    let is_one = case.held().any(|(culprit, _)| {
        culprit.holder.transport == Transport::Tcp
            && culprit.holder.socket.inode.is_some()
            && !vanishes(culprit)
            && ends_here(culprit.holder.state)
    });
    (is_one && !is_shared).then(|| {
        "if it is closed on this side first, TIME_WAIT keeps the port for 60 s more".to_owned()
    })
}

/// A descriptor that has outlived its program in a child.
fn inherited(case: &Case<'_>) -> Option<String> {
    let (_, owner) = case.held().next()?;
    let first = owner
        .processes
        .first()
        .filter(|first| !is_systemd(first) && forwards(first).is_none())?;
    let (creator, exited) = testator(case, owner)?;
    let heir = called(first);
    if is_caller(case, &creator.task) {
        // Else it may have been sent.
        if kin(case, first) != Some(Kin::Child) {
            return None;
        }
        // Else it may be the same program.
        let (own, its) = paths(creator, first)?;
        return Some(if own == its {
            format!("if {heir} is not to have it, close it there after fork()")
        } else {
            format!("if {heir} has inherited it by mistake, your socket lacks SOCK_CLOEXEC")
        });
    }
    if !exited {
        return None;
    }
    paths(creator, first)?;
    let creator = called(creator);
    Some(format!(
        "if {heir} has inherited it by mistake, {creator} lacks SOCK_CLOEXEC"
    ))
}

/// Whether the caller asked for all addresses where the others have only some.
fn is_wider(case: &Case<'_>) -> bool {
    let asked = case.event.local.address;
    case.all_known()
        && is_wildcard(asked)
        && case.held().all(|(culprit, _)| {
            matches!(
                culprit.overlap,
                Some(Overlap::Wildcard | Overlap::DualStack)
            ) && !is_wildcard(culprit.holder.local.address)
        })
}

/// Where the caller could go instead.
fn elsewhere(case: &Case<'_>) -> &'static str {
    if is_wider(case) {
        "bind another address"
    } else {
        "bind another port"
    }
}

/// IPV6_V6ONLY on the side whose `[::]` takes IPv4.
fn only_ipv6(case: &Case<'_>) -> Option<String> {
    let dual = |overlap: Option<Overlap>| overlap == Some(Overlap::DualStack);
    if !case.all_known() || !case.held().all(|(culprit, _)| dual(culprit.overlap)) {
        return None;
    }
    let (_, owner) = case.held().next()?;
    if is_any(case.event.local.address) {
        return Some("set IPV6_V6ONLY on your socket before bind()".to_owned());
    }
    let first = owner.processes.first()?;
    if owner.processes.iter().any(is_systemd) {
        let socket = unit(owner).filter(|unit| unit.ends_with(".socket"));
        let unit = socket.unwrap_or("its socket unit");
        return Some(format!("set BindIPv6Only=ipv6-only in {unit}"));
    }
    Some(format!("have {} set IPV6_V6ONLY", called(first)))
}

/// A port that the kernel gave to an outgoing connection.
fn client(case: &Case<'_>) -> Vec<String> {
    let mut choices = vec!["try again when that is closed".to_owned()];
    choices.extend(is_wider(case).then(|| "bind another address".to_owned()));
    choices.extend(remove::choices(case));
    let advice = sharing::advice(case);
    let lingers = lingers(case, advice.is_some());
    advice
        .into_iter()
        .chain(either(&choices))
        .chain(lingers)
        .chain(reserve(case))
        .collect()
}

/// How to keep a server's port from being given to clients.
fn reserve(case: &Case<'_>) -> Option<String> {
    let (culprit, owner) = case.held().next()?;
    let port = picked(culprit, owner)?;
    Some(format!(
        "to keep the kernel from picking {port}, add it to the reserved ports (sysctl -w {RESERVED_PORTS}={port},$(sysctl -n {RESERVED_PORTS}))"
    ))
}

/// A connection that one side or both have closed.
fn closing(case: &Case<'_>) -> Vec<String> {
    let Some((culprit, owner)) = case.held().next() else {
        return Vec::new();
    };
    let mut choices = Vec::new();
    match (culprit.holder.state, owner.processes.is_empty()) {
        (TcpState::CloseWait, false) if is_own(case, owner) => {
            choices.push("close it".to_owned());
        }
        (TcpState::CloseWait, _) => {
            let first = owner.processes.first();
            choices.extend(first.map(|first| format!("have {} close it", called(first))));
        }
        // It is no orphan, which the kernel would give up after a time.
        _ if culprit.holder.socket.inode.is_some() => {
            choices.push("wait for the peer".to_owned());
            // As an orphan it keeps the port for a while still.
            let then = "and wait for net.ipv4.tcp_fin_timeout, usually 60 s";
            if is_own(case, owner) {
                choices.push(format!("close it {then}"));
            } else if let Some(first) = owner.processes.first() {
                choices.push(format!("have {} close it {then}", called(first)));
            }
        }
        (TcpState::FinWait2, _) => {
            choices.push("wait for net.ipv4.tcp_fin_timeout, usually 60 s".to_owned());
        }
        _ => {
            choices.push("wait for the peer's answer or the kernel's timeout".to_owned());
        }
    }
    choices.extend(is_wider(case).then(|| "bind another address".to_owned()));
    let is_open = culprit.holder.socket.inode.is_some();
    let is_left = is_open && culprit.holder.state != TcpState::CloseWait;
    // To stop its process would close it, and no more.
    choices.extend(remove::choices(case).into_iter().filter(|_| !is_left));
    sharing::advice(case)
        .into_iter()
        .chain(either(&choices))
        .chain(reserve(case).filter(|_| case.is_outgoing(culprit)))
        .collect()
}

fn time_wait(case: &Case<'_>) -> Vec<String> {
    // Of several all have to end.
    let left = case.held().map(|(_, owner)| left(case, owner));
    let wait = match left.max().filter(|_| case.all_known()).flatten() {
        Some(seconds) if case.held().all(|(_, owner)| owner.expires.is_some()) => {
            format!("wait {seconds} s")
        }
        _ => "wait up to 60 s".to_owned(),
    };
    if let Some(advice) = sharing::advice(case) {
        return vec![advice];
    }
    if case.held().all(|(culprit, _)| case.is_outgoing(culprit)) {
        let other = is_wider(case).then(|| "bind another address".to_owned());
        let choices: Vec<String> = std::iter::once(wait).chain(other).collect();
        return either(&choices).into_iter().chain(reserve(case)).collect();
    }
    vec![match case.verdict.reason {
        Some(Reason::NoReuse) => format!("{wait}, and from now on set SO_REUSEADDR before bind()"),
        _ => wait,
    }]
}

fn kernel(case: &Case<'_>) -> Vec<String> {
    let mut sentences =
        vec!["bind another port, or stop the kernel service that has it".to_owned()];
    // xprt.h: RPC_DEF_MIN_RESVPORT, RPC_DEF_MAX_RESVPORT
    if case.event.transport == Transport::Tcp
        && case
            .event
            .local
            .port
            .is_some_and(|port| (665..=1023).contains(&port))
    {
        sentences.push(
            "NFS clients take ports from sunrpc.min_resvport to sunrpc.max_resvport".to_owned(),
        );
    }
    sentences
}

fn exhausted(case: &Case<'_>) -> String {
    let event = case.event;
    let tuple = case.exhausted().and_then(|exhausted| exhausted.scope) == Some(Scope::Tuple);
    let widen = if case
        .exhausted()
        .is_some_and(|exhausted| exhausted.range_of_socket)
    {
        "widen the socket's own range (IP_LOCAL_PORT_RANGE)"
    } else {
        "widen net.ipv4.ip_local_port_range"
    };
    if tuple && case.exhausted().is_some_and(Exhausted::is_all_bound) {
        return format!(
            "close sockets that are bound inside the range, name ports outside of it for them, or {widen}"
        );
    }
    if tuple {
        return format!(
            "keep connections open and use them again, connect from more addresses, or {widen}"
        );
    }
    match (event.op, event.transport) {
        (Op::Bind, Transport::Tcp) if !is_wildcard(event.local.address) => format!(
            "if the socket is to connect, set IP_BIND_ADDRESS_NO_PORT before bind(), and the port is chosen for each destination; else use more addresses, or {widen}"
        ),
        (Op::Bind | Op::Listen, Transport::Tcp) => {
            format!("close idle sockets, name a port outside the range, or {widen}")
        }
        _ => format!("close idle sockets, use more local addresses, or {widen}"),
    }
}

fn privileged(case: &Case<'_>) -> String {
    let unit = case
        .process
        .systemd_unit
        .as_deref()
        .filter(|unit| unit.ends_with(".service"));
    // A user's systemd has no capabilities to give.
    let of_user = |cgroup: &str| cgroup.contains("/user@");
    let unit = unit.filter(|_| !case.process.cgroup.as_deref().is_some_and(of_user));
    if case.process.container.is_some()
        && let Some(port) = case.event.local.port
    {
        // A capability of the container is none of its users other than root.
        return format!(
            "set net.ipv4.ip_unprivileged_port_start={port} for the container (docker run --sysctl, a pod's securityContext.sysctls), or listen on a port from 1024 on and map {port} to it"
        );
    }
    let grant = if let Some(unit) = unit {
        format!("set AmbientCapabilities=CAP_NET_BIND_SERVICE in {unit}")
    } else {
        match case.process.executable_path.as_deref() {
            // It would give it to all programs that are run with this one.
            _ if case.process.runs_others() => {
                "start it from a unit with AmbientCapabilities=CAP_NET_BIND_SERVICE".to_owned()
            }
            Some(path) if is_plain(path) => {
                format!("run setcap cap_net_bind_service=+ep {path}")
            }
            _ => {
                "give its executable the capability with setcap cap_net_bind_service=+ep".to_owned()
            }
        }
    };
    match case.event.local.port {
        Some(port) if port != 0 => format!(
            "{grant}, or open the ports from {port} on to all users (sysctl -w net.ipv4.ip_unprivileged_port_start={port})"
        ),
        _ => grant,
    }
}

/// Whether a path can be pasted into a shell as it is.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte))
}
