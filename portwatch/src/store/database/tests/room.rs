//! Files that are full.

use super::*;
use crate::event::{Lost, LostReason};

fn open_with(path: &Path, size: u64) -> Opened {
    open(path, Bounds { size, age: None }).unwrap()
}

/// Bytes that are on the disk for a recording: the file, and what SQLite keeps beside it.
fn on_disk(path: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    size(path) + size(&log_of(path)) + size(Path::new(&index))
}

fn count(database: &Database, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    database
        .connection
        .query_row(&query, [], |row| row.get(0))
        .unwrap()
}

fn conflict(cookie: u64) -> Item {
    let bind = sample::sighting(Op::Bind, "0.0.0.0:8080");
    let mut refused = sample::refused_by(bind, vec![sample::nginx()]);
    refused.event.socket.cookie = Some(cookie);
    sample::event(refused)
}

/// Gives the details of conflicts that length: JSON allows blanks.
fn stretch(entries: &mut [Entry], length: usize) {
    for entry in entries {
        if let Entry::Row(row) = entry
            && let Some(conflict) = &mut row.conflict
        {
            let json = &mut conflict.1.json;
            json.push_str(&" ".repeat(length.saturating_sub(json.len())));
        }
    }
}

/// Two of them do not share a page.
#[test]
fn conflicts_that_take_a_page_each_do_not_jam_a_full_file() {
    const SIZE: u64 = 16 << 20;
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, SIZE);
    let mut entries = Vec::new();
    let mut largest = 0;
    for at in 0..12_000 {
        encoder.item(&conflict(at), &mut entries);
        if entries.len() > 1000 || at == 11_999 {
            stretch(&mut entries, 2100);
            // Panics where there is no room.
            write(&mut database, &entries);
            entries.clear();
            largest = largest.max(on_disk(&path));
        }
    }
    assert!((SIZE / 4 * 3..=SIZE).contains(&largest), "{largest}");
    let kept = count(&database, "conflict");
    assert!((2000..4000).contains(&kept), "{kept}");
    assert_eq!(miscounted(&database.connection), 0);
    database.close().unwrap();
    let left = items(&path);
    assert_eq!(json(&left[left.len() - 1..]), json(&[conflict(11_999)]));
}

/// Whatever else it may be that takes more than it was thought to: more has to go, and it goes on.
#[test]
fn a_file_that_is_full_sooner_than_thought_loses_more() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, LEAST);
    // The file may have so many pages, and this is what is believed.
    database.shares.pages += 200;
    let mut entries = Vec::new();
    for at in 0..6000 {
        encoder.item(&conflict(at), &mut entries);
    }
    stretch(&mut entries, 1000);
    write(&mut database, &entries);
    let kept = count(&database, "conflict");
    assert!((500..5500).contains(&kept), "{kept}");
    assert_eq!(miscounted(&database.connection), 0);
}

/// So many losses that there would be room for nothing else.
#[test]
fn losses_push_out_no_conflict_and_do_not_fill_the_file() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, LEAST);
    let mut entries = Vec::new();
    let mut all = 0;
    encoder.item(&sample::start(), &mut entries);
    encoder.item(&conflict(1), &mut entries);
    for at in 0..80_000 {
        let reason = [LostReason::RingFull, LostReason::StoreFull][at as usize % 2];
        encoder.item(&sample::lost(at, reason), &mut entries);
        all += at;
    }
    write(&mut database, &entries);
    assert!(on_disk(&path) <= LEAST);
    assert_eq!(count(&database, "conflict"), 1);
    let notes = count(&database, "note");
    assert!((1000..60_000).contains(&notes), "{notes}");
    database.close().unwrap();
    let left = items(&path);
    assert!(matches!(left[0], Item::Start(_)));
    let told = left.iter().filter_map(|item| match item {
        Item::Lost(Lost { count, .. }) => Some(count),
        _ => None,
    });
    assert_eq!(told.sum::<u64>(), all, "their sum is kept");
}

