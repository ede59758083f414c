//! What has to go of the events, out of the tables. `store::retention` decides.

use jiff::Timestamp;
use rusqlite::{Row, Transaction, TransactionBehavior};

use super::{
    Database,
    columns::time,
    rows::sweep,
    uses::{Pins, Uses},
};
use crate::store::{
    retention::{self, Age, Holdings, Left},
    row::{Id, Table},
};

/// Which events are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Events {
    Plain,
    Conflicts,
    All,
}

impl Events {
    /// Of a row of a table with a column `seq`.
    const fn condition(self) -> &'static str {
        match self {
            Self::Plain => "AND seq NOT IN (SELECT seq FROM conflict WHERE seq BETWEEN ?1 AND ?2)",
            Self::Conflicts => "AND seq IN (SELECT seq FROM conflict WHERE seq BETWEEN ?1 AND ?2)",
            Self::All => "",
        }
    }
}

/// Bytes of an event, and of one with its conflict and all that it names: more than most take.
const PLAIN: usize = 64;
const REFUSED: usize = 4096;

impl Database {
    /// What room the file has.
    pub(super) fn holdings(&self) -> rusqlite::Result<Holdings> {
        let number = |name: &str| -> rusqlite::Result<u64> {
            let number: i64 = self
                .connection
                .pragma_query_value(None, name, |row| row.get(0))?;
            Ok(number.unsigned_abs())
        };
        Ok(Holdings {
            pages: number("page_count")?,
            free: number("freelist_count")?,
        })
    }

    /// What could go. To look for the oldest event that is no conflict may mean to look at each event,
    /// so what was looked at is remembered.
    pub(super) fn left(&mut self) -> rusqlite::Result<Left> {
        let first = |query: &str, after: Id| -> rusqlite::Result<Option<Id>> {
            let mut statement = self.connection.prepare_cached(query)?;
            let mut rows = statement.query([after])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        };
        let plain = first(
            "SELECT seq FROM event WHERE seq > ?1
                AND NOT EXISTS (SELECT 1 FROM conflict WHERE conflict.seq = event.seq)
              ORDER BY seq LIMIT 1",
            self.cursor,
        )?;
        let cursor = match plain {
            Some(plain) => Some(plain - 1),
            None => first(
                "SELECT seq FROM event WHERE seq > ?1 ORDER BY seq DESC LIMIT 1",
                self.cursor,
            )?,
        };
        let left = Left {
            plain,
            notes: first(
                "SELECT seq FROM note WHERE seq > ?1 ORDER BY seq LIMIT 1",
                self.noted,
            )?,
            conflicts: first("SELECT seq FROM conflict WHERE seq > ?1 LIMIT 1", 0)?.is_some(),
        };
        self.cursor = cursor.unwrap_or(self.cursor);
        Ok(left)
    }

    /// The oldest events that are no conflicts go, as many as one transaction takes.
    pub(super) fn expire_plain(&mut self) -> rusqlite::Result<()> {
        let query = "SELECT seq, call, process FROM event WHERE seq > ?1
                        AND NOT EXISTS (SELECT 1 FROM conflict WHERE conflict.seq = event.seq)
                      ORDER BY seq";
        let Some(last) = self.oldest(query, self.cursor, PLAIN, |_| Ok(true))? else {
            return Ok(());
        };
        self.expire(self.cursor + 1, last, Events::Plain)?;
        self.cursor = last;
        Ok(())
    }

