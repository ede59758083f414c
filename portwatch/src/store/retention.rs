//! How much may be kept, and what has to go first. No I/O.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Bytes of a page of the file, SQLite's default.
pub const PAGE: u64 = 4096;
/// The least that `--max-size` may be: there must be room for the log of what is written at once.
pub const LEAST: u64 = 4 << 20;

/// `--max-size` and `--max-age`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes on the disk: the file, and what SQLite keeps beside it.
    pub size: u64,
    /// Older is too old.
    pub age: Option<Duration>,
}

/// [`Bounds::size`] shared out among the file and what SQLite keeps beside it (sqlite.org/fileformat2.html,
/// 4: the write-ahead log; sqlite.org/walformat.html, 2: its index).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Pages of the file.
    pub pages: u64,
    /// Bytes of the log.
    pub log: u64,
    /// Pages that one transaction may change: all of them make no more than half a log.
    pub changed: usize,
}

impl Shares {
    /// Those of so many bytes.
    #[must_use]
    pub const fn of(size: u64) -> Self {
        // Of a large file a log of this size is enough for any burst.
        let log = if size / 8 < 64 << 20 {
            size / 8
        } else {
            64 << 20
        };
        // 32 KiB of index for 4096 frames, and the first 32 KiB in any case.
        let index = log / 96 + (64 << 10);
        // 64 MiB at most: a small number of pages.
        let changed = (log / 2 / PAGE).saturating_sub(SLACK) as usize;
        Self {
            pages: size.saturating_sub(log + index) / PAGE,
            log,
            changed: if changed < 4096 { changed } else { 4096 },
        }
    }
}

/// Pages of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// All of them.
    pub pages: u64,
    /// Those of them that nothing is on.
    pub free: u64,
}

/// What to do before the next entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is room.
    Write,
    /// Something has to go; [`Left::first`] says what.
    Expire,
    /// The file gives back pages that nothing is on.
    Shrink,
}

/// What could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The place in the stream of the oldest event that is no conflict.
    pub plain: Option<i64>,
    /// That of the oldest note (start, loss, end) that is not kept to the last.
    pub notes: Option<i64>,
    /// There are conflicts.
    pub conflicts: bool,
}

/// What goes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Events that are no conflicts.
    Plain,
    /// Notes, so that they can never push out what they are notes on.
    Notes,
    /// Conflicts.
    Conflicts,
}

impl Left {
    /// Of what the oldest go now: conflicts only when nothing else is left. `None`: there is nothing.
    #[must_use]
    pub const fn first(self) -> Option<Class> {
        match (self.plain, self.notes) {
            (Some(plain), Some(note)) if note < plain => Some(Class::Notes),
            (Some(_), _) => Some(Class::Plain),
            (None, Some(_)) => Some(Class::Notes),
            (None, None) if self.conflicts => Some(Class::Conflicts),
            (None, None) => None,
        }
    }
}

/// Pages that a transaction may change beyond those that rows are on: inner ones, and the last one of each
/// table.
const SLACK: u64 = 24;

/// What a transaction changes, at worst: a page of its own for each row that others refer to, and as many
/// as its new rows fill. Those that are removed stand side by side, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Rows that others refer to, each counted once.
    pub referred: usize,
    /// Bytes of rows that are written or removed.
    pub bytes: usize,
}

impl Footprint {
    /// Whether all of it may be one transaction.
    #[must_use]
    pub const fn fits(self, shares: Shares) -> bool {
        self.referred + self.bytes / HALF as usize <= shares.changed
    }
}

/// Bytes of rows that a page holds at worst: beside one that is a little larger than that there is no
/// room for another.
const HALF: u64 = PAGE / 2;

/// For how many bytes there should be room after all, where those of an entry took more than they were
/// thought to.
#[must_use]
pub const fn spare(bytes: u64) -> u64 {
    4 * (bytes + 16 * PAGE)
}

/// What to do before entries of so many bytes are written.
#[must_use]
pub const fn step(shares: Shares, holdings: Holdings, bytes: u64) -> Step {
    let Holdings { pages, free } = holdings;
    let used = pages.saturating_sub(free);
    let needed = bytes.div_ceil(HALF) + SLACK;
    if used + needed > shares.pages {
        Step::Expire
    } else if pages > shares.pages {
        Step::Shrink
    } else {
        Step::Write
    }
}

/// How old something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Too old.
    Old,
    /// Not yet.
    Young,
    /// It lies ahead: one of two clocks was wrong, this one or that one. It stays, until there is no room or
    /// until its time has come, and what is behind it is judged by itself.
    Ahead,
}

/// How old an event of that time is at `now`.
#[must_use]
pub fn age(limit: Duration, time: Timestamp, now: Timestamp) -> Age {
    let passed = now.duration_since(time);
    match SignedDuration::try_from(limit) {
        Ok(limit) if passed > limit => Age::Old,
        // A limit that is longer than time can be limits nothing.
        _ if passed < -SKEW => Age::Ahead,
        _ => Age::Young,
    }
}

