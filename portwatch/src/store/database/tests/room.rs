//! Files that are full.

use super::*;

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
