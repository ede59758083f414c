//! The sink of `record`.

use std::io;

use super::{encode::Encoder, keep::Keeper, row::Entry, writer::Writer};
use crate::{
    event::{End, Item, Lost, LostReason, Start, Time},
    sink::Sink,
};

/// Puts a stream into a store.
#[derive(Debug)]
pub struct Store {
    keeper: Keeper,
    encoder: Encoder,
    entries: Vec<Entry>,
    weight: usize,
    writer: Writer,
    /// What found no room since the last that did, and losses that were told in that time.
    lost: Vec<(LostReason, u64)>,
    /// Events that ever found none.
    lost_of_all: u64,
}

/// Handed over out of turn when this much has come together.
const FULL: usize = 256 * 1024;

impl Store {
    /// One that keeps what `keeper` wants.
    #[must_use]
    pub const fn new(keeper: Keeper, encoder: Encoder, writer: Writer) -> Self {
        Self {
            keeper,
            encoder,
            entries: Vec::new(),
            weight: 0,
            writer,
            lost: Vec::new(),
            lost_of_all: 0,
        }
    }

    fn encode(&mut self, item: &Item) {
        let before = self.entries.len();
        self.encoder.item(item, &mut self.entries);
        let new = self.entries[before..].iter().map(Entry::weight);
        self.weight += new.sum::<usize>();
    }

    /// Counts what is to be told as soon as there is room.
    fn miss(&mut self, reason: LostReason, count: u64) {
        match self.lost.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, sum)) => *sum += count,
            None => self.lost.push((reason, count)),
        }
    }

    /// Tells how many found no room, where they are missing.
    fn account(&mut self, time: Time) {
        for (reason, count) in std::mem::take(&mut self.lost) {
            self.encode(&Item::Lost(Lost {
                count,
                reason,
                time,
            }));
        }
    }
}

impl Sink for Store {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        if !self.keeper.wants(item) {
            return Ok(());
        }
        match item {
            Item::Event(_) if !self.writer.has_room() => {
                self.miss(LostReason::StoreFull, 1);
                self.lost_of_all += 1;
                return Ok(());
            }
            // Losses must not take the memory that events may not have.
            Item::Lost(Lost { count, reason, .. }) if !self.writer.has_room() => {
                self.miss(*reason, *count);
                return Ok(());
            }
            Item::Event(sighting) => {
                self.account(sighting.time);
                self.encode(item);
            }
            Item::Start(Start { time, .. }) | Item::Lost(Lost { time, .. }) => {
                self.account(*time);
                self.encode(item);
            }
            Item::End(end) => {
                self.account(end.time);
                let lost = end.lost + self.lost_of_all;
                self.encode(&Item::End(End { lost, ..*end }));
            }
        }
        if self.weight >= FULL {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.weight = 0;
        self.writer.give(&mut self.entries)
    }

    fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        self.writer.close()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{
        path::Path,
        sync::mpsc::{Receiver, channel},
        time::{Duration, Instant},
    };

    use rusqlite::Connection;

    use super::*;
    use crate::{
        event::Op,
        sample,
        store::{
            database::{self, Opened, Reader},
            keep::Keep,
            retention::Bounds,
            writer::{Pulse, Word},
        },
    };

    fn store(path: &Path) -> (Store, Receiver<Word>) {
        let bounds = Bounds {
            size: 256 << 20,
            age: None,
        };
        let Opened {
            database, encoder, ..
        } = database::open(path, bounds).unwrap();
        let (send, words) = channel();
        let writer = Writer::start(database, move |word| send.send(word).unwrap()).unwrap();
        (Store::new(Keeper::new(Keep::All), encoder, writer), words)
    }

    fn items(path: &Path) -> Vec<Item> {
        let mut reader = Reader::open(path).unwrap();
        std::iter::from_fn(|| Some(reader.items().unwrap()).filter(|piece| !piece.is_empty()))
            .flatten()
            .collect()
    }

