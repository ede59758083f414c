#![expect(clippy::unwrap_used, reason = "tests panic")]

mod room;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    open::{log_of, open, upgrade},
    *,
};
use crate::{
    event::{Item, Op, Time},
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

#[test]
fn what_is_not_a_recording_is_left_as_it_is() {
    let (folder, path) = folder();
    for content in [b"a diary".to_vec(), {
        let other = folder.path().join("other.db");
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE x (y)").unwrap();
        drop(connection);
        fs::read(other).unwrap()
    }] {
        fs::write(&path, &content).unwrap();
        assert!(matches!(
            open(&path, BOUNDS),
            Err(StoreError::Foreign { .. })
        ));
        assert!(matches!(
            Reader::open(&path),
            Err(StoreError::Foreign { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn links_directories_and_pipes_are_refused() {
    let (folder, path) = folder();
    record(&path, BOUNDS, &[]);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(open(&link, BOUNDS), Err(StoreError::Link { .. })));
    assert!(matches!(
        open(folder.path(), BOUNDS),
        Err(StoreError::NoFile { .. })
    ));
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        open(&pipe, BOUNDS),
        Err(StoreError::NoFile { .. })
    ));
    // A link on the way is the system's affair: /var/run is one.
    let directory = folder.path().join("directory");
    std::os::unix::fs::symlink(folder.path(), &directory).unwrap();
    assert!(open(&directory.join("a.pwdb"), BOUNDS).is_ok());
}

#[test]
fn the_second_recorder_is_told_who_the_first_is() {
    let (_folder, path) = folder();
    let first = open(&path, BOUNDS).unwrap();
    let second = open(&path, BOUNDS).unwrap_err();
    let StoreError::Taken { pid, .. } = &second else {
        panic!("{second}");
    };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(
        second
            .to_string()
            .ends_with(&format!("process {}", std::process::id()))
    );
    drop(first);
    assert!(open(&path, BOUNDS).is_ok());
}

#[test]
fn schemas_of_the_future_are_refused_and_those_of_the_past_upgraded() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let connection = Connection::open(&path).unwrap();
    let next = schema::version() + 1;
    connection
        .pragma_update(None, "user_version", next)
        .unwrap();
    drop(connection);
    assert!(matches!(open(&path, BOUNDS), Err(StoreError::Newer { found, .. }) if found == next));
    assert!(matches!(Reader::open(&path), Err(StoreError::Newer { found, .. }) if found == next));

    // A version that is yet to come: its step fails in the middle, and nothing has happened.
    let mut connection = Connection::open(&path).unwrap();
    let version = |connection: &Connection| -> i32 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    connection
        .pragma_update(None, "user_version", schema::version())
        .unwrap();
    let good = "ALTER TABLE warning ADD COLUMN kind TEXT";
    let bad = "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)";
    let steps = |step| [schema::STEPS, &[step]].concat();
    let found = schema::version();
    upgrade(&mut connection, found, &steps(bad)).unwrap_err();
    assert_eq!(version(&connection), found);
    assert!(connection.prepare("SELECT * FROM half").is_err());
    assert!(connection.prepare("SELECT * FROM conflicts").is_ok());
    upgrade(&mut connection, found, &steps(good)).unwrap();
    assert_eq!(version(&connection), next);
    assert!(connection.prepare("SELECT kind FROM warning").is_ok());
}

#[test]
fn a_file_that_is_cut_is_refused_wherever_it_is_cut() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 8);
    for page in 0..pages {
        for length in [page * 4096, page * 4096 + 700] {
            fs::write(&path, &whole[..length]).unwrap();
            let read = Reader::open(&path).map(drop);
            let written = open(&path, BOUNDS).map(drop);
            if length == 0 {
                assert!(matches!(read, Err(StoreError::Empty { .. })));
                assert!(written.is_ok(), "nothing is lost by writing there");
                continue;
            }
            for refused in [read, written] {
                let refused = refused.unwrap_err();
                assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
                assert!(refused.hint_to_read().unwrap().contains(".recover"));
            }
        }
    }
}

#[test]
fn a_page_of_rubbish_is_told_and_survived() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let whole = fs::read(&path).unwrap();
    let mut told = 0;
    for page in 1..whole.len() / 4096 {
        let mut broken = whole.clone();
        broken[page * 4096..][..4096].fill(0xa5);
        fs::write(&path, &broken).unwrap();
        let read = Reader::open(&path).and_then(|mut reader| {
            while !reader.items()?.is_empty() {}
            Ok(())
        });
        if let Err(error) = read {
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            told += 1;
        }
    }
    // Pages that only a writer looks at, and those that nothing is on, are not read.
    assert!(told > 5, "{told}");
}

#[test]
fn a_newer_log_is_read_before_the_file() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open(&path, BOUNDS).unwrap();
    let mut entries = Vec::new();
    encoder.item(&sample::start(), &mut entries);
    write(&mut database, &entries);
    // A recorder at work, and after it one that was killed.
    assert_eq!(items(&path).len(), 1);
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    fs::copy(log_of(&path), log_of(&copy)).unwrap();
    drop(database);
    assert_eq!(items(&copy).len(), 1);
    record(&copy, BOUNDS, &[sample::end(0, 0, 0)]);
    assert_eq!(items(&copy).len(), 2);
}

