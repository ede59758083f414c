//! Rows of tables from and to values.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use rusqlite::{CachedStatement, Row as SqlRow, params, types::Type};

use crate::{
    errno,
    event::{
        Container, Errno, Outcome, PortClass, PortFacts, Process, SocketOptions, UnknownReason,
        Word,
    },
    source::json::own_word,
    store::row::{Call, Id, Member, Program},
};

/// What a row cannot say.
#[derive(Debug, thiserror::Error)]
#[error("{column} of a row is not what portwatch writes there")]
struct Odd {
    column: &'static str,
}

/// Reads a value that SQLite has as another type.
fn odd(column: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(Odd { column }))
}

/// Whether SQLite could read a row, and we could not.
pub(super) const fn is_odd(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

pub(super) fn word<T: Word>(row: &SqlRow<'_>, column: &'static str) -> rusqlite::Result<T> {
    maybe_word(row, column)?.ok_or_else(|| odd(column))
}

pub(super) fn maybe_word<T: Word>(
    row: &SqlRow<'_>,
    column: &'static str,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| T::of_word(text).ok_or_else(|| odd(column)))
        .transpose()
}

/// An address, which is kept as text for people.
pub(super) fn address(row: &SqlRow<'_>, column: &'static str) -> rusqlite::Result<Option<IpAddr>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| text.parse().map_err(|_| odd(column)))
        .transpose()
}

/// A moment, which is kept as ns since 1970.
pub(super) fn time(nanoseconds: i64) -> Timestamp {
    // 64 bits of nanoseconds end in 2262, far inside what a timestamp holds.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

/// ns since 1970. Clocks of the kernel count them in 64 bits too.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    let exact = time.as_nanosecond();
    i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
}

pub(super) const INSERT_CALL: &str = "\
INSERT INTO call (id, uses, event, outcome, reason, error, errno, via, transport, family, address,
    service, port_class, ephemeral, has_peer, peer_service, peer_port_class, peer_ephemeral, auto_port,
    backlog, netns, uid, reuseaddr, reuseport, v6only, freebind, transparent, bind_no_port, mptcp,
    interface, by_policy, sought, missing)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
    ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33)";

pub(super) fn insert_call(
    statement: &mut CachedStatement<'_>,
    id: Id,
    uses: i64,
    call: &Call,
) -> rusqlite::Result<()> {
    let Call {
        op,
        outcome,
        via,
        transport,
        family,
        local,
        local_facts,
        has_peer,
        peer_facts,
        auto_port,
        backlog,
        netns,
        freed,
        uid,
        options,
        interface,
        by_policy,
        sought,
        missing,
    } = call;
    let SocketOptions {
        reuseaddr,
        reuseport,
        v6only,
        freebind,
        transparent,
        bind_no_port,
        mptcp,
    } = *options;
    let (outcome, reason, errno) = match *outcome {
        Outcome::Success => ("success", freed.map(Word::word), None),
        Outcome::Failure(errno) => ("failure", None, Some(errno)),
        Outcome::Unknown(UnknownReason::Closed) => ("unknown", Some("closed"), None),
        Outcome::Unknown(UnknownReason::TraceEnded) => ("unknown", Some("trace_ended"), None),
    };
    // For people: the number is what counts.
    let error = errno.map(|errno| {
        errno::name(errno).map_or_else(|| format!("errno {}", errno.0), str::to_owned)
    });
    let missing = (!missing.is_empty()).then(|| missing.join(" "));
    statement.execute(params![
        id,
        uses,
        op.word(),
        outcome,
        reason,
        error,
        errno.map(|errno| errno.0),
        via.map(Word::word),
        transport.word(),
        family.word(),
        local.map(|address| address.to_string()),
        local_facts.service.as_deref(),
        local_facts.class.map(Word::word),
        local_facts.ephemeral,
        has_peer,
        peer_facts.service.as_deref(),
        peer_facts.class.map(Word::word),
        peer_facts.ephemeral,
        auto_port,
        backlog,
        netns,
        uid,
        reuseaddr,
        reuseport,
        v6only,
        freebind,
        transparent,
        bind_no_port,
        mptcp,
        interface.as_deref(),
        by_policy,
        sought,
        missing,
    ])?;
    Ok(())
}

