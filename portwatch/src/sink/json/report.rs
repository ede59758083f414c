//! A stream summed up, in one object: `docs/schema/report-1.json`.

use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::{
    SCHEMA,
    line::error,
    object::{Key, Object, key},
};
use crate::{
    event::{Op, Time, Word},
    report::{
        Automatic, ConflictGroup, FailureGroup, Flapping, Gap, Kept, Loss, Report, Resolution,
        Seen, Turnover, WarningGroup, Who,
    },
    sink::{clock::Clock, digits},
    store::keep::Keep,
};

/// The line.
#[must_use]
pub fn line(report: &Report) -> Vec<u8> {
    let Report {
        host,
        seen,
        scope: _, // the caller's
        runs,
        kept,
        unended,
        conflicts,
        warnings,
        failures,
        turnover,
        automatic,
        gaps,
        lost,
        more,
        unnamed,
    } = report;
    let Seen {
        events,
        failures: failed,
        conflicts: refused,
        span,
    } = *seen;
    let mut clock = Clock::new(TimeZone::UTC);
    let clock = &mut clock;
    let mut out = Vec::new();
    Object::write(&mut out, |line| {
        line.word(key!("schema"), SCHEMA);
        line.word(key!("record"), "report");
        line.object(key!("host"), |part| {
            part.text(key!("name"), host.as_deref());
        });
        if let Some((first, last)) = span {
            times(line, clock, first, last);
        }
        let Kept { least, filtered } = *kept;
        line.object(key!("kept"), |part| {
            part.word(key!("least"), least.unwrap_or(Keep::All).word());
            part.flag(key!("filtered"), filtered);
        });
        if let Some(time) = unended {
            line.object(key!("unended"), |part| {
                part.time(key!("last"), clock, time.utc);
            });
        }
        line.object(key!("totals"), |part| {
            part.number(key!("events"), events);
            part.number(key!("failures"), failed);
            part.number(key!("conflicts"), refused);
            part.number(
                key!("lost"),
                lost.iter().map(|loss| loss.count).sum::<u64>(),
            );
            part.number(key!("runs"), *runs);
        });
        list(line, key!("conflicts"), conflicts, |part, one| {
            conflict(part, one, clock);
        });
        list(line, key!("warnings"), warnings, |part, one| {
            warning(part, one, clock);
        });
        list(line, key!("failures"), failures, |part, one| {
            failure(part, one, clock);
        });
        maybe_list(line, key!("turnover"), turnover.as_deref(), |part, one| {
            let Turnover {
                transport,
                port,
                count,
            } = *one;
            part.number(key!("count"), count);
            network(part, transport.word(), None, Some(port), key!("local"));
        });
        maybe_list(
            line,
            key!("automatic"),
            automatic.as_deref(),
            |part, one| {
                let Automatic { who, count } = one;
                part.number(key!("count"), *count);
                program(part, key!("program"), who);
            },
        );
        list(line, key!("gaps"), gaps, |part, one| {
            let Gap { from, to, killed } = *one;
            part.time(key!("from"), clock, from.utc);
            part.time(key!("to"), clock, to.utc);
            part.flag(key!("killed"), killed);
        });
        list(line, key!("lost"), lost, |part, one| {
            let Loss {
                reason,
                count,
                first,
                last,
            } = *one;
            part.word(key!("reason"), reason.word());
            part.number(key!("count"), count);
            times(part, clock, first, last);
        });
        let [conflicts, warnings, failures, turnover, automatic, gaps] = *more;
        line.object(key!("omitted"), |part| {
            part.number(key!("conflicts"), conflicts);
            part.number(key!("warnings"), warnings);
            part.number(key!("failures"), failures);
            part.number(key!("turnover"), turnover);
            part.number(key!("automatic"), automatic);
            part.number(key!("gaps"), gaps);
            part.number(key!("events"), *unnamed);
        });
    });
    out.push(b'\n');
    out
}

