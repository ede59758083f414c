//! From one reading of the tables to the next: what an interval was like.

mod namespaces;
mod pools;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use portwatch_ebpf::abi::churn::{Counts, Key, Place};

use super::{
    figures::{Figures, Loss, Use, Who},
    limits::Limits,
    rows::{self, Entry, Table},
};
use crate::event::{Backend, Time};

/// By what ports are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Processes of one name and container
    #[default]
    Process,
    /// Peers
    Destination,
    /// Local addresses
    Source,
    /// Network namespaces
    Netns,
    /// Containers
    Container,
}

/// What the model asks about, and cannot know.
pub trait Surroundings {
    /// Settings of a network namespace.
    fn limits(&self, netns: u32) -> Limits;
    /// The container of a process.
    fn container(&self, entry: &Entry) -> Option<String>;
    /// Names of services on ports that a wider range would take in.
    fn services(&self, netns: u32) -> Vec<String>;
}

/// A reading.
#[derive(Clone, Debug)]
pub struct Reading<'a, T> {
    /// When.
    pub time: Time,
    /// The rows.
    pub table: &'a T,
    /// Network namespaces by inode; 0 stands for all that have no slot.
    pub places: Vec<(u32, Place)>,
    /// Calls that the kernel has not told the programs of, so far.
    pub skipped: u64,
}

/// What is remembered of earlier readings.
#[derive(Debug)]
pub struct Model {
    backend: Backend,
    by: By,
    top: usize,
    /// Of each row.
    last: Vec<Counts>,
    /// Of each network namespace: the last reading, and the first.
    places: BTreeMap<u32, Place>,
    start: Time,
    at: Time,
    loss: Loss,
    /// Intervals that a row was idle, up to 3; [`ABANDONED`] once its tuple was told to take another.
    idle: Vec<u8>,
}

const ABANDONED: u8 = 4;

/// What is to be done with the table after a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// Rows whose tuple is to get another one.
    pub abandon: Vec<Key>,
    /// Rows that others may have.
    pub free: Vec<u32>,
}

impl Model {
    /// Before the first reading; `rows`: how many the table has.
    #[must_use]
    pub fn new(backend: Backend, by: By, top: usize, rows: u32, start: Time) -> Self {
        Self {
            backend,
            by,
            top,
            last: vec![Counts::default(); rows as usize],
            places: BTreeMap::new(),
            start,
            at: start,
            loss: Loss::default(),
            idle: vec![0; rows as usize],
        }
    }

    /// Notes that all sockets were looked at again; `corrected`: ports that turned out to be given back.
    pub const fn looked(&mut self, corrected: u64) {
        self.loss.looks += 1;
        self.loss.corrected = corrected;
        self.loss.looked = true;
    }

