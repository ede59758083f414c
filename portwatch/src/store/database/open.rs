//! A file to record in: made, or ours already.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Database, StoreError, uses::Pins};
use crate::store::{
    encode::{Encoder, Next},
    identity::{self, Header, Identity},
    lock::{self, Locked},
    retention::Bounds,
    row::{Entry, Id},
    schema,
};

/// A file that is ready to be written.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub database: Database,
    /// What turns a stream into its rows.
    pub encoder: Encoder,
    /// It was upgraded from that version of the schema.
    pub upgraded: Option<i32>,
    /// The device and inode of a file that was made for it.
    made: Option<(u64, u64)>,
}

impl Opened {
    /// Undoes it, as long as nothing was recorded: a file that was made for it goes, one that was there
    /// stays.
    pub fn discard(self) {
        let Self { database, made, .. } = self;
        let path = database.path().to_owned();
        // The rest, the lock among it, goes at the end: nobody else begins with this file meanwhile.
        let Database { connection, .. } = database;
        drop(connection);
        if let Some(made) = made {
            remove(&path, made);
        }
    }
}

/// Removes a file of ours, unless another has taken its name. There is nobody to tell if that fails.
fn remove(path: &Path, made: (u64, u64)) {
    if fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == made) {
        let _ = fs::remove_file(path);
        // SQLite removes them itself, unless the disk is full.
        for beside in beside(path) {
            let _ = fs::remove_file(beside);
        }
    }
}

/// How long a lock of SQLite's is waited for: readers hold one only for moments.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a file to record in, or makes it.
///
/// # Errors
/// When it is not ours, another process records in it, it is damaged or of a newer portwatch.
pub fn open(path: &Path, bounds: Bounds) -> Result<Opened, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    // SQLite follows no link either, not even to a directory, so it gets a path without any.
    let path = &whole(path).map_err(failed)?;
    let (file, is_new) = create(path)?;
    let metadata = file.metadata().map_err(failed)?;
    check_whose(path, &metadata)?;
    if let Locked::Taken(pid) = lock::lock(&file).map_err(failed)? {
        return Err(StoreError::Taken {
            path: path.clone(),
            pid,
        });
    }
    let made = is_new.then(|| (metadata.dev(), metadata.ino()));
    let ready = set_up(path, &file, &metadata).inspect_err(|_| {
        if let Some(made) = made {
            remove(path, made);
        }
    });
    let (connection, upgraded, (encoder, pins)) = ready?;
    let database = Database::new(connection, file, path.clone(), log_of(path), bounds, pins);
    Ok(Opened {
        database: database.map_err(|source| StoreError::sql(path, source))?,
        encoder,
        upgraded,
        made,
    })
}

/// Opens it, or makes it; the value is whether it is new.
fn create(path: &Path) -> Result<(File, bool), StoreError> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        // A pipe that nobody has open would keep us waiting.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let opened = match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            options.open(path).map(|file| (file, false))
        }
        made => made.map(|file| (file, true)),
    };
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ELOOP) => StoreError::Link {
            path: path.to_owned(),
        },
        Some(libc::EISDIR | libc::ENXIO) => StoreError::NoFile {
            path: path.to_owned(),
        },
        _ => StoreError::Open {
            path: path.to_owned(),
            source,
        },
    })
}

/// Who made a file can read and change what is recorded in it, and so can who has it under another name.
fn check_whose(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(StoreError::NoFile { path });
    }
    let owner = metadata.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(StoreError::Owner { path, owner });
    }
    if metadata.nlink() > 1 {
        return Err(StoreError::Links { path });
    }
    Ok(())
}