    #[test]
    fn what_was_taken_is_in_the_file_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let (mut store, _words) = store(&path);
        store.take(sample::start()).unwrap();
        store.flush().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(items(&path), [sample::start()]);
        store.take(sample::end(0, 0, 0)).unwrap();
        store.close().unwrap();
        assert_eq!(items(&path), [sample::start(), sample::end(0, 0, 0)]);
    }

    #[test]
    fn one_that_has_nothing_to_keep_says_that_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let bounds = Bounds {
            size: 256 << 20,
            age: None,
        };
        let Opened {
            database, encoder, ..
        } = database::open(&path, bounds).unwrap();
        let writer = Writer::start_idling(database, Duration::from_millis(50), |_| ()).unwrap();
        let mut store = Store::new(Keeper::new(Keep::All), encoder, writer);
        store.take(sample::start()).unwrap();
        store.flush().unwrap();
        let connection = Connection::open(&path).unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        let signs = || -> Vec<i64> {
            let mut statement = connection
                .prepare("SELECT time FROM run WHERE time IS NOT NULL")
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut first = None;
        loop {
            match (&signs()[..], first) {
                ([one], None) => first = Some(*one),
                ([one], Some(first)) if *one > first => break,
                ([] | [_], _) => {}
                (many, _) => panic!("{many:?}"),
            }
            assert!(Instant::now() < patience, "there is no second sign");
            std::thread::sleep(Duration::from_millis(20));
        }
        store.close().unwrap();
    }

    /// Somebody keeps SQLite from writing, longer than memory reaches.
    #[test]
    fn what_does_not_fit_is_told_as_lost_where_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let (mut store, words) = store(&path);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut given = 0;
        let mut bind = || {
            given += 1;
            let mut bind = sample::sighting(Op::Bind, "0.0.0.0:80");
            bind.event.socket.cookie = Some(given);
            sample::event(bind)
        };
        while store.lost_of_all < 1000 {
            store.take(bind()).unwrap();
        }
        store.flush().unwrap();
        for _ in 0..1000 {
            let lost = sample::lost(3, LostReason::RingFull);
            store.take(lost).unwrap();
            store.take(bind()).unwrap();
        }
        assert!(store.entries.is_empty(), "losses take memory");
        let patience = Duration::from_secs(30);
        assert!(matches!(
            words.recv_timeout(patience).unwrap(),
            Word::Stuck {
                by_reader: true,
                ..
            }
        ));
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        assert_eq!(words.recv_timeout(patience).unwrap(), Word::Going);
        assert!(words.try_recv().is_err(), "it is said once");
        while !store.writer.has_room() {
            std::thread::sleep(Duration::from_millis(10));
        }
        store.take(bind()).unwrap();
        store.take(sample::end(7, 0, 5)).unwrap();
        store.close().unwrap();

        let items = items(&path);
        let [before @ .., missing, lost, after, end] = &items[..] else {
            panic!("{items:?}");
        };
        assert_eq!(before.len() as u64 + 2000 + 1, given);
        assert!(matches!(after, Item::Event(last) if last.event.socket.cookie == Some(given)));
        assert_eq!(missing, &sample::lost(2000, LostReason::StoreFull));
        assert_eq!(lost, &sample::lost(3000, LostReason::RingFull));
        assert_eq!(end, &sample::end(7, 0, 2005));
    }

    /// Comes back when the writer is gone, and panics if it stays.
    fn wait_for_the_end(pulse: &Pulse) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let patience = Duration::from_secs(30);
        runtime
            .block_on(async { tokio::time::timeout(patience, pulse.ended()).await })
            .unwrap();
        assert!(!pulse.is_alive(Duration::MAX), "the watchdog is fed");
    }

    #[test]
    fn a_writer_whose_file_is_gone_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let (mut store, _words) = store(&path);
        let pulse = store.writer.pulse();
        assert!(pulse.is_alive(Duration::MAX));
        std::fs::remove_file(&path).unwrap();
        store.take(sample::start()).unwrap();
        store.flush().unwrap();
        wait_for_the_end(&pulse);
        // The next item tells why.
        store.take(sample::end(0, 0, 0)).unwrap();
        let error = store.flush().unwrap_err().to_string();
        assert!(error.ends_with("a.pwdb was moved or removed"), "{error}");
    }

    #[test]
    fn a_writer_that_panics_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let bounds = Bounds {
            size: 256 << 20,
            age: None,
        };
        let Opened { database, .. } = database::open(&path, bounds).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut writer = Writer::start(database, |word| panic!("{word:?}")).unwrap();
        let mut entries = vec![Entry::Release(crate::store::row::Table::Call, 1)];
        writer.give(&mut entries).unwrap();
        wait_for_the_end(&writer.pulse());
        let error = writer.close().unwrap_err().to_string();
        assert!(error.contains("has panicked"), "{error}");
    }

    /// Every event is written, and only then there is no room any more.
    #[test]
    fn an_end_that_finds_no_room_loses_the_totals_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let (mut store, words) = store(&path);
        store
            .take(sample::event(sample::sighting(Op::Bind, "0.0.0.0:80")))
            .unwrap();
        store.flush().unwrap();
        while items(&path).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.take(sample::end(1, 0, 0)).unwrap();
        let error = store.close().unwrap_err().to_string();
        assert!(
            error.starts_with("the totals could not be written: "),
            "{error}"
        );
        assert!(words.try_recv().is_err());
        drop(other);
        assert_eq!(items(&path).len(), 1);
    }

    /// The end comes while nothing can be written, with something in the queue besides.
    #[test]
    fn an_end_without_room_is_an_end_and_says_what_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        let (mut store, words) = store(&path);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let bind = || sample::event(sample::sighting(Op::Bind, "0.0.0.0:80"));
        store.take(bind()).unwrap();
        store.flush().unwrap();
        let stuck = words.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(matches!(stuck, Word::Stuck { .. }));
        store.take(bind()).unwrap();
        let error = store.close().unwrap_err().to_string();
        assert!(
            error.starts_with("2 events that were kept in memory are lost: "),
            "{error}"
        );
        drop(other);
        assert!(items(&path).is_empty(), "and the file is sound");
    }
}