pub(super) fn call(row: &SqlRow<'_>) -> rusqlite::Result<Call> {
    let outcome = row.get_ref("outcome")?.as_str()?;
    let reason = row.get_ref("reason")?.as_str_or_null()?;
    let outcome = match (outcome, reason) {
        ("success", _) => Outcome::Success,
        ("failure", _) => Outcome::Failure(Errno(row.get("errno")?)),
        ("unknown", Some("closed")) => Outcome::Unknown(UnknownReason::Closed),
        ("unknown", Some("trace_ended")) => Outcome::Unknown(UnknownReason::TraceEnded),
        _ => return Err(odd("outcome")),
    };
    let freed = match outcome {
        Outcome::Success => maybe_word(row, "reason")?,
        Outcome::Failure(_) | Outcome::Unknown(_) => None,
    };
    let facts = |service, class, ephemeral| {
        Ok::<_, rusqlite::Error>(PortFacts {
            service: row.get_ref(service)?.as_str_or_null()?.map(Arc::from),
            class: maybe_word::<PortClass>(row, class)?,
            ephemeral: row.get(ephemeral)?,
        })
    };
    let missing = row
        .get_ref("missing")?
        .as_str_or_null()?
        .unwrap_or_default();
    let missing = missing.split_ascii_whitespace();
    Ok(Call {
        op: word(row, "event")?,
        outcome,
        via: maybe_word(row, "via")?,
        transport: word(row, "transport")?,
        family: word(row, "family")?,
        local: address(row, "address")?,
        local_facts: facts("service", "port_class", "ephemeral")?,
        has_peer: row.get("has_peer")?,
        peer_facts: facts("peer_service", "peer_port_class", "peer_ephemeral")?,
        auto_port: row.get("auto_port")?,
        backlog: row.get("backlog")?,
        netns: row.get("netns")?,
        freed,
        uid: row.get("uid")?,
        options: SocketOptions {
            reuseaddr: row.get("reuseaddr")?,
            reuseport: row.get("reuseport")?,
            v6only: row.get("v6only")?,
            freebind: row.get("freebind")?,
            transparent: row.get("transparent")?,
            bind_no_port: row.get("bind_no_port")?,
            mptcp: row.get("mptcp")?,
        },
        interface: row.get("interface")?,
        by_policy: row.get("by_policy")?,
        sought: row.get("sought")?,
        missing: missing
            .map(|path| own_word(path).ok_or_else(|| odd("missing")))
            .collect::<Result<_, _>>()?,
    })
}

pub(super) const INSERT_PROGRAM: &str = "\
INSERT INTO program (id, uses, executable, args, uid, user, cgroup, container, runtime, unit)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

pub(super) fn insert_program(
    statement: &mut CachedStatement<'_>,
    id: Id,
    uses: i64,
    program: &Program,
) -> rusqlite::Result<()> {
    let Program { process, uid } = program;
    let Process {
        executable_path,
        args,
        creation: _, // the process'
        user_name,
        cgroup,
        container,
        systemd_unit,
    } = &**process;
    // A list of strings cannot fail to be JSON.
    let args = args
        .as_ref()
        .and_then(|args| serde_json::to_string(args).ok());
    let (container, runtime) = container
        .as_ref()
        .map(|Container { id, runtime }| (id.as_str(), *runtime))
        .unzip();
    statement.execute(params![
        id,
        uses,
        executable_path.as_deref(),
        args,
        uid,
        user_name.as_deref(),
        cgroup.as_deref(),
        container,
        runtime.flatten(),
        systemd_unit.as_deref(),
    ])?;
    Ok(())
}

pub(super) fn program(row: &SqlRow<'_>) -> rusqlite::Result<Program> {
    let args = row.get_ref("args")?.as_str_or_null()?;
    let args = args.map(|args| serde_json::from_str(args).map_err(|_| odd("args")));
    let container: Option<String> = row.get("container")?;
    let runtime = row.get_ref("runtime")?.as_str_or_null()?;
    let runtime = runtime.map(|name| own_word(name).ok_or_else(|| odd("runtime")));
    let runtime = runtime.transpose()?;
    Ok(Program {
        uid: row.get("uid")?,
        process: Arc::new(Process {
            executable_path: row.get("executable")?,
            args: args.transpose()?,
            creation: None,
            user_name: row.get_ref("user")?.as_str_or_null()?.map(Arc::from),
            cgroup: row.get("cgroup")?,
            container: container.map(|id| Container { id, runtime }),
            systemd_unit: row.get("unit")?,
        }),
    })
}

pub(super) const INSERT_MEMBER: &str = "\
INSERT INTO process (id, uses, program, pid, parent_pid, vpid, comm, started)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

pub(super) fn insert_member(
    statement: &mut CachedStatement<'_>,
    id: Id,
    uses: i64,
    member: &Member,
) -> rusqlite::Result<()> {
    let Member {
        program,
        pid,
        parent_pid,
        vpid,
        comm,
        creation,
    } = member;
    statement.execute(params![
        id,
        uses,
        program,
        pid,
        parent_pid,
        vpid,
        comm.as_deref(),
        creation.map(nanoseconds),
    ])?;
    Ok(())
}

pub(super) fn member(row: &SqlRow<'_>) -> rusqlite::Result<Member> {
    let started: Option<i64> = row.get("started")?;
    Ok(Member {
        program: row.get("program")?,
        pid: row.get("pid")?,
        parent_pid: row.get("parent_pid")?,
        vpid: row.get("vpid")?,
        comm: row.get("comm")?,
        creation: started.map(time),
    })
}