/// Nobody but its owner may write to it; to one in which nothing is yet, nobody else may do anything.
fn check_mode(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    is_empty: bool,
) -> Result<(), StoreError> {
    let mode = metadata.mode() & 0o777;
    if is_empty && mode & 0o077 != 0 {
        let own = Permissions::from_mode(0o600);
        return file
            .set_permissions(own)
            .map_err(|source| StoreError::Open {
                path: path.to_owned(),
                source,
            });
    }
    if mode & 0o022 != 0 {
        return Err(StoreError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// What a file that is locked becomes.
type Ready = (Connection, Option<i32>, (Encoder, Pins));

fn set_up(path: &Path, file: &File, metadata: &Metadata) -> Result<Ready, StoreError> {
    let has_log = fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0);
    let header = check_header(path, file, metadata.len(), has_log)?;
    check_mode(path, file, metadata, header.is_none())?;

    let sql = |source| StoreError::sql(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    let failed = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let opened = fs::symlink_metadata(path).map_err(failed)?;
    if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(failed(io::Error::other("it was replaced meanwhile")));
    }
    let upgraded = prepare(path, &mut connection)?;
    if has_log || header.is_some_and(|header| header.is_open) {
        check_all(path, &connection)?;
    }
    let remembered = remember(&connection).map_err(sql)?;
    Ok((connection, upgraded, remembered))
}

/// The path, with every link in its directories resolved and its last part as it is.
fn whole(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Ok(fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
}

/// What SQLite keeps beside a file: the write-ahead log, its index, and a journal while it changes from
/// one to the other (sqlite.org/tempfiles.html).
pub fn beside(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

/// The write-ahead log beside a file.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let [log, ..] = beside(path);
    log
}

/// Whether the file is ours, by its first bytes, before SQLite touches it.
pub(super) fn check_header(
    path: &Path,
    file: &File,
    length: u64,
    has_log: bool,
) -> Result<Option<Header>, StoreError> {
    let mut bytes = Vec::with_capacity(identity::HEADER);
    file.take(identity::HEADER as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source,
        })?;
    match identity::of(&bytes) {
        Identity::Empty => Ok(None),
        Identity::Own(header) if header.version < 0 => Err(StoreError::Damaged {
            path: path.to_owned(),
            what: format!("there is no schema {}", header.version),
        }),
        Identity::Own(header) if header.version > schema::version() => Err(StoreError::Newer {
            path: path.to_owned(),
            found: header.version,
        }),
        // What the log still has to add may be what is missing.
        Identity::Own(header) if length < header.length && !has_log => Err(StoreError::Damaged {
            path: path.to_owned(),
            what: format!("it has {length} bytes of {}", header.length),
        }),
        Identity::Own(header) => Ok(Some(header)),
        Identity::Database | Identity::Foreign => Err(StoreError::Foreign {
            path: path.to_owned(),
        }),
    }
}

/// Sets SQLite up and brings the schema up to date; the value is the version it had.
fn prepare(path: &Path, connection: &mut Connection) -> Result<Option<i32>, StoreError> {
    let sql = |source| StoreError::sql(path, source);
    connection.busy_timeout(PATIENCE).map_err(sql)?;
    settings(connection).map_err(sql)?;
    let found: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(sql)?;
    if found > schema::version() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    upgrade(connection, found, schema::STEPS).map_err(sql)?;
    // The log, so that readers and the recorder do not wait for each other.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(sql)?;
    if mode != "wal" {
        return Err(StoreError::Open {
            path: path.to_owned(),
            source: io::Error::other("its file system does not do for SQLite's log (WAL)"),
        });
    }
    Ok((found != 0 && found < schema::version()).then_some(found))
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // So that pages which nothing is on can be given back. Only a file without tables takes it.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // After the end of the process everything is there, after that of the machine all but the last.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // `write` says when, so that the log has a bound.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // They tell a reader what belongs together. To have them checked would take an index of each.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // A page that is not what it should be is found before it does harm.
    connection.pragma_update(None, "cell_size_check", true)
}

/// Takes the steps that are left, all of them or none.
pub(super) fn upgrade(
    connection: &mut Connection,
    found: i32,
    steps: &[&str],
) -> rusqlite::Result<()> {
    let done = usize::try_from(found).unwrap_or_default();
    let Some(left) = steps.get(done..).filter(|left| !left.is_empty()) else {
        return Ok(());
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for view in schema::VIEW_NAMES {
        transaction.execute_batch(&format!("DROP VIEW IF EXISTS {view}"))?;
    }
    for step in left {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(schema::VIEWS)?;
    transaction.pragma_update(None, "application_id", identity::APPLICATION)?;
    transaction.pragma_update(None, "user_version", steps.len())?;
    transaction.commit()
}

/// Looks at every page of a file whose recorder did not end by itself.
fn check_all(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| StoreError::sql(path, source))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        what: found.lines().last().unwrap_or_default().to_owned(),
    })
}

/// What an encoder has to know of a file: where numbers go on, and the rows that were written last.
fn remember(connection: &Connection) -> rusqlite::Result<(Encoder, Pins)> {
    use super::columns::{call, member, program};

    // Left behind by a recorder that was killed: it had remembered them, and nothing refers to them.
    connection.execute_batch(
        "UPDATE program SET uses = uses - (SELECT count(*) FROM process
                                            WHERE process.uses <= 0 AND process.program = program.id)
          WHERE id IN (SELECT program FROM process WHERE uses <= 0);
         DELETE FROM process WHERE uses <= 0;
         DELETE FROM program WHERE uses <= 0;
         DELETE FROM call WHERE uses <= 0;",
    )?;
    let next = |table: &str, key: &str| {
        let query = format!("SELECT coalesce(max({key}), 0) + 1 FROM {table}");
        connection.query_row(&query, [], |row| row.get::<_, Id>(0))
    };
    let mut encoder = Encoder::new(Next {
        seq: next("event", "seq")?.max(next("note", "seq")?),
        call: next("call", "id")?,
        program: next("program", "id")?,
        process: next("process", "id")?,
    });
    let mut pins = Pins::default();
    let mut learn =
        |table: &str,
         count: usize,
         entry: &dyn Fn(Id, &rusqlite::Row<'_>) -> rusqlite::Result<Entry>| {
            let query = format!(
                "SELECT * FROM (SELECT * FROM {table} ORDER BY id DESC LIMIT {count}) ORDER BY id"
            );
            let mut statement = connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let entry = entry(row.get("id")?, row)?;
                pins.note(&entry);
                encoder.learn(entry);
            }
            Ok::<_, rusqlite::Error>(())
        };
    learn("call", crate::store::encode::CALLS.get(), &|id, row| {
        Ok(Entry::Call(id, Box::new(call(row)?)))
    })?;
    learn(
        "program",
        crate::store::encode::PROGRAMS.get(),
        &|id, row| Ok(Entry::Program(id, program(row)?)),
    )?;
    learn(
        "process",
        crate::store::encode::PROCESSES.get(),
        &|id, row| Ok(Entry::Member(id, Box::new(member(row)?))),
    )?;
    Ok((encoder, pins))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{failure::Failure, sink::escape::is_harmful, store::database::Reader};

    const BOUNDS: Bounds = Bounds {
        size: 64 << 20,
        age: None,
    };

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pwdb");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_empty_file_that_was_open_to_all_is_ours_alone() {
        let (_folder, path) = folder();
        File::create(&path).unwrap();
        set_mode(&path, 0o666);
        open(&path, BOUNDS).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_recording_that_others_can_change_is_not_continued() {
        let (_folder, path) = folder();
        open(&path, BOUNDS).unwrap();
        for exposed in [0o620, 0o602] {
            set_mode(&path, exposed);
            let error = open(&path, BOUNDS).unwrap_err();
            assert!(
                matches!(error, StoreError::Exposed { mode, .. } if mode == exposed),
                "{error}"
            );
            assert!(error.hint_to_record().unwrap().contains("chmod go-w "));
        }
        // That others may read it is a choice.
        set_mode(&path, 0o644);
        open(&path, BOUNDS).unwrap();
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn a_file_with_a_second_name_is_refused() {
        let (folder, path) = folder();
        File::create(&path).unwrap();
        fs::hard_link(&path, folder.path().join("b")).unwrap();
        let error = open(&path, BOUNDS).unwrap_err();
        assert!(matches!(error, StoreError::Links { .. }), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let (_folder, path) = folder();
        File::create(&path).unwrap();
        if let Err(error) = std::os::unix::fs::chown(&path, Some(65534), None) {
            println!("skip: cannot give a file away: {error}");
            return;
        }
        let error = open(&path, BOUNDS).unwrap_err();
        assert!(
            matches!(error, StoreError::Owner { owner: 65534, .. }),
            "{error}"
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_start_that_comes_to_nothing_leaves_no_file_that_it_made() {
        let (folder, path) = folder();
        open(&path, BOUNDS).unwrap().discard();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        drop(open(&path, BOUNDS).unwrap());
        open(&path, BOUNDS).unwrap().discard();
        assert!(path.exists(), "it was there before");
        // What came in its place is not ours.
        fs::remove_file(&path).unwrap();
        let opened = open(&path, BOUNDS).unwrap();
        fs::rename(&path, folder.path().join("b")).unwrap();
        fs::write(&path, "a diary").unwrap();
        opened.discard();
        assert_eq!(fs::read(&path).unwrap(), b"a diary");
    }

    #[test]
    fn what_a_file_says_of_itself_does_nothing_to_a_terminal() {
        let (_folder, path) = folder();
        drop(open(&path, BOUNDS).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA writable_schema = ON;
                 INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql)
                 VALUES ('table', char(27) || ']0;x' || char(7), 'x', 99999, 'CREATE TABLE x (y)');",
            )
            .unwrap();
        drop(connection);
        let error = Reader::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let line = Failure::cannot_read(error).line();
        assert!(line.contains("\\x1b]0;x\\x07"), "{line}");
        assert!(!line.chars().any(is_harmful), "{line}");
    }
}