/// As a service that is started again and again makes them.
#[test]
fn starts_and_ends_do_not_fill_the_file_either() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, LEAST);
    let mut entries = Vec::new();
    for at in 0..25_000 {
        encoder.item(&sample::start(), &mut entries);
        encoder.item(&sample::end(at, 0, 0), &mut entries);
    }
    write(&mut database, &entries);
    assert!(on_disk(&path) <= LEAST);
    let notes = count(&database, "note");
    assert!((1000..50_000).contains(&notes), "{notes}");
    database.close().unwrap();
    let left = items(&path);
    assert!(matches!(left[0], Item::Start(_)), "a run keeps its start");
    assert_eq!(left.last(), Some(&sample::end(24_999, 0, 0)));
}

#[test]
fn notes_that_are_too_old_go_though_no_event_does() {
    let (_folder, path) = folder();
    let losses: Vec<_> = (0..100)
        .map(|at| sample::lost(at, LostReason::RingFull))
        .collect();
    let run = [&[sample::start()][..], &losses, &[sample::end(0, 0, 0)]].concat();
    record(&path, BOUNDS, &run);
    record(&path, BOUNDS, &run);
    assert_eq!(items(&path).len(), 204);
    let aged = Bounds {
        age: Some(std::time::Duration::from_secs(1)),
        ..BOUNDS
    };
    let mut late = sample::sighting(Op::Bind, "0.0.0.0:8080");
    late.time.utc = Timestamp::now();
    record(&path, aged, &[sample::event(late)]);
    // The samples are a week old.
    let left = items(&path);
    assert!(
        matches!(&left[..], [Item::Start(_), Item::End(_), Item::Event(_)]),
        "{left:?}"
    );
}

/// The disk is full at the end, and all that was recorded is in the log.
#[test]
fn a_log_that_a_full_disk_keeps_is_no_failure() {
    use rusqlite::ErrorCode;

    use crate::store::database::write::log_may_stay;

    assert!(log_may_stay(ErrorCode::DiskFull) && log_may_stay(ErrorCode::DatabaseBusy));
    assert!(!log_may_stay(ErrorCode::DatabaseCorrupt) && !log_may_stay(ErrorCode::SystemIoFailure));
}

/// A year of conflicts is not looked at three times a second.
#[test]
fn conflicts_are_looked_through_once_for_something_else() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, LEAST);
    let mut entries = Vec::new();
    for at in 0..50 {
        encoder.item(&conflict(at), &mut entries);
    }
    write(&mut database, &entries);
    assert_eq!(database.left().unwrap().plain, None);
    assert_eq!(database.cursor, 50, "up to here nothing else is left");
    entries.clear();
    for at in 0..10 {
        encoder.item(&conflict(at), &mut entries);
    }
    let bind = sample::event(sample::sighting(Op::Bind, "0.0.0.0:80"));
    encoder.item(&bind, &mut entries);
    write(&mut database, &entries);
    assert_eq!(
        database.left().unwrap().plain,
        Some(61),
        "and what comes is seen"
    );
    assert_eq!(database.cursor, 60);
    database.expire_plain().unwrap();
    assert_eq!(database.left().unwrap().plain, None);
    assert_eq!(count(&database, "event"), 60);
}

/// Of a damaged file: none of its conflicts can go, and that is no reason to look for ever.
#[test]
fn conflicts_without_their_events_end_a_recorder_that_needs_room() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open_with(&path, 16 << 20);
    let mut entries = Vec::new();
    encoder.item(&conflict(1), &mut entries);
    write(&mut database, &entries);
    database
        .connection
        .execute_batch("DELETE FROM event")
        .unwrap();
    let error = database.expire_conflicts().unwrap_err();
    assert!(matches!(Unwritten::from(error), Unwritten::Broken(_)));
}
