//! What `replay` and `report` share: a recording that is read, and has to survive that.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    cli::{Destination, OutputOptions},
    failure::{Failure, Kind},
    stderr::say,
    store::database::{self, Reader},
};

/// Opens a recording of which something is printed.
///
/// # Errors
/// When it is none, or would be overwritten.
pub(super) fn open(path: &Path, output: &OutputOptions) -> Result<Reader, Failure> {
    let OutputOptions {
        destination, quiet, ..
    } = output;
    refuse_overwriting(path, destination)?;
    let reader = Reader::open(path).map_err(Failure::cannot_read)?;
    if reader.is_cut() && !quiet {
        let path = path.display();
        say(format_args!(
            "portwatch: {path} was not closed, and its log ({path}-wal) is not there: what came last may be missing\n\
             hint: copy them together, or sqlite3 {path} \".backup COPY\" while it is written"
        ));
    }
    Ok(reader)
}

/// A recording, and what SQLite keeps beside it, is not overwritten by what is in it.
fn refuse_overwriting(recording: &Path, destination: &Destination) -> Result<(), Failure> {
    let Destination::File(path) = destination else {
        return Ok(());
    };
    // What there is not is told by whoever opens it.
    let Ok(recording) = fs::canonicalize(recording) else {
        return Ok(());
    };
    let what = if is_same(path, &recording) {
        "the recording itself"
    } else if database::beside(&recording)
        .iter()
        .any(|beside| is_same(path, beside))
    {
        "a part of the recording"
    } else {
        return Ok(());
    };
    let error = anyhow::anyhow!("{} is {what}", path.display());
    Err(Failure::new(Kind::Usage, error).hint("name another file with -w FILE"))
}

/// The lines that are read are not overwritten by what is in them.
///
/// # Errors
/// The destination is what standard input is.
pub(super) fn refuse_overwriting_stdin(destination: &Destination) -> Result<(), Failure> {
    let Destination::File(path) = destination else {
        return Ok(());
    };
    let identity =
        |metadata: fs::Metadata| metadata.is_file().then(|| (metadata.dev(), metadata.ino()));
    let input = fs::metadata("/dev/stdin").ok().and_then(identity);
    if input.is_none() || input != fs::metadata(path).ok().and_then(identity) {
        return Ok(());
    }
    let error = anyhow::anyhow!("{} is what standard input reads", path.display());
    Err(Failure::new(Kind::Usage, error).hint("name another file with -w FILE"))
}

/// Whether two paths are one file, be it there or still to be made.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (Err(_), Err(_)) => whole(one).is_some_and(|one| whole(other) == Some(one)),
        _ => false,
    }
}

/// The path of what is not there, without links on the way.
fn whole(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let parent = path.parent().map_or(OsStr::new(""), Path::as_os_str);
    let parent = if parent.is_empty() {
        OsStr::new(".")
    } else {
        parent
    };
    Some(fs::canonicalize(parent).ok()?.join(name))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn no_part_of_a_recording_is_overwritten_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let recording = at("a.pwdb");
        fs::write(&recording, "").unwrap();
        fs::write(at("a.pwdb-wal"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        std::os::unix::fs::symlink(&recording, at("link")).unwrap();
        std::os::unix::fs::symlink(at("a.pwdb-wal"), at("link of the log")).unwrap();
        std::os::unix::fs::symlink(folder.path(), at("here")).unwrap();
        let refused = |from: &str, to: &str| {
            refuse_overwriting(&at(from), &Destination::File(at(to)))
                .err()
                .map(|failure| failure.code())
        };
        for to in [
            "a.pwdb",
            "link",
            "here/a.pwdb",
            "a.pwdb-wal",
            "link of the log",
            // Not there yet: SQLite would take it for its own.
            "a.pwdb-shm",
            "here/a.pwdb-shm",
            "a.pwdb-journal",
        ] {
            assert_eq!(refused("a.pwdb", to), Some(2), "{to}");
            assert_eq!(refused("link", to), Some(2), "{to}");
        }
        for to in ["other", "new", "here/new", "nowhere/new", "link-wal"] {
            assert_eq!(refused("a.pwdb", to), None, "{to}");
        }
        assert_eq!(refused("nothing", "nothing"), None);
    }
}
