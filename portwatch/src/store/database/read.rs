//! Items out of a file, while it may be written: in pieces, so that no reader keeps the log from being
//! emptied.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use rusqlite::{Connection, OpenFlags, Row as SqlRow, Transaction};

use super::{
    StoreError,
    columns::{self, address, time},
    open::{check_header, log_of},
};
use crate::{
    event::{Item, Kind, Occupant},
    source::json::own_word,
    store::{
        decode,
        row::{Call, Cause, Detail, Id, Note, Program, Row},
        schema,
    },
};

/// A recording that is read.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
    pub(super) known: Known,
    pub(super) path: PathBuf,
    /// Up to here it was read.
    pub(super) after: Id,
    /// Of its schema: an older one is read as it is.
    pub(super) version: i32,
    /// It was not closed, and there is no log beside it.
    is_cut: bool,
}

/// Rows that others refer to, of those that were read last.
#[derive(Debug)]
pub(super) struct Known {
    calls: LruCache<Id, Arc<Call>>,
    programs: LruCache<Id, Program>,
    people: LruCache<Id, Occupant>,
}

const KNOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Rows of a piece.
const PIECE: usize = 1000;
/// How long a lock of SQLite's is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes wrong in a piece.
pub(super) enum Trouble {
    Sql(rusqlite::Error),
    /// A row, and what of it.
    Row(Id, String),
}

impl Trouble {
    pub(super) fn row(seq: Id, wrong: &dyn std::fmt::Display) -> Self {
        Self::Row(seq, wrong.to_string())
    }

    pub(super) fn of(self, path: &Path) -> StoreError {
        match self {
            Self::Row(seq, what) => StoreError::Damaged {
                path: path.to_owned(),
                what: format!("row {seq}: {what}"),
            },
            Self::Sql(error) => StoreError::sql(path, error),
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Reader {
    /// Opens a recording.
    ///
    /// # Errors
    /// When it is none, damaged, or of another version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .read(true)
            // A pipe that nobody writes to would keep us waiting.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ENXIO) => StoreError::NoFile {
                    path: path.to_owned(),
                },
                _ => failed(source),
            })?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(StoreError::NoFile {
                path: path.to_owned(),
            });
        }
        let has_log = fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0);
        let header = check_header(path, &file, metadata.len(), has_log)?;
        if header.is_none() && !has_log {
            return Err(StoreError::Empty {
                path: path.to_owned(),
            });
        }
        // An empty one is that of a recorder at work.
        let is_cut = !log_of(path).exists() && header.is_some_and(|header| header.is_open);
        drop(file);
        let sql = |source| StoreError::sql(path, source);
        let connection = connect(path).map_err(sql)?;
        let found: i32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(sql)?;
        let path = path.to_owned();
        if found == 0 {
            return Err(StoreError::Empty { path });
        }
        if found > schema::version() {
            return Err(StoreError::Newer { path, found });
        }
        Ok(Self {
            connection,
            known: Known {
                calls: LruCache::new(KNOWN),
                programs: LruCache::new(KNOWN),
                people: LruCache::new(KNOWN),
            },
            path,
            after: 0,
            version: found,
            is_cut,
        })
    }

    /// Whether what came last may be missing: its recorder has not closed it, and the log that belongs to
    /// it is not there. One that was killed leaves its log; a copy of the file alone has none.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Leaves out all but so many rows at the end.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn skip_to_last(&mut self, rows: Id) -> Result<(), StoreError> {
        let query = "SELECT coalesce(max(seq), 0) FROM event";
        let last: Id = self
            .connection
            .query_row(query, [], |row| row.get(0))
            .map_err(|source| StoreError::sql(&self.path, source))?;
        self.after = self.after.max(last - rows);
        Ok(())
    }

    /// The next items, in their order; none at the end.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn items(&mut self) -> Result<Vec<Item>, StoreError> {
        let Self {
            connection,
            known,
            path,
            after,
            version: _, // the same in all of them
            is_cut: _,
        } = self;
        let piece = connection
            .transaction()
            .map_err(Trouble::from)
            .and_then(|transaction| known.piece(&transaction, *after));
        match piece {
            Ok(items) => {
                *after = items.last().map_or(*after, |(seq, _)| *seq);
                Ok(items.into_iter().map(|(_, item)| item).collect())
            }
            Err(trouble) => Err(trouble.of(path)),
        }
    }
}

/// Opens it to read. A file that is not being written, in a place where nothing may be written, has
/// to be taken as it is: SQLite would have to put its log beside it.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let first = Connection::open_with_flags(path, flags)?;
    first.busy_timeout(PATIENCE)?;
    first.pragma_update(None, "cell_size_check", true)?;
    let reads = first.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let is_closed = reads
        .as_ref()
        .is_err_and(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen));
    if !is_closed || fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
        return reads.map(|()| first);
    }
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}

