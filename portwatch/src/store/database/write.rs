//! Entries into tables, in transactions of a bounded size.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::columns::{
    INSERT_CALL, INSERT_MEMBER, INSERT_PROGRAM, insert_call, insert_member, insert_program,
    nanoseconds,
};
use crate::{
    event::Word,
    store::{
        retention::{self, Bounds, Class, Footprint, Shares, Step},
        row::{Detail, Entry, Id, Note, Row, Table},
    },
};

/// The file of a recorder.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    /// Holds the lock; the last to go.
    file: File,
    path: PathBuf,
    log: PathBuf,
    pub(super) shares: Shares,
    pub(super) bounds: Bounds,
    pub(super) pins: Pins,
    /// Up to here no event is left but conflicts.
    pub(super) cursor: Id,
    /// Up to here no note is left but those that are kept to the last.
    pub(super) noted: Id,
}

/// Rows that an encoder remembers, and may refer to though nothing does now.
#[derive(Debug, Default)]
pub(super) struct Pins(HashSet<(Table, Id)>);

impl Pins {
    pub(super) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Call(id, _) => drop(self.0.insert((Table::Call, *id))),
            Entry::Program(id, _) => drop(self.0.insert((Table::Program, *id))),
            Entry::Member(id, _) => drop(self.0.insert((Table::Process, *id))),
            Entry::Release(table, id) => drop(self.0.remove(&(*table, *id))),
            Entry::Row(_) | Entry::Note(_) => {}
        }
    }

    fn holds(&self, table: Table, id: Id) -> bool {
        self.0.contains(&(table, id))
    }
}

/// By how much the uses of rows change.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<(Table, Id), i64>);

impl Uses {
    pub(super) fn add(&mut self, table: Table, id: Id, times: i64) {
        *self.0.entry((table, id)).or_default() += times;
    }

    fn take(&mut self, table: Table, id: Id) -> i64 {
        self.0.remove(&(table, id)).unwrap_or_default()
    }

    /// Those of entries from the front of a list, as many as may be one transaction; and how many these
    /// are, at least one.
    fn of_front(entries: &[Entry], shares: Shares) -> (Self, usize) {
        let mut uses = Self::default();
        let mut bytes = 0;
        for (count, entry) in entries.iter().enumerate() {
            if count > 0 && !uses.footprint(bytes).fits(shares) {
                return (uses, count);
            }
            bytes += entry.size();
            match entry {
                Entry::Member(_, member) => uses.add(Table::Program, member.program, 1),
                Entry::Row(row) => {
                    uses.add(Table::Call, row.call, 1);
                    uses.add(Table::Process, row.process, 1);
                    for id in named(row) {
                        uses.add(Table::Process, id, 1);
                    }
                }
                Entry::Release(table, id) => uses.add(*table, *id, 0),
                Entry::Call(..) | Entry::Program(..) | Entry::Note(_) => {}
            }
        }
        (uses, entries.len())
    }

    pub(super) fn footprint(&self, bytes: usize) -> Footprint {
        Footprint {
            referred: self.0.len(),
            bytes,
        }
    }
}

/// The processes that the details of an event name.
fn named(row: &Row) -> impl Iterator<Item = Id> {
    let conflict = row
        .conflict
        .iter()
        .flat_map(|conflict| &conflict.1.processes);
    let warning = row.warning.iter().flat_map(|warning| &warning.processes);
    conflict.chain(warning).copied()
}

/// Why entries were not written.
#[derive(Debug)]
pub enum Unwritten {
    /// There is no room for them, within the bounds or on the disk; or a reader keeps the log from
    /// being emptied. That may change.
    NoRoom(rusqlite::Error),
    /// They never will be.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(
                Code::DiskFull | Code::SystemIoFailure | Code::DatabaseBusy | Code::CannotOpen,
            ) => Self::NoRoom(error),
            _ => Self::Broken(error),
        }
    }
}

