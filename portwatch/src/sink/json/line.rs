//! The shape of a line: the paths of the schema, in its order. What is not known is left out.

use std::sync::Arc;

use super::{
    conflict,
    object::{Object, key, string},
    process::{self, People},
    socket::{identity, network, options, side},
};
use crate::{
    errno,
    event::{
        End, Errno, Event, Freed, Lost, Op, Outcome, PortFacts, Process, Refused, Sighting, Start,
        Task, UnknownReason, Via, Warning,
    },
    sink::{clock::Clock, kept::Kept},
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
        explanation,
        warning,
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
        freed,
        held,
        task,
        refused_by_policy: _, // said by `conflict.kind`, as are the next four
        may_bind_low: _,
        no_port_left: _,
        bound_port: _,
        own_range: _,
        conflict: owners,
    } = &**event;

    let reason = reason(*outcome, *freed);
    call(line, *op, *outcome, reason, *via, *duration);
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
    if let Some(held) = *held {
        line.object(key!("release"), |part| part.number(key!("held"), held));
    }
    if event.has_process() {
        let (fields, _) = kept.get(task, process, 0, |out| {
            caller(&mut Object::fields(out), task, process, args, clock);
            0
        });
        line.written(fields);
    }
    let mut people = People::in_full(args, clock);
    if let Some(explanation) = explanation {
        conflict::write(line, explanation, owners.is_some(), &mut people);
    }
    if let Some(warning) = warning {
        self::warning(line, warning, &mut people);
    }
    if !missing.is_empty() {
        line.list(key!("missing"), missing, |out, path| string(out, path));
    }
}

/// Why the outcome is unknown, or how a port became free.
fn reason(outcome: Outcome, freed: Option<Freed>) -> Option<&'static str> {
    match outcome {
        Outcome::Success => freed.map(Freed::as_str),
        Outcome::Failure(_) => None,
        Outcome::Unknown(UnknownReason::Closed) => Some("closed"),
        Outcome::Unknown(UnknownReason::TraceEnded) => Some("trace_ended"),
    }
}

fn call(
    line: &mut Object<'_>,
    op: Op,
    outcome: Outcome,
    reason: Option<&'static str>,
    via: Option<Via>,
    duration: Option<u64>,
) {
    let outcome = match outcome {
        Outcome::Success => "success",
        Outcome::Failure(_) => "failure",
        Outcome::Unknown(_) => "unknown",
    };
    line.object(key!("event"), |part| {
        part.word(key!("name"), op.as_str());
        part.word(key!("outcome"), outcome);
        part.word(key!("reason"), reason);
        part.word(key!("via"), via.map(Via::as_str));
        part.maybe_number(key!("duration"), duration);
    });
}

pub(super) fn error(line: &mut Object<'_>, errno: Errno) {
    line.object(key!("error"), |part| {
        part.word(key!("type"), errno::name(errno).unwrap_or(OTHER));
        part.number(key!("code"), errno.0);
    });
}

/// What is dangerous though it worked.
pub(super) fn warning(line: &mut Object<'_>, warning: &Warning, people: &mut People<'_>) {
    let Warning {
        kind,
        refused,
        message,
        hint,
        processes,
    } = warning;
    line.object(key!("warning"), |part| {
        part.word(key!("kind"), kind.as_str());
        if let Some(Refused {
            time_boot,
            errno,
            local,
        }) = refused
        {
            part.object(key!("refused"), |part| {
                part.number(key!("time_boot"), *time_boot);
                error(part, *errno);
                part.object(key!("network"), |part| {
                    side(part, key!("local"), local, &PortFacts::default());
                });
            });
        }
        if !processes.is_empty() {
            part.list(key!("processes"), processes, |out, other| {
                Object::write(out, |part| {
                    process::occupant(part, other, people);
                });
            });
        }
        part.text(key!("message"), message.as_str());
        part.text(key!("hint"), hint.as_deref());
    });
}

/// Who made the call: `process`, `thread`, `container`, `systemd`.
fn caller(
    line: &mut Object<'_>,
    task: &Task,
    process: &Arc<Process>,
    args: bool,
    clock: &mut Clock,
) {
    line.object(key!("process"), |part| {
        process::fields(part, task, process, args, clock);
    });
    line.object(key!("thread"), |part| part.number(key!("id"), task.tid));
    process::container(line, process.container.as_ref());
    process::unit(line, process.systemd_unit.as_deref());
}
