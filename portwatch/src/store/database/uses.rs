//! How many rows refer to a row of another table, and which may be referred to again.

use std::collections::{HashMap, HashSet};

use crate::store::{
    retention::{Footprint, Shares},
    row::{Entry, Id, Row, Table},
};

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

    pub(super) fn holds(&self, table: Table, id: Id) -> bool {
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

    pub(super) fn take(&mut self, table: Table, id: Id) -> i64 {
        self.0.remove(&(table, id)).unwrap_or_default()
    }

    /// Those of entries from the front of a list, as many as may be one transaction; and how many these
    /// are, at least one.
    pub(super) fn of_front(entries: &[Entry], shares: Shares) -> (Self, usize) {
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
pub(super) fn named(row: &Row) -> impl Iterator<Item = Id> {
    let conflict = row
        .conflict
        .iter()
        .flat_map(|conflict| &conflict.1.processes);
    let warning = row.warning.iter().flat_map(|warning| &warning.processes);
    conflict.chain(warning).copied()
}

impl<'a> IntoIterator for &'a Uses {
    type Item = (&'a (Table, Id), &'a i64);
    type IntoIter = std::collections::hash_map::Iter<'a, (Table, Id), i64>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