impl Database {
    pub(super) fn new(
        connection: Connection,
        file: File,
        path: PathBuf,
        log: PathBuf,
        bounds: Bounds,
        pins: Pins,
    ) -> rusqlite::Result<Self> {
        let shares = Shares::of(bounds.size);
        // Should what follows be wrong, the file stays inside its share all the same.
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let most = i64::try_from(shares.pages).unwrap_or(i64::MAX).max(pages);
        connection.pragma_update(None, "max_page_count", most)?;
        Ok(Self {
            connection,
            file,
            path,
            log,
            shares,
            bounds,
            pins,
            cursor: 0,
            noted: 0,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Writes entries from the front of a list, as many as one transaction takes; the value is how many.
    /// What is too old goes first, and the oldest if there is no room.
    ///
    /// # Errors
    /// When none of them was written.
    pub fn write(&mut self, entries: &[Entry], now: Timestamp) -> Result<usize, Unwritten> {
        let (uses, count) = Uses::of_front(entries, self.shares);
        let entries = &entries[..count];
        let bytes: usize = entries.iter().map(Entry::size).sum();
        self.check_place()?;
        self.expire_old(now)?;
        self.make_room(bytes as u64)?;
        if let Err(error) = self.commit(entries, uses) {
            // Perhaps they take more than they were thought to. Where nothing has to go even for much
            // more, it is the disk that is full.
            let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            let spare = retention::spare(bytes as u64);
            if !is_full || !self.make_room(spare).unwrap_or(false) {
                return Err(error.into());
            }
            let (uses, _) = Uses::of_front(entries, self.shares);
            self.commit(entries, uses)?;
        }
        Ok(count)
    }

    /// One that was moved or removed nobody would look for; and its log stands under its old name, so
    /// that what is written now might not even be read.
    fn check_place(&self) -> rusqlite::Result<()> {
        let is_there = match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(own)) => (there.dev(), there.ino()) == (own.dev(), own.ino()),
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            (Ok(_), Err(_)) => true,
        };
        if is_there {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
        let words = Some("the file was moved or removed".to_owned());
        Err(rusqlite::Error::SqliteFailure(code, words))
    }

    /// Writes entries in one transaction.
    fn commit(&mut self, entries: &[Entry], mut uses: Uses) -> rusqlite::Result<()> {
        self.relieve_log()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        insert(&transaction, entries, &mut uses)?;
        change(&transaction, &uses)?;
        for entry in entries {
            if let Entry::Release(table, id) = entry {
                remove_unused(&transaction, *table, *id, |table, id| {
                    self.pins.holds(table, id)
                })?;
            }
        }
        transaction.commit()?;
        entries.iter().for_each(|entry| self.pins.note(entry));
        Ok(())
    }

    /// Makes room for entries of so many bytes; the value is whether anything had to go.
    fn make_room(&mut self, bytes: u64) -> Result<bool, Unwritten> {
        let mut has_gone = false;
        loop {
            let holdings = self.holdings()?;
            match retention::step(self.shares, holdings, bytes) {
                Step::Write => return Ok(has_gone),
                Step::Shrink => {
                    self.shrink()?;
                    continue;
                }
                Step::Expire => {}
            }
            let left = self.left()?;
            match left.first() {
                Some(Class::Plain) => self.expire_plain()?,
                Some(Class::Notes) => self.expire_notes(left.plain)?,
                Some(Class::Conflicts) => self.expire_conflicts()?,
                None => {
                    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
                    let words = Some("nothing is left that could make room".to_owned());
                    let full = rusqlite::Error::SqliteFailure(code, words);
                    return Err(Unwritten::NoRoom(full));
                }
            }
            has_gone = true;
        }
    }

    /// Brings what the log holds into the file, once it is half of what it may be: the next
    /// transaction takes less than the other half.
    pub(super) fn relieve_log(&self) -> rusqlite::Result<()> {
        let length = fs::metadata(&self.log).map_or(0, |log| log.len());
        if length < self.shares.log / 2 {
            return Ok(());
        }
        let busy: bool =
            self.connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            let words =
                Some("another program is reading, and keeps the log from being emptied".to_owned());
            return Err(rusqlite::Error::SqliteFailure(code, words));
        }
        Ok(())
    }

    /// Ends the recording: one file is left, without a log, that can be read from any place; unless
    /// somebody is reading it, or there is no room for what the log holds. Then the log stays beside it.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn close(self) -> rusqlite::Result<()> {
        let Self {
            connection, file, ..
        } = self;
        let closed = connection
            .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
            .or_else(|error| match error.sqlite_error_code() {
                Some(code) if log_may_stay(code) => Ok(()),
                _ => Err(error),
            });
        drop(connection);
        drop(file);
        closed
    }
}

/// Whether a log that could not be emptied at the end is none the worse for that.
pub(super) const fn log_may_stay(error: ErrorCode) -> bool {
    matches!(
        error,
        // Somebody is reading. The last to close empties the log.
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked
        // All of it is there; who opens the file next empties it.
        | ErrorCode::DiskFull
    )
}

fn insert(
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
fn change(transaction: &Transaction<'_>, uses: &Uses) -> rusqlite::Result<()> {
    for ((table, id), times) in uses.0.iter().filter(|(_, times)| **times != 0) {
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
    for (table, id) in uses.0.keys() {
        if !pins.holds(*table, *id) {
            remove_unused(transaction, *table, *id, |table, id| pins.holds(table, id))?;
        }
    }
    Ok(())
}

/// Removes a row that nothing refers to; with a process its program, if that was the last one.
fn remove_unused(
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