/// Absent where it is not known.
fn maybe_list<T>(
    line: &mut Object<'_>,
    key: Key,
    items: Option<&[T]>,
    write: impl FnMut(&mut Object<'_>, &T),
) {
    if let Some(items) = items {
        list(line, key, items, write);
    }
}

fn list<T>(
    line: &mut Object<'_>,
    key: Key,
    items: &[T],
    mut write: impl FnMut(&mut Object<'_>, &T),
) {
    line.list(key, items, |out, item| {
        Object::write(out, |part| write(part, item));
    });
}

fn times(part: &mut Object<'_>, clock: &mut Clock, first: Time, last: Time) {
    part.time(key!("first"), clock, first.utc);
    part.time(key!("last"), clock, last.utc);
}

fn conflict(part: &mut Object<'_>, group: &ConflictGroup, clock: &mut Clock) {
    let ConflictGroup {
        op,
        errno,
        transport,
        address,
        port,
        loser,
        holder,
        kind,
        overlap,
        reason,
        count,
        first,
        last,
        message,
        hint,
        resolvable,
        resolution,
        flapping,
    } = group;
    part.number(key!("count"), *count);
    times(part, clock, *first, *last);
    part.object(key!("event"), |part| part.word(key!("name"), op.word()));
    error(part, *errno);
    network(part, transport.word(), *address, *port, key!("local"));
    program(part, key!("loser"), loser);
    if let Some(holder) = holder {
        program(part, key!("holder"), holder);
    }
    part.object(key!("conflict"), |part| {
        part.word(key!("kind"), kind.word());
        part.word(key!("overlap"), overlap.map(Word::word));
        part.word(key!("reason"), reason.map(Word::word));
        part.text(key!("message"), message.as_str());
        part.text(key!("hint"), hint.as_deref());
    });
    let resolved = resolution.is_some_and(|resolution| !resolution.open_again);
    part.flag(key!("resolved"), resolvable.then_some(resolved));
    if let Some(Resolution {
        times,
        took,
        open_again: _, // `resolved`
    }) = resolution
    {
        part.object(key!("resolution"), |part| {
            part.number(key!("times"), *times);
            part.maybe_number(key!("duration"), took.map(|took| took.as_nanos()));
        });
    }
    if let Some(Flapping { processes, every }) = flapping {
        part.object(key!("flapping"), |part| {
            part.number(key!("processes"), *processes);
            part.maybe_number(key!("interval"), every.map(|every| every.as_nanos()));
        });
    }
}

fn warning(part: &mut Object<'_>, group: &WarningGroup, clock: &mut Clock) {
    let WarningGroup {
        hazard,
        transport,
        port,
        who,
        count,
        first,
        last,
        message,
        hint,
    } = group;
    part.number(key!("count"), *count);
    times(part, clock, *first, *last);
    network(part, transport.word(), None, *port, key!("local"));
    program(part, key!("program"), who);
    part.object(key!("warning"), |part| {
        part.word(key!("kind"), hazard.word());
        part.text(key!("message"), message.as_str());
        part.text(key!("hint"), hint.as_deref());
    });
}

fn failure(part: &mut Object<'_>, group: &FailureGroup, clock: &mut Clock) {
    let FailureGroup {
        op,
        errno,
        transport,
        address,
        port,
        who,
        count,
        first,
        last,
    } = group;
    part.number(key!("count"), *count);
    times(part, clock, *first, *last);
    part.object(key!("event"), |part| part.word(key!("name"), op.word()));
    error(part, *errno);
    let side = match op {
        Op::Connect => key!("peer"),
        _ => key!("local"),
    };
    network(part, transport.word(), *address, *port, side);
    program(part, key!("program"), who);
}

fn network(
    part: &mut Object<'_>,
    transport: &'static str,
    address: Option<IpAddr>,
    port: Option<u16>,
    side: Key,
) {
    part.object(key!("network"), |part| {
        part.word(key!("transport"), transport);
        part.object(side, |part| {
            if let Some(address) = address {
                part.plain(key!("address"), |out| digits::address(out, address));
            }
            part.maybe_number(key!("port"), port);
        });
    });
}

fn program(part: &mut Object<'_>, key: Key, who: &Who) {
    let Who {
        name,
        unit,
        container,
    } = who;
    part.object(key, |part| {
        part.text(key!("name"), name.as_str());
        part.object(key!("systemd"), |part| {
            part.text(key!("unit"), unit.as_deref());
        });
        part.object(key!("container"), |part| {
            part.text(key!("id"), container.as_deref());
        });
    });
}