    /// The oldest conflicts go, likewise.
    pub(super) fn expire_conflicts(&mut self) -> rusqlite::Result<()> {
        let query = "SELECT event.seq, event.call, event.process
                       FROM conflict CROSS JOIN event ON event.seq = conflict.seq
                      WHERE conflict.seq > ?1 ORDER BY conflict.seq";
        match self.oldest(query, 0, REFUSED, |_| Ok(true))? {
            Some(last) => self.expire(0, last, Events::Conflicts),
            // None of them could ever go.
            None => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                let words = Some("there are conflicts without their events".to_owned());
                Err(rusqlite::Error::SqliteFailure(code, words))
            }
        }
    }

    /// Everything goes that is too old.
    pub(super) fn expire_old(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let Some(age) = self.bounds.age else {
            return Ok(());
        };
        let query = "SELECT seq, call, process, time FROM event WHERE seq > ?1 ORDER BY seq";
        let age_of =
            |row: &Row<'_>| Ok::<_, rusqlite::Error>(retention::age(age, time(row.get(3)?), now));
        loop {
            // Conflicts are larger, so that all might be.
            let is_due = |row: &Row<'_>| Ok(age_of(row)? == Age::Old);
            if let Some(last) = self.oldest(query, self.aged, REFUSED, is_due)? {
                self.expire(self.aged + 1, last, Events::All)?;
                continue;
            }
            let is_ahead = |row: &Row<'_>| Ok(age_of(row)? == Age::Ahead);
            match self.last_of(query, self.aged, is_ahead)? {
                Some(last) => self.aged = last,
                None => break,
            }
        }
        self.expire_old_notes(age, now)
    }

    /// The last of the rows, from the first on, of which that is true.
    fn last_of(
        &self,
        query: &str,
        after: Id,
        is_so: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<Option<Id>> {
        let mut last = None;
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()?
            && is_so(row)?
        {
            last = Some(row.get(0)?);
        }
        Ok(last)
    }

    /// The last of the rows, from the oldest on, that are due and may be removed in one transaction;
    /// `bytes`: what one of them takes.
    fn oldest(
        &self,
        query: &str,
        after: Id,
        bytes: usize,
        is_due: impl Fn(&Row<'_>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<Option<Id>> {
        let mut uses = Uses::default();
        let mut sum = 0;
        let mut last = None;
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let fits = uses.footprint(sum).fits(self.shares);
            if !is_due(row)? || (last.is_some() && !fits) {
                break;
            }
            last = Some(row.get(0)?);
            uses.add(Table::Call, row.get(1)?, 0);
            uses.add(Table::Process, row.get(2)?, 0);
            sum += bytes;
        }
        Ok(last)
    }

    /// The file gives back pages that nothing is on.
    pub(super) fn shrink(&mut self) -> rusqlite::Result<()> {
        self.relieve_log()?;
        let pages = self.shares.changed;
        self.connection
            .execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
        // Fewer from now on.
        let pages: i64 = self
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))?;
        let share = i64::try_from(self.shares.pages).unwrap_or(i64::MAX);
        self.connection
            .pragma_update(None, "max_page_count", share.max(pages))
    }

    fn expire(&mut self, first: Id, last: Id, class: Events) -> rusqlite::Result<()> {
        self.relieve_log()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        remove(&transaction, first, last, class, &self.pins)?;
        transaction.commit()
    }
}

fn remove(
    transaction: &Transaction<'_>,
    first: Id,
    last: Id,
    class: Events,
    pins: &Pins,
) -> rusqlite::Result<()> {
    let condition = class.condition();
    let mut uses = Uses::default();
    {
        let query = format!(
            "DELETE FROM event WHERE seq BETWEEN ?1 AND ?2 {condition} RETURNING call, process"
        );
        let mut events = transaction.prepare_cached(&query)?;
        let mut rows = events.query([first, last])?;
        while let Some(row) = rows.next()? {
            uses.add(Table::Call, row.get(0)?, -1);
            uses.add(Table::Process, row.get(1)?, -1);
        }
        let query = format!(
            "DELETE FROM mention WHERE seq BETWEEN ?1 AND ?2 {condition} RETURNING process, times"
        );
        let mut mentions = transaction.prepare_cached(&query)?;
        let mut rows = mentions.query([first, last])?;
        while let Some(row) = rows.next()? {
            let times: i64 = row.get(1)?;
            uses.add(Table::Process, row.get(0)?, -times);
        }
    }
    let plain = |query: &str| transaction.prepare_cached(query)?.execute([first, last]);
    plain(&format!(
        "DELETE FROM warning WHERE seq BETWEEN ?1 AND ?2 {condition}"
    ))?;
    if class != Events::Plain {
        plain("DELETE FROM conflict WHERE seq BETWEEN ?1 AND ?2")?;
    }
    sweep(transaction, &uses, pins)
}
