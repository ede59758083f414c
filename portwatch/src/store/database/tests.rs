#![expect(clippy::unwrap_used, reason = "tests panic")]

mod alive;
mod files;
mod retention;
mod room;
mod versions;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;
use rusqlite::Connection;

use self::retention::{dangling, miscounted};
use super::{
    open::{log_of, open, upgrade},
    *,
};
use crate::{
    event::{Item, Op, Start, Time},
    report::{Report, Scope, Summary},
    sample,
    sink::{Sink as _, json::Json},
    store::{
        identity,
        retention::{Bounds, LEAST},
        row::Entry,
        schema,
    },
};

const BOUNDS: Bounds = Bounds {
    size: 64 << 20,
    age: None,
};

/// Records a stream of its own in a file.
fn record(path: &Path, bounds: Bounds, items: &[Item]) {
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open(path, bounds).unwrap();
    let mut entries = Vec::new();
    for item in items {
        encoder.item(item, &mut entries);
    }
    write(&mut database, &entries);
    database.close().unwrap();
}

fn write(database: &mut Database, mut entries: &[Entry]) {
    while !entries.is_empty() {
        let count = database.write(entries, Timestamp::now()).unwrap();
        entries = &entries[count..];
    }
}

fn items(path: &Path) -> Vec<Item> {
    let mut reader = Reader::open(path).unwrap();
    let mut items = Vec::new();
    loop {
        let piece = reader.items().unwrap();
        if piece.is_empty() {
            return items;
        }
        items.extend(piece);
    }
}

fn json(items: &[Item]) -> String {
    let mut out = Vec::new();
    let mut sink = Json::new(&mut out, true);
    items.iter().for_each(|item| sink.item(item).unwrap());
    sink.flush().unwrap();
    String::from_utf8(out).unwrap()
}

fn everything() -> Vec<Item> {
    sample::stream()
        .into_iter()
        .chain(sample::hostile())
        .collect()
}

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pwdb");
    (folder, path)
}

#[test]
fn what_is_recorded_comes_back_line_by_line() {
    let (folder, path) = folder();
    record(&path, BOUNDS, &everything());
    assert_eq!(json(&items(&path)), json(&everything()));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "one file is left: {left:?}");
}

#[test]
fn a_second_recording_stands_behind_the_first_and_repeats_nothing() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    record(&path, BOUNDS, &everything());
    let twice = [everything(), everything()].concat();
    assert_eq!(json(&items(&path)), json(&twice));
    let connection = Connection::open(&path).unwrap();
    for (table, column) in [
        (
            "program",
            "executable || args || coalesce(unit, '') || uid || coalesce(user, '') || cgroup || coalesce(container, '')",
        ),
        (
            "process",
            "program || ' ' || pid || ' ' || coalesce(comm, '')",
        ),
    ] {
        let query = format!("SELECT count({column}), count(DISTINCT {column}) FROM {table}");
        let (all, distinct): (i64, i64) = connection
            .query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert!(all > 3);
        assert_eq!(all, distinct, "{table}");
    }
}

#[test]
fn many_pieces_are_one_stream() {
    let (_folder, path) = folder();
    let mut many = vec![sample::start()];
    for at in 0..2500u64 {
        let mut bind = sample::sighting(Op::Bind, "0.0.0.0:80");
        bind.time.boot = at;
        bind.event.time_boot = at;
        many.push(sample::event(bind));
        if at % 2 == 0 {
            many.push(sample::lost(at + 1, crate::event::LostReason::RingFull));
        }
    }
    many.push(sample::end(2500, 0, 0));
    record(&path, BOUNDS, &many);
    assert_eq!(json(&items(&path)), json(&many));
}

#[test]
fn a_clock_that_jumps_reorders_nothing() {
    let (_folder, path) = folder();
    let at = |port: u16, utc: &str, boot| {
        let mut bind = sample::sighting(Op::Bind, &format!("0.0.0.0:{port}"));
        bind.time = Time {
            boot,
            utc: utc.parse().unwrap(),
        };
        bind.event.time_boot = boot;
        sample::event(bind)
    };
    let stream = [
        at(1, "2026-11-29T12:00:00Z", 10),
        at(2, "1970-01-01T00:00:00Z", 11),
        at(3, "2035-01-01T00:00:00.000000001Z", 9),
    ];
    record(&path, BOUNDS, &stream);
    assert_eq!(json(&items(&path)), json(&stream));
}

#[test]
fn views_answer_by_hand() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let connection = Connection::open(&path).unwrap();
    let text = |query: &str| -> String {
        connection
            .prepare(query)
            .unwrap()
            .query_map([], |row| row.get::<_, String>(0))
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(
        "views",
        [
            text("SELECT concat_ws('|', seq, time, transport, address, port, event, error, pid, command, unit, kind, overlap, reason, holder_pid, holder_command, holder_unit, message) FROM conflicts WHERE seq < 12"),
            text("SELECT concat_ws('|', seq, time, transport, address, port, event, result, pid, command, unit) FROM binds WHERE kind IS NULL"),
            text("SELECT concat_ws('|', seq, address, port, peer_address, peer_port, result, pid, command) FROM connects"),
            text("SELECT concat_ws('|', seq, event, result, message) FROM port_timeline WHERE port = 46007"),
        ]
        .join("\n\n")
    );
}

fn summed_up(path: &Path) -> Report {
    let mut summary = Summary::new(Scope::default());
    let mut reader = Reader::open(path).unwrap();
    let kept = reader.kept().unwrap();
    reader.sum_up(&mut summary).unwrap();
    let report = summary.finish(10);
    assert!(kept.is_none_or(|kept| kept == report.kept), "{kept:?}");
    report
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever happened: it is in the file as it was.
    #[test]
    fn any_event_comes_back(sightings in proptest::collection::vec(sample::any_sighting(), 1..40)) {
        let (_folder, path) = folder();
        let stream: Vec<_> = sightings.into_iter().map(sample::event).collect();
        record(&path, BOUNDS, &stream);
        prop_assert_eq!(json(&items(&path)), json(&stream));
    }

    /// However a stream is cut into transactions and runs: it comes back as it was, and every use is
    /// counted.
    #[test]
    fn any_cut_gives_the_same_stream(cuts in proptest::collection::vec((1usize..30, any::<bool>()), 1..20)) {
        let (_folder, path) = folder();
        let stream = everything();
        let mut rest = &stream[..];
        let mut opened = open(&path, BOUNDS).unwrap();
        for (length, reopen) in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            let mut entries = Vec::new();
            now.iter().for_each(|item| opened.encoder.item(item, &mut entries));
            write(&mut opened.database, &entries);
            if reopen {
                opened.database.close().unwrap();
                opened = open(&path, BOUNDS).unwrap();
            }
        }
        prop_assert_eq!(dangling(&opened.database.connection), 0);
        prop_assert_eq!(miscounted(&opened.database.connection), 0);
        opened.database.close().unwrap();
        prop_assert_eq!(json(&items(&path)), json(&stream));
    }
}
