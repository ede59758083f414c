//! Files that are not ours, or not what they were.

use super::*;

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

#[test]
fn one_that_is_moved_while_it_is_written_has_everything_under_its_new_name() {
    let (_folder, path) = folder();
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open(&path, BOUNDS).unwrap();
    let mut entries = Vec::new();
    for item in everything() {
        encoder.item(&item, &mut entries);
    }
    write(&mut database, &entries);
    let moved = path.with_extension("1");
    fs::rename(&path, &moved).unwrap();
    let error = database.write(&[], Timestamp::now()).unwrap_err();
    let Unwritten::Broken(error) = error else {
        panic!("{error:?}");
    };
    let error = StoreError::sql(&path, error);
    assert!(matches!(error, StoreError::Moved { .. }), "{error}");
    drop(database);
    // What SQLite keeps beside it still has the old name.
    assert_eq!(json(&items(&moved)), json(&everything()));
}

#[test]
fn a_copy_without_its_log_is_told_to_be_one() {
    let (_folder, path) = folder();
    let Opened { mut database, .. } = open(&path, BOUNDS).unwrap();
    write(&mut database, &[]);
    assert!(
        !Reader::open(&path).unwrap().is_cut(),
        "its recorder is at work"
    );
    let copy = path.with_extension("copy");
    database.relieve_log().unwrap();
    let connection = Connection::open(&path).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .unwrap();
    fs::copy(&path, &copy).unwrap();
    assert!(Reader::open(&copy).unwrap().is_cut());
    drop(connection);
    database.close().unwrap();
    assert!(!Reader::open(&path).unwrap().is_cut());
}

#[test]
fn a_page_that_is_broken_is_found_before_a_recorder_goes_on_with_it() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let connection = Connection::open(&path).unwrap();
    // As one is left that was not closed, and read by somebody who may write since.
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2 / 4096 * 4096;
    bytes[half..half + 4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = open(&path, BOUNDS).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}
