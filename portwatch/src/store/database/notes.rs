//! What has to go of starts, losses and ends. `store::retention` decides.
//!
//! They are a class of their own: where little is kept and much is lost there may be more of them than
//! of anything else.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use rusqlite::TransactionBehavior;

use super::{Database, read::note, rows};
use crate::{
    event::{Item, Lost, LostReason, Time},
    sink::json::stored,
    store::{
        decode,
        retention::{self, Age, Footprint},
        row::{Id, Note},
    },
};

impl Database {
    /// The oldest notes go, those before an event, as many as one transaction takes; of what was lost
    /// the sum stays.
    pub(super) fn expire_notes(&mut self, before: Option<Id>) -> rusqlite::Result<()> {
        let fate = |note: &Note| match before {
            Some(event) if note.seq >= event => Fate::Last,
            _ => Fate::Goes,
        };
        self.forget(true, fate).map(drop)
    }

    /// Those go that are too old.
    pub(super) fn expire_old_notes(
        &mut self,
        age: Duration,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let fate = |note: &Note| match retention::age(age, note.utc, now) {
            Age::Old => Fate::Goes,
            Age::Ahead => Fate::Stays,
            Age::Young => Fate::Last,
        };
        while self.forget(false, fate)? {}
        Ok(())
    }

    /// Replaces notes that are due, from the oldest on, by what is kept of them; the value is whether
    /// any of them went. `noted` moves on in any case.
    fn forget(&mut self, sums_up: bool, fate: impl Fn(&Note) -> Fate) -> rusqlite::Result<bool> {
        let mut kept = Kept::default();
        let mut footprint = Footprint::default();
        let mut taken = 0;
        let mut last = 0;
        {
            let query = "SELECT * FROM note ORDER BY seq";
            let mut statement = self.connection.prepare_cached(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let next = note(row)?;
                let is_enough = last > self.noted && !footprint.fits(self.shares);
                let fate = fate(&next);
                if fate == Fate::Last || is_enough {
                    break;
                }
                taken += 1;
                last = next.seq;
                footprint.bytes += next.size();
                match fate {
                    Fate::Stays => kept.whole.push(next),
                    Fate::Goes | Fate::Last => kept.take(next, sums_up),
                }
            }
        }
        let kept = kept.notes();
        let has_gone = kept.len() < taken;
        if has_gone {
            self.relieve_log()?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction
                .prepare_cached("DELETE FROM note WHERE seq <= ?1")?
                .execute([last])?;
            // What is said of a run goes with its start.
            if let Some(start) = kept.iter().find(|note| note.name == "start") {
                transaction
                    .prepare_cached("DELETE FROM run WHERE seq < ?1")?
                    .execute([start.seq])?;
            }
            for note in &kept {
                rows::note(&transaction, note)?;
            }
            transaction.commit()?;
        }
        self.noted = self.noted.max(last);
        Ok(has_gone)
    }
}

/// What becomes of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes, but for what is kept of it.
    Goes,
    /// It stays as it is.
    Stays,
    /// It stays, and so do all behind it.
    Last,
}

/// What is kept of notes.
#[derive(Default)]
struct Kept {
    /// What is left of a run keeps its start, and its end.
    start: Option<Note>,
    end: Option<Note>,
    /// What was lost, in one note for each reason, where it was lost last.
    losses: HashMap<LostReason, (Id, Lost)>,
    whole: Vec<Note>,
}

impl Kept {
    fn take(&mut self, note: Note, sums_up: bool) {
        match decode::note(&note) {
            Ok(Item::Start(_)) => {
                self.start = Some(note);
                self.end = None;
            }
            Ok(Item::End(_)) => self.end = Some(note),
            Ok(Item::Lost(lost)) if sums_up => {
                let before = self.losses.get(&lost.reason);
                let count = before.map_or(0, |(_, before)| before.count);
                let count = count.saturating_add(lost.count);
                self.losses
                    .insert(lost.reason, (note.seq, Lost { count, ..lost }));
            }
            // One that nobody can read is no loss.
            Ok(Item::Lost(_) | Item::Event(_)) | Err(_) => {}
        }
    }

    fn notes(self) -> Vec<Note> {
        let Self {
            start,
            end,
            losses,
            whole,
        } = self;
        let losses = losses.into_values().filter_map(|(seq, lost)| {
            let Time { boot, utc } = lost.time;
            let json = stored::note(&Item::Lost(lost))?;
            Some(Note {
                seq,
                utc,
                boot,
                name: "lost",
                json,
            })
        });
        whole
            .into_iter()
            .chain(start)
            .chain(end)
            .chain(losses)
            .collect()
    }
}