/// By so much a clock may be set back, and what comes next is in order all the same.
const SKEW: SignedDuration = SignedDuration::from_hours(24);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shares_stay_inside_the_size() {
        for size in [LEAST, 10 << 20, 100 << 20, 1 << 30, 1 << 40] {
            let shares = Shares::of(size);
            let index = (shares.log / PAGE).div_ceil(4096) * (32 << 10) + (32 << 10);
            assert!(shares.pages * PAGE + shares.log + index <= size, "{size}");
            assert!(shares.pages * PAGE > size / 10 * 8, "{size}: {shares:?}");
            assert!(shares.changed >= 40, "{size}");
        }
    }

    #[test]
    fn conflicts_go_last() {
        let shares = Shares::of(LEAST);
        let full = Holdings {
            pages: shares.pages,
            free: 0,
        };
        assert_eq!(step(shares, full, 1), Step::Expire);
        let first = |plain, notes, conflicts| {
            let left = Left {
                plain,
                notes,
                conflicts,
            };
            left.first()
        };
        assert_eq!(first(Some(7), None, true), Some(Class::Plain));
        assert_eq!(first(Some(7), Some(8), true), Some(Class::Plain));
        assert_eq!(first(Some(7), Some(6), true), Some(Class::Notes));
        assert_eq!(first(None, Some(8), true), Some(Class::Notes));
        assert_eq!(first(None, None, true), Some(Class::Conflicts));
        assert_eq!(first(None, None, false), None);
    }

    #[test]
    fn a_file_that_was_larger_shrinks() {
        let shares = Shares::of(LEAST);
        let holdings = Holdings {
            pages: 2 * shares.pages,
            free: 2 * shares.pages - 10,
        };
        assert_eq!(step(shares, holdings, 1), Step::Shrink);
    }

    #[test]
    fn age_is_counted_from_now_and_survives_wrong_clocks() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let hour = Duration::from_secs(3600);
        for (time, expected) in [
            ("2026-11-29T11:30:00Z", Age::Young),
            ("2026-11-29T10:59:59Z", Age::Old),
            // Set back by an hour since.
            ("2026-11-29T13:00:00Z", Age::Young),
            ("2035-01-01T00:00:00Z", Age::Ahead),
            ("1970-01-01T00:00:00Z", Age::Old),
        ] {
            let time = time.parse().unwrap();
            assert_eq!(age(hour, time, now), expected, "{time}");
        }
        assert_eq!(age(Duration::MAX, Timestamp::MIN, now), Age::Young);
    }

    /// A file of rows, each of which takes a whole number of pages, and fills them more or less.
    #[derive(Default)]
    struct Model {
        plain: VecDeque<(i64, u64)>,
        notes: VecDeque<(i64, u64)>,
        conflicts: VecDeque<(i64, u64)>,
        pages: u64,
    }

    impl Model {
        fn class(&mut self, class: Class) -> &mut VecDeque<(i64, u64)> {
            match class {
                Class::Plain => &mut self.plain,
                Class::Notes => &mut self.notes,
                Class::Conflicts => &mut self.conflicts,
            }
        }

        fn used(&self) -> u64 {
            let rows = self.plain.iter().chain(&self.notes).chain(&self.conflicts);
            rows.map(|(_, pages)| pages).sum()
        }

        fn holdings(&self) -> Holdings {
            Holdings {
                pages: self.pages,
                free: self.pages - self.used(),
            }
        }

        fn left(&self) -> Left {
            let oldest = |rows: &VecDeque<(i64, u64)>| rows.front().map(|(at, _)| *at);
            Left {
                plain: oldest(&self.plain),
                notes: oldest(&self.notes),
                conflicts: !self.conflicts.is_empty(),
            }
        }
    }

    fn any_class() -> impl Strategy<Value = Class> {
        prop_oneof![
            Just(Class::Plain),
            Just(Class::Notes),
            Just(Class::Conflicts)
        ]
    }

    proptest! {
        /// Whatever comes: the file stays inside its share, the oldest goes first, and no conflict as
        /// long as there is something else.
        #[test]
        fn the_bound_holds(
            rows in proptest::collection::vec((any_class(), 1u64..120, HALF..=PAGE), 1..200),
            smaller_after in 0usize..200,
        ) {
            let mut shares = Shares::of(2 * LEAST);
            let mut model = Model::default();
            for (at, (class, pages, filled)) in (0..).zip(rows) {
                if at == smaller_after as i64 {
                    shares = Shares::of(LEAST);
                }
                loop {
                    let before = model.used();
                    match step(shares, model.holdings(), pages * filled) {
                        Step::Write => break,
                        Step::Expire => {
                            let left = model.left();
                            let first = left.first();
                            prop_assert!(first.is_some(), "{pages} pages fit");
                            let first = first.unwrap();
                            let gone = model.class(first).pop_front().unwrap().0;
                            if first == Class::Conflicts {
                                prop_assert_eq!((left.plain, left.notes), (None, None));
                            } else {
                                prop_assert!(left.plain.is_none_or(|oldest| gone <= oldest));
                                prop_assert!(left.notes.is_none_or(|oldest| gone <= oldest));
                            }
                        }
                        Step::Shrink => model.pages = model.used().max(1),
                    }
                    prop_assert!(model.used() < before || model.pages <= shares.pages);
                }
                model.class(class).push_back((at, pages));
                model.pages = model.pages.max(model.used());
                prop_assert!(model.pages <= shares.pages);
            }
        }
    }
}