impl Known {
    /// Items behind `after`, in their order.
    fn piece(
        &mut self,
        transaction: &Transaction<'_>,
        after: Id,
    ) -> Result<Vec<(Id, Item)>, Trouble> {
        let mut events = Vec::new();
        {
            let mut statement = transaction.prepare_cached(
                "SELECT event.*, conflict.kind, conflict.detail AS conflict, warning.detail AS warning
                   FROM event
                   LEFT JOIN conflict ON conflict.seq = event.seq
                   LEFT JOIN warning ON warning.seq = event.seq
                  WHERE event.seq > ?1 ORDER BY event.seq LIMIT ?2",
            )?;
            let mut rows = statement.query((after, PIECE))?;
            while let Some(row) = rows.next()? {
                events.push(self::row(row)?);
            }
        }
        let mut notes = Vec::new();
        {
            let mut statement = transaction
                .prepare_cached("SELECT * FROM note WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = statement.query((after, PIECE))?;
            while let Some(row) = rows.next()? {
                notes.push(note(row)?);
            }
        }
        // Beyond the end of a list that was cut nothing is known of its kind.
        let reach = |length: usize, last: Option<Id>| last.filter(|_| length == PIECE);
        let last = reach(events.len(), events.last().map(|row| row.seq))
            .into_iter()
            .chain(reach(notes.len(), notes.last().map(|note| note.seq)))
            .min()
            .unwrap_or(Id::MAX);
        let mut items = Vec::with_capacity(events.len() + notes.len());
        for note in notes.into_iter().take_while(|note| note.seq <= last) {
            let item = decode::note(&note);
            items.push((
                note.seq,
                item.map_err(|wrong| Trouble::row(note.seq, &wrong))?,
            ));
        }
        for row in events.into_iter().take_while(|row| row.seq <= last) {
            let seq = row.seq;
            items.push((seq, self.item(transaction, row)?));
        }
        items.sort_by_key(|(seq, _)| *seq);
        Ok(items)
    }

    fn item(&mut self, transaction: &Transaction<'_>, row: Row) -> Result<Item, Trouble> {
        let seq = row.seq;
        let absent = |table| Trouble::row(seq, &format_args!("its {table} is missing"));
        let call = self
            .call(transaction, row.call)?
            .ok_or_else(|| absent("call"))?;
        let caller = self
            .occupant(transaction, row.process)?
            .ok_or_else(|| absent("process"))?;
        let mut failed = None;
        let mut people = |id| match self.occupant(transaction, id) {
            Ok(found) => found,
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let sighting = decode::sighting(row, &call, caller, &mut people);
        if let Some(error) = failed {
            return Err(error.into());
        }
        let sighting = sighting.map_err(|wrong| Trouble::row(seq, &wrong))?;
        Ok(Item::Event(Box::new(sighting)))
    }

    pub(super) fn call(
        &mut self,
        transaction: &Transaction<'_>,
        id: Id,
    ) -> rusqlite::Result<Option<Arc<Call>>> {
        if let Some(call) = self.calls.get(&id) {
            return Ok(Some(Arc::clone(call)));
        }
        let found = one(
            transaction,
            "SELECT * FROM call WHERE id = ?1",
            id,
            columns::call,
        )?;
        Ok(found.map(|call| {
            let call = Arc::new(call);
            self.calls.put(id, Arc::clone(&call));
            call
        }))
    }

    pub(super) fn occupant(
        &mut self,
        transaction: &Transaction<'_>,
        id: Id,
    ) -> rusqlite::Result<Option<Occupant>> {
        if let Some(occupant) = self.people.get(&id) {
            return Ok(Some(occupant.clone()));
        }
        let query = "SELECT * FROM process WHERE id = ?1";
        let Some(member) = one(transaction, query, id, columns::member)? else {
            return Ok(None);
        };
        let number = member.program;
        if !self.programs.contains(&number) {
            let query = "SELECT * FROM program WHERE id = ?1";
            let Some(program) = one(transaction, query, number, columns::program)? else {
                return Ok(None);
            };
            self.programs.put(number, program);
        }
        Ok(self.programs.get(&number).map(|program| {
            let occupant = decode::occupant(member, program);
            self.people.put(id, occupant.clone());
            occupant
        }))
    }
}

fn one<T>(
    transaction: &Transaction<'_>,
    query: &str,
    id: Id,
    read: impl FnOnce(&SqlRow<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    let mut statement = transaction.prepare_cached(query)?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(read).transpose()
}

fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let boot: i64 = row.get("time_boot")?;
    let unsigned = |column| {
        let number: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(number.map(i64::cast_unsigned))
    };
    let detail = |column| {
        let json: Option<String> = row.get(column)?;
        // Which processes it names it says itself.
        let processes = Vec::new();
        Ok::<_, rusqlite::Error>(json.map(|json| Detail { json, processes }))
    };
    // What questions begin with stands in the detail too.
    let cause = Cause {
        kind: Kind::Unknown,
        overlap: None,
        reason: None,
        holder: None,
    };
    Ok(Row {
        seq: row.get("seq")?,
        utc: time(row.get("time")?),
        boot: boot.cast_unsigned(),
        call: row.get("call")?,
        process: row.get("process")?,
        thread: row.get("thread")?,
        duration: unsigned("duration")?,
        port: row.get("port")?,
        peer: address(row, "peer_address")?,
        peer_port: row.get("peer_port")?,
        cookie: unsigned("cookie")?,
        inode: unsigned("inode")?,
        conflict: detail("conflict")?.map(|detail| Box::new((cause, detail))),
        warning: detail("warning")?.map(Box::new),
    })
}

pub(super) fn note(row: &SqlRow<'_>) -> rusqlite::Result<Note> {
    let boot: i64 = row.get("time_boot")?;
    Ok(Note {
        seq: row.get("seq")?,
        utc: time(row.get("time")?),
        boot: boot.cast_unsigned(),
        name: own_word(row.get_ref("event")?.as_str()?).unwrap_or_default(),
        json: row.get("detail")?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = folder.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [pipe, socket, folder.path().to_owned()] {
            let (tell, told) = mpsc::channel();
            std::thread::spawn(move || tell.send(Reader::open(&path).map(drop)));
            let read = told.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(matches!(read, Err(StoreError::NoFile { .. })), "{read:?}");
        }
    }
}
