//! Rows into the tables, and out of them with their last use.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use super::{
    columns::{
        INSERT_CALL, INSERT_MEMBER, INSERT_PROGRAM, insert_call, insert_member, insert_program,
        nanoseconds,
    },
    uses::{Pins, Uses, named},
};
use crate::{
    event::Word,
    store::row::{Detail, Entry, Id, Note, Row, Table},
};

pub(super) fn insert(
    transaction: &Transaction<'_>,
    entries: &[Entry],
    uses: &mut Uses,
) -> rusqlite::Result<()> {
    let mut calls = transaction.prepare_cached(INSERT_CALL)?;
    let mut programs = transaction.prepare_cached(INSERT_PROGRAM)?;
    let mut members = transaction.prepare_cached(INSERT_MEMBER)?;
    let mut events = transaction.prepare_cached(
        "INSERT INTO event (seq, time, time_boot, call, process, thread, duration, port, peer_address,
             peer_port, cookie, inode)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for entry in entries {
        match entry {
            Entry::Call(id, call) => {
                insert_call(&mut calls, *id, uses.take(Table::Call, *id), call)?;
            }
            Entry::Program(id, program) => {
                insert_program(&mut programs, *id, uses.take(Table::Program, *id), program)?;
            }
            Entry::Member(id, member) => {
                insert_member(&mut members, *id, uses.take(Table::Process, *id), member)?;
            }
            Entry::Row(row) => {
                let Row {
                    seq,
                    utc,
                    boot,
                    call,
                    process,
                    thread,
                    duration,
                    port,
                    peer,
                    peer_port,
                    cookie,
                    inode,
                    conflict: _, // in a table of its own, as is the next
                    warning: _,
                } = &**row;
                events.execute(params![
                    seq,
                    nanoseconds(*utc),
                    boot.cast_signed(),
                    call,
                    process,
                    thread,
                    duration.map(u64::cast_signed),
                    port,
                    peer.map(|peer| peer.to_string()),
                    peer_port,
                    cookie.map(u64::cast_signed),
                    inode.map(u64::cast_signed),
                ])?;
                details(transaction, row)?;
            }
            Entry::Note(note) => self::note(transaction, note)?,
            Entry::Release(..) => {}
        }
    }
    Ok(())
}

fn details(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    if let Some(conflict) = &row.conflict {
        let (cause, Detail { json, .. }) = &**conflict;
        transaction
            .prepare_cached(
                "INSERT INTO conflict (seq, kind, overlap, reason, holder, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                row.seq,
                cause.kind.word(),
                cause.overlap.map(Word::word),
                cause.reason.map(Word::word),
                cause.holder,
                json,
            ])?;
    }
    if let Some(warning) = &row.warning {
        transaction
            .prepare_cached("INSERT INTO warning (seq, detail) VALUES (?1, ?2)")?
            .execute(params![row.seq, warning.json])?;
    }
    let mut times: HashMap<Id, i64> = HashMap::new();
    for id in named(row) {
        *times.entry(id).or_default() += 1;
    }
    for (process, times) in times {
        transaction
            .prepare_cached("INSERT INTO mention (seq, process, times) VALUES (?1, ?2, ?3)")?
            .execute(params![row.seq, process, times])?;
    }
    Ok(())
}

pub(super) fn note(transaction: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    let Note {
        seq,
        utc,
        boot,
        name,
        json,
    } = note;
    transaction
        .prepare_cached(
            "INSERT INTO note (seq, time, time_boot, event, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            seq,
            nanoseconds(*utc),
            boot.cast_signed(),
            name,
            json
        ])?;
    Ok(())
}

/// Writes how many uses rows have now.
pub(super) fn change(transaction: &Transaction<'_>, uses: &Uses) -> rusqlite::Result<()> {
    for ((table, id), times) in uses.into_iter().filter(|(_, times)| **times != 0) {
        let query = match table {
            Table::Call => "UPDATE call SET uses = uses + ?2 WHERE id = ?1",
            Table::Program => "UPDATE program SET uses = uses + ?2 WHERE id = ?1",
            Table::Process => "UPDATE process SET uses = uses + ?2 WHERE id = ?1",
        };
        transaction
            .prepare_cached(query)?
            .execute(params![id, times])?;
    }
    Ok(())
}

/// Removes rows of which the last use may have gone.
pub(super) fn sweep(
    transaction: &Transaction<'_>,
    uses: &Uses,
    pins: &Pins,
) -> rusqlite::Result<()> {
    change(transaction, uses)?;
    for ((table, id), _) in uses {
        if !pins.holds(*table, *id) {
            remove_unused(transaction, *table, *id, |table, id| pins.holds(table, id))?;
        }
    }
    Ok(())
}

/// Removes a row that nothing refers to; with a process its program, if that was the last one.
pub(super) fn remove_unused(
    transaction: &Transaction<'_>,
    table: Table,
    id: Id,
    is_pinned: impl Fn(Table, Id) -> bool,
) -> rusqlite::Result<()> {
    let plain = |query: &str, id: Id| transaction.prepare_cached(query)?.execute([id]);
    match table {
        Table::Call => drop(plain("DELETE FROM call WHERE id = ?1 AND uses <= 0", id)?),
        Table::Program => drop(plain(
            "DELETE FROM program WHERE id = ?1 AND uses <= 0",
            id,
        )?),
        Table::Process => {
            let gone: Option<Id> = {
                let mut statement = transaction.prepare_cached(
                    "DELETE FROM process WHERE id = ?1 AND uses <= 0 RETURNING program",
                )?;
                let mut rows = statement.query([id])?;
                // All of them, so that the statement comes to its end.
                let mut gone = None;
                while let Some(row) = rows.next()? {
                    gone = Some(row.get(0)?);
                }
                gone
            };
            if let Some(program) = gone {
                plain("UPDATE program SET uses = uses - 1 WHERE id = ?1", program)?;
                if !is_pinned(Table::Program, program) {
                    plain("DELETE FROM program WHERE id = ?1 AND uses <= 0", program)?;
                }
            }
        }
    }
    Ok(())
}
