//! "held by …": the sockets in the way, who has them, and why they do not share.

use std::time::Duration;

use super::{
    Case,
    owner::{
        Kin, Same, besides, called, container, deceased, forwards, is_caller, is_own, is_systemd,
        kin, others, perhaps, runs_same, same_program, short, testator, unit, with_pid,
    },
    phrase::{endpoint, lasting},
    sharing,
};
use crate::event::{Culprit, Departure, Holder, Kind, Op, Owner, TcpState, Transport};

/// What a phrase says of a socket, and a clause that follows it.
struct Said {
    who: String,
    rest: Option<String>,
}

impl From<String> for Said {
    fn from(who: String) -> Self {
        Self { who, rest: None }
    }
}

/// The message where sockets are in the way; `None` where none is known.
pub(super) fn held(case: &Case<'_>) -> Option<String> {
    let (culprit, owner) = case.held().next()?;
    let Said { who, rest } = match culprit.kind {
        _ if vanishes(culprit) => vanishing(case, culprit, owner).into(),
        Kind::Client => client(case, culprit, owner).into(),
        Kind::Accepted => connection(case, culprit, owner, "from").into(),
        Kind::Closing => closing(case, culprit, owner),
        Kind::TimeWait => time_wait(case, culprit, owner).into(),
        Kind::Kernel => kernel(culprit, owner).into(),
        Kind::Unknown => connection(case, culprit, owner, "with").into(),
        _ => socket(case, culprit, owner),
    };
    let mut clauses = vec![who];
    clauses.extend(rest);
    if case.event.op == Op::Listen {
        clauses.push(
            match culprit.kind {
                Kind::Listener => {
                    "bind() passed, listen() did not: both are bound, only one can listen"
                }
                _ => "bind() passed, listen() did not: it looks for conflicts again",
            }
            .to_owned(),
        );
    }
    if (culprit.kind == Kind::Client || case.is_outgoing(culprit))
        && let Some(port) = picked(culprit, owner)
    {
        clauses.push(format!("the kernel picked {port} from its automatic range"));
    }
    clauses.extend(sharing::overlap(case, culprit, owner));
    clauses.extend(sharing::reason(case, culprit));
    clauses.extend(more(case));
    Some(clauses.join("; "))
}

/// `2 more sockets are in the way too`
fn more(case: &Case<'_>) -> Option<String> {
    let more = case.verdict.culprits.len().saturating_sub(1);
    Some(match (more, case.all_known()) {
        (0, true) => return None,
        (0, false) => "others may be in the way too".to_owned(),
        (1, true) => "1 more socket is in the way too".to_owned(),
        (1, false) => "at least 1 more socket is in the way too".to_owned(),
        (more, true) => format!("{more} more sockets are in the way too"),
        (more, false) => format!("at least {more} more sockets are in the way too"),
    })
}

/// Whether the last descriptor of a socket was just being closed: its file has no references left.
pub(super) fn vanishes(culprit: &Culprit) -> bool {
    use Kind::{Accepted, Bound, Client, Listener};
    let is_open = matches!(culprit.kind, Listener | Bound | Client | Accepted);
    is_open && culprit.holder.references == Some(0)
}