fn dangling(connection: &Connection) -> i64 {
    connection
        .query_row(
            "SELECT (SELECT count(*) FROM event WHERE call NOT IN (SELECT id FROM call)
                                                   OR process NOT IN (SELECT id FROM process))
                  + (SELECT count(*) FROM process WHERE program NOT IN (SELECT id FROM program))
                  + (SELECT count(*) FROM mention WHERE process NOT IN (SELECT id FROM process)
                                                     OR seq NOT IN (SELECT seq FROM event))
                  + (SELECT count(*) FROM conflict WHERE seq NOT IN (SELECT seq FROM event))
                  + (SELECT count(*) FROM warning WHERE seq NOT IN (SELECT seq FROM event))",
            [],
            |row| row.get(0),
        )
        .unwrap()
}

/// Rows whose count of uses is not that of the rows that refer to them.
fn miscounted(connection: &Connection) -> i64 {
    connection
        .query_row(
            "SELECT (SELECT count(*) FROM call
                      WHERE uses <> (SELECT count(*) FROM event WHERE event.call = call.id))
                  + (SELECT count(*) FROM program
                      WHERE uses <> (SELECT count(*) FROM process WHERE program = program.id))
                  + (SELECT count(*) FROM process
                      WHERE uses <> (SELECT count(*) FROM event WHERE event.process = process.id)
                                  + (SELECT coalesce(sum(times), 0) FROM mention
                                      WHERE mention.process = process.id))",
            [],
            |row| row.get(0),
        )
        .unwrap()
}

#[test]
fn a_full_file_loses_its_oldest_events_and_its_conflicts_last() {
    let (_folder, path) = folder();
    let bounds = Bounds {
        size: LEAST,
        age: None,
    };
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open(&path, bounds).unwrap();
    let mut entries = Vec::new();
    encoder.item(&sample::start(), &mut entries);
    let mut conflicts = 0;
    let mut largest = 0;
    for at in 0u32..90_000 {
        let mut sighting = if at % 1000 == 0 {
            conflicts += 1;
            let holder = sample::nginx();
            sample::refused_by(sample::sighting(Op::Bind, "0.0.0.0:8080"), vec![holder])
        } else {
            sample::sighting(Op::Bind, "0.0.0.0:8080")
        };
        sighting.event.task.pid = at / 3;
        sighting.event.socket.cookie = Some(at.into());
        encoder.item(&sample::event(sighting), &mut entries);
        if entries.len() > 5000 {
            write(&mut database, &entries);
            entries.clear();
            let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
            let mut index = path.as_os_str().to_owned();
            index.push("-shm");
            let on_disk = size(&path) + size(&log_of(&path)) + size(Path::new(&index));
            largest = largest.max(on_disk);
        }
    }
    write(&mut database, &entries);
    assert!(largest <= LEAST, "{largest}");
    assert!(
        largest > LEAST / 2,
        "{largest}: there was nothing to expire"
    );
    let connection = &database.connection;
    assert_eq!((dangling(connection), miscounted(connection)), (0, 0));
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM conflict", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, conflicts);
    let events: i64 = connection
        .query_row("SELECT count(*) FROM event", [], |row| row.get(0))
        .unwrap();
    assert!(events < 80_000, "{events}");
    database.close().unwrap();
    let stream = items(&path);
    assert!(
        matches!(stream[0], Item::Start(_)),
        "what is left keeps its start"
    );
    assert_eq!(stream.len() as i64, events + 1);
}

#[test]
fn a_smaller_bound_makes_a_large_file_small() {
    let (_folder, path) = folder();
    let bind = |at: u64| {
        let mut sighting = sample::sighting(Op::Bind, "0.0.0.0:8080");
        sighting.event.socket.cookie = Some(at);
        sample::event(sighting)
    };
    let many: Vec<_> = (0..100_000).map(bind).collect();
    record(&path, BOUNDS, &many);
    assert!(fs::metadata(&path).unwrap().len() > LEAST);
    let small = Bounds {
        size: LEAST,
        age: None,
    };
    record(&path, small, &[bind(200_000)]);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < LEAST, "{size}");
    let left = items(&path);
    assert!(left.len() > 10_000);
    assert_eq!(json(&left[left.len() - 1..]), json(&[bind(200_000)]));
}

#[test]
fn what_is_too_old_goes_whatever_it_is() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let events = items(&path).len();
    let mut late = sample::sighting(Op::Bind, "0.0.0.0:8080");
    late.time.utc = Timestamp::now();
    let aged = Bounds {
        age: Some(std::time::Duration::from_secs(1)),
        ..BOUNDS
    };
    record(&path, aged, &[sample::event(late)]);
    // The samples are a week old.
    let left = items(&path);
    assert!(left.len() < 5 && events > 40, "{left:?}");
    let connection = Connection::open(&path).unwrap();
    assert_eq!((dangling(&connection), miscounted(&connection)), (0, 0));
    let calls: i64 = connection
        .query_row("SELECT count(*) FROM call WHERE uses = 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(calls > 0, "the recorder remembered them");
    drop(connection);
    record(&path, BOUNDS, &[]);
    let connection = Connection::open(&path).unwrap();
    let calls: i64 = connection
        .query_row("SELECT count(*) FROM call WHERE uses = 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(calls, 0, "the next one knows that nothing needs them");
}

#[test]
fn the_mark_is_in_the_file() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &[]);
    let bytes = fs::read(&path).unwrap();
    assert!(matches!(
        identity::of(&bytes),
        identity::Identity::Own(header)
            if header.version == schema::version() && header.length == bytes.len() as u64
    ));
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
