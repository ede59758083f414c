//! Lines of the schema `portwatch/1` back to items: the inverse of `sink::json`, as far as lines tell.
//! What no line tells (a holder's references, say) is as if it were not known.

mod conflict;
mod part;

use std::sync::Arc;

use serde_json::Value;

use crate::event::{
    Container, End, Endpoint, Errno, Event, Explanation, Item, Lost, Occupant, Op, Outcome,
    PortFacts, Process, Sighting, Socket, SocketOptions, Start, Task, Time, UnknownReason, Via,
    Warning,
};
use crate::sink::json::SCHEMA;
use part::Part;
pub use part::Wrong;
pub(crate) use part::own_word;

/// Whoever knows a process by the number that `sink::json::stored` wrote for it.
pub(crate) type Numbered<'a> = &'a mut dyn FnMut(i64) -> Option<Occupant>;

/// Reads a line.
///
/// # Errors
/// When it is no line of a stream.
pub fn line(text: &str) -> Result<Item, Wrong> {
    let value: Value = serde_json::from_str(text).map_err(|_| Wrong {
        what: "the line".to_owned(),
    })?;
    let line = Part::root(&value);
    // Another version may mean other things by the same words.
    let schema = line.at("schema");
    if schema.must(schema.text())? != SCHEMA {
        return Err(schema.wrong());
    }
    let boot = line.at("time_boot");
    let utc = line.at("time");
    let time = Time {
        boot: boot.must(boot.number())?,
        utc: utc.must(utc.time())?,
    };
    item(line, time)
}

/// Reads an item that is no event from what `sink::json::stored` wrote.
pub(crate) fn note(text: &str, time: Time) -> Result<Item, Wrong> {
    let value = object(text)?;
    item(Part::root(&value), time)
}

/// Reads `conflict` from what `sink::json::stored` wrote.
pub(crate) fn explanation(text: &str, people: Numbered<'_>) -> Result<Explanation, Wrong> {
    let value = object(text)?;
    conflict::explanation(Part::root(&value).at("conflict"), Some(people))
}

/// Reads `warning` likewise.
pub(crate) fn warning(text: &str, people: Numbered<'_>) -> Result<Warning, Wrong> {
    let value = object(text)?;
    conflict::warning(Part::root(&value).at("warning"), Some(people))
}

fn object(text: &str) -> Result<Value, Wrong> {
    serde_json::from_str(text).map_err(|_| Wrong {
        what: "a detail".to_owned(),
    })
}

fn item(line: Part<'_>, time: Time) -> Result<Item, Wrong> {
    let name = line.at("event").at("name");
    Ok(match name.must(name.text())? {
        "start" => Item::Start(start(line, time)?),
        "lost" => {
            let count = line.at("lost").at("count");
            let reason = line.at("lost").at("reason");
            Item::Lost(Lost {
                count: count.must(count.number())?,
                reason: reason.must(reason.word())?,
                time,
            })
        }
        "end" => {
            let total = |name| {
                let total = line.at("totals").at(name);
                total.must(total.number())
            };
            Item::End(End {
                events: total("events")?,
                failures: total("failures")?,
                lost: total("lost")?,
                time,
            })
        }
        _ => Item::Event(Box::new(sighting(line, time)?)),
    })
}

fn start(line: Part<'_>, time: Time) -> Result<Start, Wrong> {
    let text = |part: Part<'_>| part.must(part.string());
    let backend = line.at("backend");
    let degraded = line.at("degraded");
    Ok(Start {
        version: text(line.at("portwatch").at("version"))?,
        kernel_release: text(line.at("kernel").at("release"))?,
        host_name: text(line.at("host").at("name"))?,
        backend: backend.must(backend.word())?,
        degraded: degraded.must(degraded.strings())?,
        time,
    })
}

fn sighting(line: Part<'_>, time: Time) -> Result<Sighting, Wrong> {
    let network = line.at("network");
    let event = line.at("event");
    let of_socket = line.at("socket");
    let op = event.at("name");
    let name = op.must(op.word())?;
    let peer = network.at("peer");
    let (transport, family) = (network.at("transport"), network.at("type"));
    let has_conflict = line.at("conflict").is_there();
    let explanation = has_conflict
        .then(|| conflict::explanation(line.at("conflict"), None))
        .transpose()?;
    let sought = line.at("conflict").at("holders_total").is_there();
    let has_warning = line.at("warning").is_there();
    let warning = has_warning
        .then(|| conflict::warning(line.at("warning"), None))
        .transpose()?;
    let via = event.at("via").word()?;
    let may_be_nobodys = name == Op::Release || via == Some(Via::Kernel);
    let is_of_nobody = may_be_nobodys && !line.at("process").is_there();
    let (task, process) = if is_of_nobody {
        Default::default()
    } else {
        caller(line)?
    };
    let missing = line.at("missing").list()?.map_or(Ok(Vec::new()), |paths| {
        paths.map(|path| path.must(path.own_word())).collect()
    })?;
    let event = Event {
        time_boot: time.boot,
        duration: event.at("duration").number()?,
        op: name,
        outcome: outcome(line)?,
        via,
        transport: transport.must(transport.word())?,
        family: family.must(family.word())?,
        local: endpoint(network.at("local"))?,
        peer: peer.is_there().then(|| endpoint(peer)).transpose()?,
        auto_port: of_socket.at("auto_port").flag()?.unwrap_or_default(),
        backlog: of_socket.at("backlog").number()?,
        socket: socket(of_socket)?,
        task,
        refused_by_policy: false,
        may_bind_low: None,
        no_port_left: false,
        bound_port: None,
        own_range: None,
        freed: match name {
            Op::Release => event.at("reason").word()?,
            _ => None,
        },
        held: line.at("release").at("held").number()?,
        conflict: sought.then(Default::default),
    };
    Ok(Sighting {
        event: Box::new(event),
        time,
        process: Arc::new(process),
        local: facts(network.at("local"))?,
        peer: facts(peer)?,
        interface: network.at("interface").at("name").string()?,
        explanation: explanation.map(Arc::new),
        warning: warning.map(Box::new),
        missing,
    })
}

