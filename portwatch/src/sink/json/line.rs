//! The shape of a line: the paths of the schema, in its order. What is not known is left out.

use std::sync::Arc;

use super::object::{Key, Object, key, string};
use crate::{
    errno,
    event::{
        Conflict, Container, End, Endpoint, Errno, Event, Family, Holder, Lost, Op, Outcome,
        PortClass, PortFacts, Process, Sighting, Socket, SocketOptions, Start, Task, Transport,
        UnknownReason, Via,
    },
    sink::{clock::Clock, digits, kept::Kept},
};

/// OpenTelemetry's word for an error that has no name of its own.
const OTHER: &str = "_OTHER";

pub(super) fn start(line: &mut Object<'_>, start: &Start) {
    let Start {
        version,
        kernel_release,
        host_name,
        backend,
        degraded,
        time: _, // at the head of every line
    } = start;
    named(line, "start");
    line.object(key!("portwatch"), |part| {
        part.text(key!("version"), version.as_str());
    });
    line.object(key!("kernel"), |part| {
        part.text(key!("release"), kernel_release.as_str());
    });
    line.object(key!("host"), |part| {
        part.text(key!("name"), host_name.as_str());
    });
    line.word(key!("backend"), backend.as_str());
    line.list(key!("degraded"), degraded, |out, words| string(out, words));
}

pub(super) fn lost(line: &mut Object<'_>, lost: &Lost) {
    let Lost {
        count,
        reason,
        time: _,
    } = *lost;
    named(line, "lost");
    line.object(key!("lost"), |part| {
        part.number(key!("count"), count);
        part.word(key!("reason"), reason.as_str());
    });
}

pub(super) fn end(line: &mut Object<'_>, end: &End) {
    let End {
        events,
        failures,
        lost,
        time: _,
    } = *end;
    named(line, "end");
    line.object(key!("totals"), |part| {
        part.number(key!("events"), events);
        part.number(key!("failures"), failures);
        part.number(key!("lost"), lost);
    });
}

fn named(line: &mut Object<'_>, name: &'static str) {
    line.object(key!("event"), |part| part.word(key!("name"), name));
}

pub(super) fn event(
    line: &mut Object<'_>,
    sighting: &Sighting,
    args: bool,
    clock: &mut Clock,
    kept: &mut Kept,
) {
    let Sighting {
        event,
        time: _,
        process,
        local: local_facts,
        peer: peer_facts,
        interface,
        explanation: _,
        missing,
    } = sighting;
    let Event {
        time_boot: _, // that of `time`
        duration,
        op,
        outcome,
        via,
        transport,
        family,
        local,
        peer,
        auto_port,
        backlog,
        socket,
        task,
        refused_by_policy: _, // a word of `conflict.kind`, which is decided elsewhere
        no_port_left: _,
        bound_port: _,
        conflict,
    } = &**event;

    call(line, *op, *outcome, *via, *duration);
    if let Outcome::Failure(errno) = *outcome {
        error(line, errno);
    }
    line.object(key!("network"), |part| {
        network(part, *transport, *family);
        side(part, key!("local"), local, local_facts);
        if let Some(peer) = peer {
            side(part, key!("peer"), peer, peer_facts);
        }
        part.object(key!("interface"), |part| {
            part.text(key!("name"), interface.as_deref());
        });
    });
    line.object(key!("socket"), |part| {
        identity(part, socket);
        part.flag(key!("auto_port"), *auto_port);
        options(part, socket);
        part.maybe_number(key!("backlog"), *backlog);
    });
    let (fields, _) = kept.get(task, process, 0, |out| {
        caller(&mut Object::fields(out), task, process, args, clock);
        0
    });
    line.written(fields);
    if let Some(conflict) = conflict {
        self::conflict(line, conflict);
    }
    if !missing.is_empty() {
        line.list(key!("missing"), missing, |out, path| string(out, path));
    }
}

fn call(line: &mut Object<'_>, op: Op, outcome: Outcome, via: Option<Via>, duration: Option<u64>) {
    let (outcome, reason) = match outcome {
        Outcome::Success => ("success", None),
        Outcome::Failure(_) => ("failure", None),
        Outcome::Unknown(UnknownReason::Closed) => ("unknown", Some("closed")),
        Outcome::Unknown(UnknownReason::TraceEnded) => ("unknown", Some("trace_ended")),
    };
    line.object(key!("event"), |part| {
        part.word(key!("name"), op.as_str());
        part.word(key!("outcome"), outcome);
        part.word(key!("reason"), reason);
        part.word(key!("via"), via.map(Via::as_str));
        part.maybe_number(key!("duration"), duration);
    });
}

fn error(line: &mut Object<'_>, errno: Errno) {
    line.object(key!("error"), |part| {
        part.word(key!("type"), errno::name(errno).unwrap_or(OTHER));
        part.number(key!("code"), errno.0);
    });
}

fn network(part: &mut Object<'_>, transport: Transport, family: Family) {
    part.word(key!("transport"), transport.as_str());
    part.word(key!("type"), family.as_str());
}