    /// Ports that were forgotten, and calls that were skipped, as of the last reading.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.loss.forgotten + self.loss.skipped
    }

    /// Takes a reading.
    pub fn update<T: Table>(
        &mut self,
        reading: &Reading<'_, T>,
        around: &impl Surroundings,
    ) -> (Figures, Housekeeping) {
        let interval = Duration::from_nanos(reading.time.boot.saturating_sub(self.at.boot));
        let active = self.active(reading.table);
        self.loss.forgotten = reading
            .places
            .iter()
            .map(|(_, place)| place.forgotten)
            .sum();
        self.loss.skipped = reading.skipped;
        let namespaces = self.namespaces(reading, &active, around);
        let found = self.pools(reading.table, &active, interval, around);
        let tail = self.tail(reading.table);
        let figures = Figures {
            time: reading.time,
            interval,
            watched: Duration::from_nanos(reading.time.boot.saturating_sub(self.start.boot)),
            backend: self.backend,
            namespaces,
            pools: found.pools,
            pools_total: found.pools_total,
            groups: found.groups,
            groups_total: found.groups_total,
            failures: found.failures,
            failures_total: found.failures_total,
            tail,
            loss: self.loss,
            nat: None,
            unseen: unseen(self.backend),
        };
        let housekeeping = self.housekeeping(reading.table, &active);
        self.remember(reading, &active);
        (figures, housekeeping)
    }

    /// Rows of which something is held, or has happened since the last reading, those of one pool together.
    fn active<T: Table>(&self, table: &T) -> Vec<Row> {
        let mut found: Vec<Row> = (table.first()..table.len())
            .filter_map(|index| {
                let entry = table.entry(index)?;
                let counts = table.counts(index);
                let before = self.last.get(index as usize).copied().unwrap_or_default();
                Some(Row {
                    index,
                    key: entry.key,
                    counts,
                    used: self.seen(rows::used(&before, &counts)),
                })
            })
            .collect();
        found.sort_unstable_by(|one, other| rows::by_pool(&one.key, &other.key));
        found
    }

    /// What can be said of it: nothing of what is held, where it is not seen that ports are given back.
    const fn seen(&self, used: Use) -> Use {
        if is_blind(self.backend) {
            Use { held: 0, ..used }
        } else {
            used
        }
    }

    /// Ports of the rows that are sums.
    fn tail<T: Table>(&self, table: &T) -> Use {
        let mut sum = Use::default();
        for index in 0..table.first().min(table.len()) {
            let before = self.last.get(index as usize).copied().unwrap_or_default();
            sum.add(&self.seen(rows::used(&before, &table.counts(index))));
        }
        sum
    }

    /// Takes rows back once more than half are somebody's: of those that have been idle, first the tuple is
    /// told to take another, and when nothing was counted since, others may have the row.
    fn housekeeping<T: Table>(&mut self, table: &T, rows: &[Row]) -> Housekeeping {
        let mut todo = Housekeeping::default();
        let is_tight = rows.len() * 2 > (table.len() - table.first()) as usize;
        for row in rows {
            let Some(idle) = self.idle.get_mut(row.index as usize) else {
                continue;
            };
            let is_idle = row.used == Use::default();
            *idle = match (*idle, is_idle) {
                (ABANDONED, true) => {
                    todo.free.push(row.index);
                    0
                }
                (ABANDONED, false) => ABANDONED,
                (_, false) => 0,
                (count, true) if count >= 2 && is_tight => {
                    todo.abandon.push(row.key);
                    ABANDONED
                }
                (count, true) => (count + 1).min(3),
            };
        }
        todo
    }

    fn remember<T: Table>(&mut self, reading: &Reading<'_, T>, rows: &[Row]) {
        for row in rows {
            if let Some(last) = self.last.get_mut(row.index as usize) {
                *last = row.counts;
            }
        }
        for index in 0..reading.table.first().min(reading.table.len()) {
            if let Some(last) = self.last.get_mut(index as usize) {
                *last = reading.table.counts(index);
            }
        }
        self.places = reading.places.iter().copied().collect();
        self.at = reading.time;
        self.loss.looked = false;
    }

    /// Forgets what was counted in rows that others may have now.
    pub fn freed(&mut self, rows: &[u32]) {
        for &index in rows {
            if let Some(last) = self.last.get_mut(index as usize) {
                *last = Counts::default();
            }
        }
    }
}

/// A row of the table, and what it says of the interval.
#[derive(Clone, Copy, Debug)]
struct Row {
    index: u32,
    key: Key,
    counts: Counts,
    used: Use,
}

/// The process of a row.
fn who(entry: &Entry, around: &impl Surroundings) -> Who {
    Who {
        pid: Some(entry.pid).filter(|&pid| pid != 0),
        comm: entry.name(),
        container: around.container(entry),
    }
}

/// What a way in does not see, as paths.
const fn is_blind(backend: Backend) -> bool {
    matches!(backend, Backend::RawTp)
}

fn unseen(backend: Backend) -> Vec<&'static str> {
    if !is_blind(backend) {
        return Vec::new();
    }
    vec![
        "namespaces.given",
        "namespaces.held",
        "namespaces.held_for",
        "namespaces.searched",
        "namespaces.taken.udp",
        "namespaces.waiting",
        "pools.held",
        "pools.waiting",
        "pools.given",
        "pools.forecast",
    ]
}
