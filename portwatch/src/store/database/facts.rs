//! What sums are made of, out of a file: no more of a row than they need, for there may be millions.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    num::NonZeroUsize,
};

use lru::LruCache;
use rusqlite::{Row as SqlRow, Transaction};

use super::{
    Reader, StoreError,
    columns::{address, maybe_word, time, word},
    read::{Known, Trouble, note},
};
use crate::{
    event::{Hazard, Kind, Overlap, Reason, Time, identity},
    report::{Alarm, Cause, Fact, Keeping, Kept, Summary, WhoId},
    store::{decode, row::Id, schema},
};

/// Rows of a piece.
const PIECE: usize = 10_000;
/// Processes that are known by their number.
const PROCESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);

/// A conflict or warning that belongs to an event.
struct Beside<T> {
    seq: Id,
    what: T,
    message: String,
    hint: Option<String>,
}

struct Refusal {
    kind: Kind,
    overlap: Option<Overlap>,
    reason: Option<Reason>,
    holder: Option<Id>,
    unit: Option<String>,
}

/// Processes by their number.
type Callers = LruCache<Id, Caller>;

#[derive(Clone, Copy)]
struct Caller {
    who: WhoId,
    program: u64,
    pid: u32,
}

impl Reader {
    /// What was kept of what happened; `None` of a recording whose schema does not tell.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn kept(&self) -> Result<Option<Kept>, StoreError> {
        if self.version < schema::RUN {
            return Ok(None);
        }
        let runs = || -> rusqlite::Result<Kept> {
            let mut statement = self
                .connection
                .prepare("SELECT seq, keep, filtered, time, time_boot FROM run")?;
            let mut kept = Kept::default();
            for row in statement.query_map([], run)? {
                kept.add(row?.1);
            }
            Ok(kept)
        };
        runs()
            .map(Some)
            .map_err(|source| StoreError::sql(&self.path, source))
    }

    /// Sums everything up.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn sum_up(&mut self, summary: &mut Summary) -> Result<(), StoreError> {
        let mut callers = LruCache::new(PROCESSES);
        loop {
            let after = self.after;
            let piece = self.connection.transaction().map_err(Trouble::from);
            let last = piece.and_then(|transaction| {
                piece_of(
                    &transaction,
                    &mut self.known,
                    &mut callers,
                    (after, self.version),
                    summary,
                )
            });
            match last.map_err(|trouble| trouble.of(&self.path))? {
                Some(last) => self.after = last,
                None => return Ok(()),
            }
        }
    }
}

