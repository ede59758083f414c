//! Entries into tables, in transactions of a bounded size.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::{
    columns::nanoseconds,
    rows::{change, insert, remove_unused},
    uses::{Pins, Uses},
};
use crate::{
    event::{Time, Word as _},
    store::{
        keep::Keep,
        retention::{self, Bounds, Class, Shares, Step},
        row::{Entry, Id},
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
    /// What is kept.
    pub(super) keep: Keep,
    pub(super) filtered: bool,
    /// The start of this run, once it is written.
    run: Option<Id>,
    /// Up to here nothing is left that is older than it may be, but what a clock that was ahead wrote.
    pub(super) aged: Id,
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
            keep: Keep::All,
            filtered: false,
            run: None,
            aged: 0,
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
        // Whoever has the file under its new name has all of it. If it cannot be had, so be it.
        let _ = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
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
        for start in entries.iter().filter_map(Entry::start) {
            transaction
                .prepare_cached("INSERT INTO run (seq, keep, filtered) VALUES (?1, ?2, ?3)")?
                .execute(params![start, self.keep.word(), self.filtered])?;
        }
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
        self.run = entries.iter().rev().find_map(Entry::start).or(self.run);
        Ok(())
    }

    /// Writes that the recorder is alive, with nothing to keep: should it be killed, nobody would know
    /// how long it had been there.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn alive(&mut self, now: Time) -> Result<(), Unwritten> {
        let Some(run) = self.run else {
            return Ok(());
        };
        self.relieve_log()?;
        self.connection
            .prepare_cached("UPDATE run SET time = ?2, time_boot = ?3 WHERE seq = ?1")?
            .execute(params![run, nanoseconds(now.utc), now.boot.cast_signed()])?;
        // There is time now; what is in the file need not be looked for in the log. A reader that keeps
        // some of it there is none the worse.
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// What is written about each run that begins from now on.
    pub const fn keeps(&mut self, keep: Keep, filtered: bool) {
        self.keep = keep;
        self.filtered = filtered;
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