/// One end of a socket.
fn side(part: &mut Object<'_>, key: Key, endpoint: &Endpoint, facts: &PortFacts) {
    let Endpoint { address, port } = *endpoint;
    let PortFacts {
        service,
        class,
        ephemeral,
    } = facts;
    part.object(key, |part| {
        if let Some(address) = address {
            part.plain(key!("address"), |out| digits::address(out, address));
        }
        // The rest are properties of the port.
        if let Some(port) = port {
            part.number(key!("port"), port);
            part.text(key!("service"), service.as_deref());
            part.word(key!("port_class"), class.map(PortClass::as_str));
            part.flag(key!("ephemeral"), *ephemeral);
        }
    });
}

fn identity(part: &mut Object<'_>, socket: &Socket) {
    if let Some(cookie) = socket.cookie {
        part.plain(key!("cookie"), |out| digits::hex(out, cookie));
    }
    part.maybe_number(key!("inode"), socket.inode);
    part.maybe_number(key!("netns"), socket.netns);
}

fn options(part: &mut Object<'_>, socket: &Socket) {
    let Socket {
        cookie: _,
        inode: _,
        netns: _,
        device: _, // printed by name, as network.interface
        uid,
        options,
    } = *socket;
    let SocketOptions {
        reuseaddr,
        reuseport,
        v6only,
        freebind,
        transparent,
        bind_no_port,
        mptcp,
    } = options;
    part.flag(key!("reuseaddr"), reuseaddr);
    part.flag(key!("reuseport"), reuseport);
    part.flag(key!("v6only"), v6only);
    part.flag(key!("freebind"), freebind);
    part.flag(key!("transparent"), transparent);
    part.flag(key!("bind_no_port"), bind_no_port);
    part.flag(key!("mptcp"), mptcp);
    part.maybe_number(key!("uid"), uid);
}

/// Who made the call: `process`, `thread`, `container`, `systemd`.
fn caller(
    line: &mut Object<'_>,
    task: &Task,
    process: &Arc<Process>,
    with_args: bool,
    clock: &mut Clock,
) {
    let Task {
        pid,
        tid,
        parent_pid,
        vpid,
        uid,
        comm,
        start_boot: _, // printed as creation.time
        key: _,        // means nothing to others
        cgroup: _,     // printed by path
    } = task;
    let Process {
        executable_path,
        args,
        creation,
        user_name,
        cgroup,
        container,
        systemd_unit,
    } = &**process;
    line.object(key!("process"), |part| {
        part.number(key!("pid"), *pid);
        part.maybe_number(key!("parent_pid"), *parent_pid);
        part.maybe_number(key!("vpid"), *vpid);
        part.text(key!("comm"), comm.as_deref());
        part.object(key!("executable"), |part| {
            part.text(key!("name"), process.executable_name());
            part.text(key!("path"), executable_path.as_deref());
        });
        if let Some(args) = args.as_deref().filter(|_| with_args) {
            part.list(key!("command_args"), args, |out, arg| string(out, arg));
        }
        if let Some(creation) = *creation {
            part.object(key!("creation"), |part| {
                part.time(key!("time"), clock, creation);
            });
        }
        part.object(key!("user"), |part| {
            part.number(key!("id"), *uid);
            part.text(key!("name"), user_name.as_deref());
        });
        part.object(key!("linux"), |part| {
            part.text(key!("cgroup"), cgroup.as_deref());
        });
    });
    line.object(key!("thread"), |part| part.number(key!("id"), *tid));
    if let Some(Container { id, runtime }) = container {
        line.object(key!("container"), |part| {
            part.text(key!("id"), id.as_str());
            part.object(key!("runtime"), |part| part.word(key!("name"), *runtime));
        });
    }
    line.object(key!("systemd"), |part| {
        part.text(key!("unit"), systemd_unit.as_deref());
    });
}

fn conflict(line: &mut Object<'_>, conflict: &Conflict) {
    let Conflict {
        holders,
        total,
        truncated,
    } = conflict;
    line.object(key!("conflict"), |part| {
        part.list(key!("holders"), holders, |out, item| {
            Object::write(out, |part| holder(part, item));
        });
        part.number(key!("holders_total"), *total);
        part.flag(key!("truncated"), *truncated);
    });
}

fn holder(part: &mut Object<'_>, holder: &Holder) {
    let Holder {
        transport,
        family,
        state,
        local,
        peer,
        socket,
        chose_port: _,
        accepted: _,
        of_kernel: _,
        references: _,
        taker: _,
    } = holder;
    // The kernel alone has told of it.
    let facts = |endpoint: &Endpoint| PortFacts {
        class: endpoint.port.map(PortClass::of),
        ..PortFacts::default()
    };
    part.object(key!("network"), |part| {
        network(part, *transport, *family);
        part.object(key!("connection"), |part| {
            part.word(key!("state"), state.as_str());
        });
        side(part, key!("local"), local, &facts(local));
        if let Some(peer) = peer {
            side(part, key!("peer"), peer, &facts(peer));
        }
    });
    part.object(key!("socket"), |part| {
        identity(part, socket);
        options(part, socket);
    });
}