/// Sums up what stands behind `after`; the value is the last of it, `None` where there is nothing.
fn piece_of(
    transaction: &Transaction<'_>,
    known: &mut Known,
    callers: &mut Callers,
    (after, version): (Id, i32),
    summary: &mut Summary,
) -> Result<Option<Id>, Trouble> {
    let last: Option<Id> = transaction
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT seq FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2)",
        )?
        .query_row((after, PIECE), |row| row.get(0))?;
    // Behind the last event there may be notes still.
    let last = match last {
        Some(last) => Some(last),
        None => transaction
            .prepare_cached("SELECT max(seq) FROM note WHERE seq > ?1")?
            .query_row([after], |row| row.get(0))?,
    };
    let Some(last) = last else {
        return Ok(None);
    };
    let mut conflicts = beside(
        transaction,
        "SELECT seq, kind, overlap, reason, holder, detail ->> '$.conflict.message' AS message,
                detail ->> '$.conflict.hint' AS hint,
                detail ->> '$.conflict.holders[0].systemd.unit' AS unit
           FROM conflict WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        (after, last),
        |row| {
            Ok(Refusal {
                kind: word(row, "kind")?,
                overlap: maybe_word(row, "overlap")?,
                reason: maybe_word(row, "reason")?,
                holder: row.get("holder")?,
                unit: row.get("unit")?,
            })
        },
    )?;
    let mut warnings = beside(
        transaction,
        "SELECT seq, detail ->> '$.warning.kind' AS kind, detail ->> '$.warning.message' AS message,
                detail ->> '$.warning.hint' AS hint,
                detail ->> '$.warning.refused.network.local.port' AS asked
           FROM warning WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        (after, last),
        |row| Ok((word::<Hazard>(row, "kind")?, row.get("asked")?)),
    )?;
    let mut notes = transaction
        .prepare_cached("SELECT * FROM note WHERE seq > ?1 AND seq <= ?2 ORDER BY seq")?
        .query_map((after, last), note)?
        .collect::<rusqlite::Result<VecDeque<_>>>()?;
    let mut runs = if version < schema::RUN {
        HashMap::new()
    } else {
        transaction
            .prepare_cached(
                "SELECT seq, keep, filtered, time, time_boot FROM run WHERE seq > ?1 AND seq <= ?2",
            )?
            .query_map((after, last), run)?
            .collect::<rusqlite::Result<HashMap<_, _>>>()?
    };
    let mut tell = |summary: &mut Summary, before: Id| {
        while let Some(note) = notes.pop_front_if(|note| note.seq < before) {
            let item = decode::note(&note).map_err(|wrong| Trouble::row(note.seq, &wrong))?;
            summary.item(&item);
            if let Some(keeping) = runs.remove(&note.seq) {
                summary.keeping(keeping);
            }
        }
        Ok::<_, Trouble>(())
    };

    let mut statement = transaction.prepare_cached(
        "SELECT seq, time, time_boot, call, process, port, peer_port, peer_address FROM event
          WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
    )?;
    let mut rows = statement.query((after, last))?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        tell(summary, seq)?;
        let conflict = conflicts.pop_front_if(|one| one.seq == seq);
        let warning = warnings.pop_front_if(|one| one.seq == seq);
        let absent = |table| Trouble::row(seq, &format_args!("its {table} is missing"));
        let call = known
            .call(transaction, row.get(3)?)?
            .ok_or_else(|| absent("call"))?;
        let Caller { who, program, pid } =
            number(transaction, known, callers, row.get(4)?, summary)?
                .ok_or_else(|| absent("process"))?;
        let refusal = conflict.as_ref().map(|conflict| &conflict.what);
        let holder = match refusal.and_then(|refusal| Some((refusal.holder?, &refusal.unit))) {
            None => (None, None),
            Some((id, unit)) => {
                let holder = known.occupant(transaction, id)?;
                let holder = holder.ok_or_else(|| absent("holder"))?;
                let pid = holder.task.pid;
                (Some(summary.holder(&holder, unit.as_deref())), Some(pid))
            }
        };
        let boot: i64 = row.get(2)?;
        summary.fact(&Fact {
            time: Time {
                boot: boot.cast_unsigned(),
                utc: time(row.get(1)?),
            },
            op: call.op,
            outcome: call.outcome,
            transport: call.transport,
            netns: call.netns,
            address: call.local,
            port: row.get(5)?,
            auto_port: call.auto_port,
            peer: peer(row, call.outcome.is_failure() || summary.has_ports())?,
            who,
            program,
            pid,
            cause: conflict.as_ref().map(|conflict| Cause {
                kind: conflict.what.kind,
                overlap: conflict.what.overlap,
                reason: conflict.what.reason,
                holder: holder.0,
                holder_pid: holder.1,
                message: &conflict.message,
                hint: conflict.hint.as_deref(),
            }),
            alarm: warning.as_ref().map(|warning| Alarm {
                hazard: warning.what.0,
                asked: warning.what.1,
                message: &warning.message,
                hint: warning.hint.as_deref(),
            }),
        });
    }
    drop(rows);
    tell(summary, Id::MAX)?;
    Ok(Some(last))
}

/// What a run kept, by its start.
fn run(row: &SqlRow<'_>) -> rusqlite::Result<(Id, Keeping)> {
    let utc: Option<i64> = row.get("time")?;
    let boot: Option<i64> = row.get("time_boot")?;
    let keeping = Keeping {
        keep: word(row, "keep")?,
        filtered: row.get("filtered")?,
        alive: utc.zip(boot).map(|(utc, boot)| Time {
            boot: boot.cast_unsigned(),
            utc: time(utc),
        }),
    };
    Ok((row.get("seq")?, keeping))
}

/// Whom a connect was for, where somebody asks: to read it takes time.
fn peer(row: &SqlRow<'_>, is_asked: bool) -> rusqlite::Result<(Option<IpAddr>, Option<u16>)> {
    if !is_asked {
        return Ok((None, None));
    }
    Ok((address(row, "peer_address")?, row.get(6)?))
}

fn beside<T>(
    transaction: &Transaction<'_>,
    query: &str,
    range: (Id, Id),
    what: impl Fn(&SqlRow<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<VecDeque<Beside<T>>> {
    transaction
        .prepare_cached(query)?
        .query_map(range, |row| {
            Ok(Beside {
                seq: row.get("seq")?,
                what: what(row)?,
                message: row.get("message")?,
                hint: row.get("hint")?,
            })
        })?
        .collect()
}

fn number(
    transaction: &Transaction<'_>,
    known: &mut Known,
    callers: &mut Callers,
    id: Id,
    summary: &mut Summary,
) -> rusqlite::Result<Option<Caller>> {
    if let Some(found) = callers.get(&id) {
        return Ok(Some(*found));
    }
    let found = known.occupant(transaction, id)?;
    Ok(found.map(|occupant| {
        let found = Caller {
            who: summary.who(&occupant),
            program: identity(&occupant.task, &occupant.process),
            pid: occupant.task.pid,
        };
        callers.put(id, found);
        found
    }))
}