fn outcome(line: Part<'_>) -> Result<Outcome, Wrong> {
    let outcome = line.at("event").at("outcome");
    let reason = line.at("event").at("reason");
    let code = line.at("error").at("code");
    match (outcome.must(outcome.text())?, reason.text()?) {
        ("success", _) => Ok(Outcome::Success),
        ("failure", _) => Ok(Outcome::Failure(Errno(code.must(code.number())?))),
        ("unknown", Some("closed")) => Ok(Outcome::Unknown(UnknownReason::Closed)),
        ("unknown", Some("trace_ended")) => Ok(Outcome::Unknown(UnknownReason::TraceEnded)),
        ("unknown", _) => Err(reason.wrong()),
        _ => Err(outcome.wrong()),
    }
}

fn caller(line: Part<'_>) -> Result<(Task, Process), Wrong> {
    let (mut task, mut process) = process(line.at("process"))?;
    let thread = line.at("thread").at("id");
    task.tid = thread.must(thread.number())?;
    process.container = container(line.at("container"))?;
    process.systemd_unit = line.at("systemd").at("unit").string()?;
    Ok((task, process))
}

fn endpoint(side: Part<'_>) -> Result<Endpoint, Wrong> {
    Ok(Endpoint {
        address: side.at("address").address()?,
        port: side.at("port").number()?,
    })
}

fn facts(side: Part<'_>) -> Result<PortFacts, Wrong> {
    Ok(PortFacts {
        service: side.at("service").text()?.map(Into::into),
        class: side.at("port_class").word()?,
        ephemeral: side.at("ephemeral").flag()?,
    })
}

fn socket(part: Part<'_>) -> Result<Socket, Wrong> {
    Ok(Socket {
        cookie: part.at("cookie").hex()?,
        inode: part.at("inode").number()?,
        netns: part.at("netns").number()?,
        device: None,
        uid: part.at("uid").number()?,
        options: SocketOptions {
            reuseaddr: part.at("reuseaddr").flag()?,
            reuseport: part.at("reuseport").flag()?,
            v6only: part.at("v6only").flag()?,
            freebind: part.at("freebind").flag()?,
            transparent: part.at("transparent").flag()?,
            bind_no_port: part.at("bind_no_port").flag()?,
            mptcp: part.at("mptcp").flag()?,
        },
    })
}

/// The fields of a process, without those that stand beside it.
fn process(part: Part<'_>) -> Result<(Task, Process), Wrong> {
    let pid = part.at("pid");
    let pid: u32 = pid.must(pid.number())?;
    let user = part.at("user");
    let uid = user.at("id");
    let task = Task {
        pid,
        tid: pid,
        parent_pid: part.at("parent_pid").number()?,
        vpid: part.at("vpid").number()?,
        uid: uid.must(uid.number())?,
        comm: part.at("comm").string()?,
        ..Task::default()
    };
    let process = Process {
        executable_path: part.at("executable").at("path").string()?,
        args: part.at("command_args").strings()?,
        creation: part.at("creation").at("time").time()?,
        user_name: user.at("name").text()?.map(Into::into),
        cgroup: part.at("linux").at("cgroup").string()?,
        container: None,
        systemd_unit: None,
    };
    Ok((task, process))
}

fn container(part: Part<'_>) -> Result<Option<Container>, Wrong> {
    let id = part.at("id").string()?;
    let runtime = part.at("runtime").at("name").own_word()?;
    Ok(id.map(|id| Container { id, runtime }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{
        sample,
        sink::{Sink as _, json::Json},
    };

    fn printed(items: &[Item]) -> String {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out, true);
        for item in items {
            json.item(item).unwrap();
        }
        json.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_read_as_they_were_printed() {
        let items: Vec<_> = sample::stream()
            .into_iter()
            .chain(sample::hostile())
            .collect();
        let lines = printed(&items);
        let read: Vec<_> = lines.lines().map(|text| line(text).unwrap()).collect();
        assert_eq!(printed(&read), lines);
        assert_eq!(read.len(), items.len());
    }

    #[test]
    fn what_is_no_line_is_refused_by_what_is_wrong_in_it() {
        let whole = printed(&[sample::event(sample::sighting(Op::Bind, "0.0.0.0:80"))]);
        assert!(line(&whole).is_ok());
        for (from, to, what) in [
            ("{", "", "the line"),
            ("\"time_boot\":", "\"x\":", "time_boot"),
            ("\"outcome\":\"success\"", "\"outcome\":\"luck\"", "outcome"),
            ("\"transport\":\"tcp\"", "\"transport\":\"ip\"", "transport"),
            ("\"pid\":2214", "\"pid\":-1", "pid"),
            ("\"inode\":98765", "\"inode\":\"x\"", "inode"),
        ] {
            let broken = whole.replacen(from, to, 1);
            assert_eq!(line(&broken).unwrap_err().what, what, "{broken}");
        }
    }
}