/// A socket that was on its way out. Who has the port next is another question.
fn vanishing(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> String {
    let creator = owner.creator.as_ref().map(|it| &it.occupant);
    let of = match owner.processes.first().or(creator) {
        Some(last) => format!(" of {}", with_pid(last)),
        None => of_uid(culprit),
    };
    let place = place(case, culprit, owner);
    format!("held by a socket{of} that was just being closed ({place})")
}

/// A listener, or a socket that is only bound.
fn socket(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> Said {
    let place = place(case, culprit, owner);
    let details = |unit: bool| details(case, owner, unit, &place);
    let Some(first) = owner.processes.first() else {
        return homeless(case, culprit, owner, &place);
    };
    if is_own(case, owner) {
        return itself(case, owner, &place).into();
    }
    let name = called(first);
    if let Some(target) = forwards(first) {
        let target = target.unwrap_or_else(|| "a container".to_owned());
        return format!(
            "held by {name} ({}), which forwards to {target}",
            details(true)
        )
        .into();
    }
    if let Some((creator, exited)) = testator(case, owner).filter(|_| !is_systemd(first)) {
        if is_caller(case, &creator.task) {
            return format!(
                "bound by this very process (pid {}), which has closed it, still open in {name} ({})",
                creator.task.pid,
                details(true)
            )
            .into();
        }
        let (exited, open) = if exited {
            (", exited", "still open")
        } else {
            ("", "open")
        };
        return format!(
            "bound by {} (pid {}{exited}), {open} in {} ({})",
            called(creator),
            creator.task.pid,
            name,
            details(true)
        )
        .into();
    }
    if is_systemd(first)
        && let Some(unit) = unit(owner)
    {
        return format!("held by {name} for {unit} ({})", details(false)).into();
    }
    let same = same_program(case, first);
    // Else the name says enough.
    let relative = kin(case, first).filter(|_| runs_same(case, first));
    let who = match (same, relative) {
        (Some(Same::Program), _) => format!("{name} runs already ({})", details(true)),
        (Some(Same::Command), _) => {
            format!(
                "{name} runs already with the same arguments ({})",
                details(true)
            )
        }
        (None, Some(Kin::Parent)) => {
            format!(
                "held by the parent of this process, {name} ({})",
                details(true)
            )
        }
        (None, Some(Kin::Child)) => {
            format!(
                "held by a child of this process, {name} ({})",
                details(true)
            )
        }
        (None, None) => format!("held by {name} ({})", details(true)),
    };
    // A worker without its master, or a server in the background.
    let rest = deceased(owner)
        .filter(|_| same.is_some())
        .map(|creator| format!("pid {}, which bound it, has exited", creator.task.pid));
    Said { who, rest }
}

/// The caller's own socket, which others may have inherited, or the caller from them.
fn itself(case: &Case<'_>, owner: &Owner, place: &str) -> String {
    let pid = case.event.task.pid;
    let besides = besides(case, owner);
    let perhaps = perhaps(owner);
    let mut facts = facts(owner, true, place);
    if besides.is_empty() {
        facts.insert(0, format!("pid {pid}{perhaps}"));
        return format!("held by this very process ({})", facts.join(", "));
    }
    let facts = facts.join(", ");
    format!("held by this very process (pid {pid}){besides}{perhaps} ({facts})")
}

/// A socket of which no process was found.
fn homeless(case: &Case<'_>, culprit: &Culprit, owner: &Owner, place: &str) -> Said {
    if let Some((creator, exited)) = testator(case, owner) {
        if is_caller(case, &creator.task) {
            return Said {
                who: format!(
                    "bound by this very process (pid {}, {place}), which has closed it",
                    creator.task.pid
                ),
                rest: Some("the process that still has it could not be found".to_owned()),
            };
        }
        let exited = if exited { ", exited" } else { "" };
        return Said {
            who: format!(
                "bound by {} (pid {}{exited}, {place})",
                called(creator),
                creator.task.pid
            ),
            rest: Some("the process that still has it could not be found".to_owned()),
        };
    }
    Said {
        who: format!("held by a socket{} ({place})", of_uid(culprit)),
        rest: Some("its process could not be found".to_owned()),
    }
}

fn of_uid(culprit: &Culprit) -> String {
    culprit
        .holder
        .socket
        .uid
        .map_or_else(String::new, |uid| format!(" of uid {uid}"))
}

/// What stands in brackets behind a name: pid, unit, container, and what the caller of this adds.
fn details(case: &Case<'_>, owner: &Owner, with_unit: bool, place: &str) -> String {
    let mut parts = facts(owner, with_unit, place);
    if is_own(case, owner) {
        let pid = case.event.task.pid;
        let more = format!("{}{}", besides(case, owner), perhaps(owner));
        parts.insert(0, format!("pid {pid}{more}"));
    } else if let Some(first) = owner.processes.first() {
        let more = format!("{}{}", others(owner), perhaps(owner));
        parts.insert(0, format!("pid {}{more}", first.task.pid));
    }
    parts.join(", ")
}

/// The same without the pid.
fn facts(owner: &Owner, with_unit: bool, place: &str) -> Vec<String> {
    let mut parts = Vec::new();
    if with_unit {
        parts.extend(unit(owner).map(str::to_owned));
    }
    if let Some(container) = container(owner) {
        let runtime = container.runtime.map_or("", |runtime| runtime);
        let space = if runtime.is_empty() { "" } else { " " };
        parts.push(format!("{runtime}{space}container {}", short(container)));
    }
    if !place.is_empty() {
        parts.push(place.to_owned());
    }
    parts
}

/// `listening on 127.0.0.1:8080 for 3 d 2 h`
fn place(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> String {
    let Holder {
        transport, local, ..
    } = &culprit.holder;
    let verb = match culprit.kind {
        Kind::Listener => "listening on",
        _ => "bound to",
    };
    let mut place = format!("{verb} {}", endpoint(local, owner.interface.as_deref()));
    if let Some(time) = since(case, owner) {
        place.push(' ');
        place.push_str(&time);
    }
    // Nobody connects to it, and tools that show listeners do not show it.
    if culprit.kind == Kind::Bound && *transport == Transport::Tcp {
        place.push_str(", not listening");
    }
    place
}

/// How long it has had the port.
fn since(case: &Case<'_>, owner: &Owner) -> Option<String> {
    let since = owner.since?.boot;
    let time = case.event.time_boot.saturating_sub(since);
    Some(lasting(Duration::from_nanos(time)))
}

/// ` to 10.0.0.9:443`, or nothing where the peer is not known.
fn peer(culprit: &Culprit, word: &str) -> String {
    culprit.holder.peer.map_or_else(String::new, |peer| {
        format!(" {word} {}", endpoint(&peer, None))
    })
}

/// The source port of an outgoing connection.
fn client(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> String {
    let what = match culprit.holder.transport {
        Transport::Tcp => "connection",
        _ => "socket",
    };
    let to = peer(culprit, "to");
    let time = since(case, owner).unwrap_or_default();
    match owner.processes.first() {
        None => format!(
            "held as the source port of a {what}{to}{}, whose process could not be found",
            of_uid(culprit)
        ),
        Some(_) if is_own(case, owner) => format!(
            "held as the source port of this very process's {what}{to} ({})",
            details(case, owner, true, &time)
        ),
        Some(first) => format!(
            "held as the source port of {}'s {what}{to} ({})",
            called(first),
            details(case, owner, true, &time)
        ),
    }
}

/// The port of an outgoing connection, if the kernel picked it. Reserving keeps the kernel off a port,
/// not a program that names it.
pub(super) fn picked(culprit: &Culprit, owner: &Owner) -> Option<u16> {
    let by_kernel = !culprit.holder.chose_port && owner.local.ephemeral != Some(false);
    culprit.holder.local.port.filter(|_| by_kernel)
}

/// A connection that came in through a listener, which may be gone, or of which it is not known (`word`:
/// "with" a peer).
fn connection(case: &Case<'_>, culprit: &Culprit, owner: &Owner, word: &str) -> String {
    let from = peer(culprit, word);
    let time = since(case, owner).unwrap_or_default();
    match owner.processes.first() {
        None => format!("held by {}", nobodys(culprit, &from, "")),
        Some(_) if is_own(case, owner) => format!(
            "held by a connection{from} that this very process has ({})",
            details(case, owner, true, &time)
        ),
        Some(first) => format!(
            "held by a connection{from} that {} has open ({})",
            called(first),
            details(case, owner, true, &time)
        ),
    }
}

/// A connection that no process was found for: without a file, there is none.
fn nobodys(culprit: &Culprit, peer: &str, state: &str) -> String {
    match culprit.holder.socket.inode {
        Some(_) => format!(
            "a connection{peer}{}{state}, whose process could not be found",
            of_uid(culprit)
        ),
        None => format!("a connection{peer}{state} that no process has open"),
    }
}

/// A connection on its way out.
fn closing(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> Said {
    let with = peer(culprit, "with");
    let name = match owner.processes.first() {
        _ if is_own(case, owner) => Some("this very process"),
        first => first.map(called),
    };
    let (state, meaning) = match culprit.holder.state {
        TcpState::CloseWait => (
            "CLOSE_WAIT",
            format!(
                "the peer has closed it and {} has not",
                name.unwrap_or("this side")
            ),
        ),
        TcpState::FinWait1 => (
            "FIN_WAIT1",
            "closed on this side, which the peer has not confirmed".to_owned(),
        ),
        TcpState::FinWait2 => (
            "FIN_WAIT2",
            "closed on this side, not yet on the peer's".to_owned(),
        ),
        TcpState::LastAck => (
            "LAST_ACK",
            "closed on both sides, which the peer has not confirmed".to_owned(),
        ),
        TcpState::Closing => (
            "CLOSING",
            "closed on both sides at once, which the peer has not confirmed".to_owned(),
        ),
        _ => ("", String::new()),
    };
    let state = if state.is_empty() {
        "that is being closed".to_owned()
    } else {
        format!("in {state}")
    };
    let who = match name {
        Some(name) => format!(
            "held by a connection{with} of {name} {state} ({})",
            details(case, owner, true, "")
        ),
        None => match closed_by(case, owner) {
            Some(closed) => format!("held by a connection{with} {state}, {closed}"),
            None => format!("held by {}", nobodys(culprit, &with, &format!(" {state}"))),
        },
    };
    Said {
        who,
        rest: (!meaning.is_empty()).then_some(meaning),
    }
}

/// What is left of a connection. It has no process; who closed it may be known.
fn time_wait(case: &Case<'_>, culprit: &Culprit, owner: &Owner) -> String {
    let what = if case.is_outgoing(culprit) {
        format!("an outgoing connection{}", peer(culprit, "to"))
    } else {
        format!("a connection{}", peer(culprit, "with"))
    };
    let ended = closed_by(case, owner)
        .map_or_else(|| "ended lately".to_owned(), |who| format!("was {who}"));
    let left = left(case, owner).map_or_else(
        || "up to 60 s".to_owned(),
        |seconds| format!("{seconds} s more"),
    );
    format!("{what} {ended} and its port is still in TIME_WAIT ({left})")
}

/// `closed by an earlier run of sshd (pid 12) 3 s ago`
fn closed_by(case: &Case<'_>, owner: &Owner) -> Option<String> {
    let Departure {
        occupant,
        exited,
        closed,
    } = owner.closer.as_deref()?;
    let who = if occupant.task.pid == case.event.task.pid {
        "this very process".to_owned()
    } else if *exited && same_program(case, occupant).is_some() {
        format!("an earlier run of {}", with_pid(occupant))
    } else if *exited {
        format!("{} (pid {}, exited)", called(occupant), occupant.task.pid)
    } else {
        with_pid(occupant)
    };
    Some(format!("closed by {who} {}", ago(case, closed.boot)))
}

/// `14 s ago`
pub(super) fn ago(case: &Case<'_>, then: u64) -> String {
    let time = Duration::from_nanos(case.event.time_boot.saturating_sub(then));
    match (time.as_secs(), time.as_millis()) {
        (0, 0) => "at that moment".to_owned(),
        (0, millis) => format!("{millis} ms ago"),
        (seconds, _) => format!("{seconds} s ago"),
    }
}

/// Seconds until TIME_WAIT ends, rounded up.
pub(super) fn left(case: &Case<'_>, owner: &Owner) -> Option<u64> {
    let expires = owner.expires?.boot;
    let left = Duration::from_nanos(expires.saturating_sub(case.event.time_boot));
    Some((left + Duration::from_millis(999)).as_secs())
}

/// A socket that no process ever had.
fn kernel(culprit: &Culprit, owner: &Owner) -> String {
    let Holder {
        transport,
        state,
        local,
        peer,
        ..
    } = &culprit.holder;
    let suspects = match transport {
        Transport::Udp => "WireGuard, VXLAN, RPC or the like",
        _ => "NFS, RPC or the like",
    };
    let place = match peer {
        Some(peer) => format!("connected to {}", endpoint(peer, None)),
        None => {
            let verb = match state {
                TcpState::Listen => "listening on",
                _ => "bound to",
            };
            format!("{verb} {}", endpoint(local, owner.interface.as_deref()))
        }
    };
    format!("held by the kernel, no process: {suspects} ({place})")
}
