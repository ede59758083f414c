//! Why a recording cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;
use thiserror::Error;

use super::columns::is_odd;
use crate::store::schema;

/// Why a recording cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be opened or created.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a symbolic link.
    #[error("{} is a symbolic link, which a recorder does not follow", path.display())]
    Link {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is no regular file", path.display())]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Somebody else made it.
    #[error("{} belongs to user {owner}, not to the one who records", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It has other names, in places where others may get at it.
    #[error("{} has more than one name (hard links)", path.display())]
    Links {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may write to it.
    #[error("{} can be written by others: its mode is {mode:o}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who may do what.
        mode: u32,
    },
    /// Something else is in it.
    #[error("{} is not a recording of portwatch, and is left as it is", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is empty.
    #[error("{} is empty: nothing was recorded in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Another process records in it.
    #[error("{} is being recorded to by {}", path.display(), pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Taken {
        /// The file.
        path: PathBuf,
        /// The other process, if that is known.
        pid: Option<u32>,
    },
    /// A newer portwatch has written it.
    #[error(
        "{} was written by a newer portwatch: its schema is {found}, and this one knows up to {}",
        path.display(),
        schema::version()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version of its schema.
        found: i32,
    },
    /// It was moved or removed while it was written.
    #[error("{} was moved or removed", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what.
        what: String,
    },
    /// SQLite refuses.
    #[error("cannot use {}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// What SQLite says of a file.
    pub(in crate::store) fn sql(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let code = source.sqlite_error().map(|error| error.extended_code);
        if code == Some(rusqlite::ffi::SQLITE_READONLY_DBMOVED) {
            return Self::Moved { path };
        }
        let is_broken = matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        if is_broken || is_odd(&source) {
            let what = source.to_string();
            return Self::Damaged { path, what };
        }
        Self::Sql { path, source }
    }

    /// What is to be done about it by someone who wants to record.
    #[must_use]
    pub fn hint_to_record(&self) -> Option<String> {
        Some(match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "make the directory, or name another file with -w FILE".to_owned()
            }
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it with sudo, or name another file with -w FILE".to_owned()
            }
            Self::Link { .. } => "name the file that it leads to".to_owned(),
            Self::Foreign { .. } | Self::NoFile { .. } => {
                "name another file; what does not exist is made".to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "chmod go-w {} if you trust what is in it, or record to another file with -w FILE",
                path.display()
            ),
            Self::Taken { pid: Some(pid), .. } => {
                format!("end it first (kill {pid}), or record to another file with -w FILE")
            }
            Self::Owner { .. } | Self::Links { .. } | Self::Taken { pid: None, .. } => {
                "record to another file with -w FILE".to_owned()
            }
            Self::Newer { .. } => "use that portwatch, or record to another file".to_owned(),
            Self::Moved { .. } => {
                "what was recorded is in it, wherever it is; start again to record to a new file"
                    .to_owned()
            }
            Self::Damaged { path, .. } => {
                format!("{}; record to another file with -w FILE", recovery(path))
            }
            Self::Sql { source, .. } => return read_only(source),
            Self::Open { .. } | Self::Empty { .. } => return None,
        })
    }

    /// What is to be done about it by someone who wants to read.
    #[must_use]
    pub fn hint_to_read(&self) -> Option<String> {
        Some(match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "portwatch record says where it records to; without -w FILE, root's recordings are \
                 in /var/lib/portwatch"
                    .to_owned()
            }
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it with sudo: only its owner may read a recording".to_owned()
            }
            Self::Foreign { .. } | Self::NoFile { .. } => {
                "name a file of portwatch record; portwatch report - reads the lines of trace -o json"
                    .to_owned()
            }
            Self::Newer { .. } => "read it with that portwatch".to_owned(),
            Self::Damaged { path, .. } => recovery(path),
            Self::Open { .. }
            | Self::Link { .. }
            | Self::Owner { .. }
            | Self::Links { .. }
            | Self::Exposed { .. }
            | Self::Empty { .. }
            | Self::Taken { .. }
            | Self::Moved { .. } => return None,
            Self::Sql { source, .. } => return read_only(source),
        })
    }
}

/// What helps where SQLite cannot put beside the file what it needs there.
fn read_only(source: &rusqlite::Error) -> Option<String> {
    let cannot = matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    );
    cannot.then(|| {
        "the file or its directory cannot be written, or what is beside it (-wal, -shm) cannot be used: run it \
         with sudo, or copy the file together with its -wal to another place"
            .to_owned()
    })
}

fn recovery(path: &Path) -> String {
    format!(
        "sqlite3 {} .recover prints what can be saved",
        path.display()
    )
}
