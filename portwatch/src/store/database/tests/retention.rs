//! What goes when there is no room, or when it is old.

use super::*;

pub(super) fn dangling(connection: &Connection) -> i64 {
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
pub(super) fn miscounted(connection: &Connection) -> i64 {
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

/// A board that has no clock of its own starts in the past, or had been ahead.
#[test]
fn a_clock_that_is_wrong_costs_nothing_but_what_is_old_by_its_own_time() {
    let (_folder, path) = folder();
    let at = |port: u16, utc: Timestamp| {
        let mut bind = sample::sighting(Op::Bind, &format!("0.0.0.0:{port}"));
        bind.time.utc = utc;
        sample::event(bind)
    };
    let now = Timestamp::now();
    let hour = std::time::Duration::from_secs(3600);
    let stream = [
        at(1, now + 48 * hour),
        at(2, now - 1000 * hour),
        at(3, now + 72 * hour),
        at(4, now),
    ];
    record(&path, BOUNDS, &stream);
    let aged = Bounds {
        age: Some(24 * hour),
        ..BOUNDS
    };
    record(&path, aged, &[at(5, now)]);
    let [first, _, third, fourth] = stream;
    assert_eq!(
        json(&items(&path)),
        json(&[first, third, fourth, at(5, now)])
    );
}
