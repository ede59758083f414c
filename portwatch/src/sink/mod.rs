//! The outputs. A sink knows items, not where they come from.
//!
//! Sinks collect what is printed and hand it on when they are flushed, once for each batch that
//! the source had, so that an event costs no system call. None allocates for an event.

pub mod escape;
pub mod json;
pub mod text;

mod clock;
mod digits;
mod file;
mod kept;
mod options;
mod pending;
#[cfg(test)]
pub(crate) mod schema;

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anstream::AutoStream;
use clap::ColorChoice;
use jiff::tz::TimeZone;
use thiserror::Error;

pub use options::{Destination, Format, OutputOptions};

use crate::event::Item;
use json::Json;
use text::{Text, TextOptions};

/// Something that prints a stream.
pub trait Sink {
    /// Takes the next item of the stream.
    ///
    /// # Errors
    ///
    /// When what was collected cannot be written; [`io::ErrorKind::BrokenPipe`] when nobody reads
    /// any more.
    fn item(&mut self, item: &Item) -> io::Result<()>;

    /// As [`Sink::item`], of an item that nobody else needs.
    ///
    /// # Errors
    ///
    /// As [`Sink::item`].
    fn take(&mut self, item: Item) -> io::Result<()> {
        self.item(&item)
    }

    /// Writes everything that was collected.
    ///
    /// # Errors
    ///
    /// As [`Sink::item`].
    fn flush(&mut self) -> io::Result<()>;

    /// As [`Sink::flush`], after the last item.
    ///
    /// # Errors
    ///
    /// As [`Sink::item`].
    fn close(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Why a sink could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file of `-w`.
    #[error("cannot write to {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A standard stream.
    #[error("cannot write to {stream}")]
    Stream {
        /// Which.
        stream: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The sink that the options ask for, printing to `out`, which [`reserve`] has opened. A file is
/// emptied. `args`: whether arguments of processes are shown.
///
/// # Errors
///
/// When a file cannot be emptied.
pub fn open(out: File, options: &OutputOptions, args: bool) -> io::Result<Box<dyn Sink>> {
    let OutputOptions {
        format,
        destination,
        numeric: _, // enrich looks no names up
        color,
        quiet,
        verbosity: _,
    } = options;
    empty(&out, destination)?;
    Ok(match format {
        Format::Json => Box::new(Json::new(out, args)),
        Format::Text => {
            let options = TextOptions {
                width: width(&out),
                color: colored(*color, &out),
                args,
                quiet: *quiet,
                zone: TimeZone::system(),
            };
            Box::new(Text::new(out, io::stderr(), options))
        }
    })
}

/// Opens where data goes and leaves what is there: a command that then cannot start has destroyed
/// nothing.
///
/// # Errors
///
/// When a file cannot be opened for writing or created.
pub fn reserve(destination: &Destination) -> Result<File, OpenError> {
    // A file of our own on the same open file: std's handles search every write for newlines.
    match destination {
        Destination::Stdout => duplicate(io::stdout(), "standard output"),
        Destination::Stderr => duplicate(io::stderr(), "standard error"),
        Destination::File(path) => file::open(path).map_err(|source| cannot_write(path, source)),
    }
}

/// Opens where data goes, for writing from the start.
///
/// # Errors
///
/// When a file cannot be created or emptied.
pub fn create(destination: &Destination) -> Result<File, OpenError> {
    let out = reserve(destination)?;
    match (empty(&out, destination), destination) {
        (Err(source), Destination::File(path)) => Err(cannot_write(path, source)),
        _ => Ok(out),
    }
}

/// Empties a file that was named. Devices and pipes have nothing to lose and refuse it
/// (ftruncate(2)).
fn empty(out: &File, destination: &Destination) -> io::Result<()> {
    match destination {
        Destination::File(_) if out.metadata()?.is_file() => out.set_len(0),
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, source: io::Error) -> OpenError {
    OpenError::File {
        path: path.to_owned(),
        source,
    }
}

fn duplicate(stream: impl AsFd, name: &'static str) -> Result<File, OpenError> {
    stream
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|source| OpenError::Stream {
            stream: name,
            source,
        })
}

/// Columns of the terminal that `out` is, `None` if it is none.
#[must_use]
pub fn width(out: &File) -> Option<usize> {
    if !out.is_terminal() {
        return None;
    }
    // A terminal that does not know its size (0 × 0, serial lines) is taken for the usual one.
    Some(match terminal_size::terminal_size_of(out) {
        Some((terminal_size::Width(width), _)) if width > 0 => usize::from(width),
        _ => 80,
    })
}

/// Columns and lines of the terminal that `out` is, `None` if it is none.
#[must_use]
pub fn size(out: &File) -> Option<(usize, usize)> {
    let width = width(out)?;
    let height = match terminal_size::terminal_size_of(out) {
        Some((_, terminal_size::Height(height))) if height > 0 => usize::from(height),
        _ => 24,
    };
    Some((width, height))
}

/// Whether to use colours on `out`.
#[must_use]
pub fn colored(choice: ColorChoice, out: &File) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // NO_COLOR, CLICOLOR_FORCE, TERM=dumb and whether it is a terminal.
        ColorChoice::Auto => AutoStream::choice(out) != anstream::ColorChoice::Never,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    fn options(format: Format, path: PathBuf) -> OutputOptions {
        OutputOptions {
            format,
            destination: Destination::File(path),
            numeric: false,
            color: ColorChoice::Auto,
            quiet: true,
            verbosity: 0,
        }
    }

    #[test]
    fn a_file_is_overwritten_with_uncoloured_uncut_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for (format, part) in [
            (Format::Json, "{\"schema\":\"portwatch/1\",\"seq\":1,"),
            (Format::Text, " BIND     tcp   0.0.0.0:8080"),
        ] {
            std::fs::write(&path, "previous").unwrap();
            let options = options(format, path.clone());
            let out = reserve(&options.destination).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                "previous",
                "it is emptied when there is something to write"
            );
            let mut sink = open(out, &options, true).unwrap();
            for item in crate::sample::stream() {
                sink.item(&item).unwrap();
            }
            sink.flush().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("previous") && !text.contains('\x1b'));
            assert!(text.contains("service-with-a-long-name.jar"), "{text}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_emptied() {
        let options = options(Format::Json, "/dev/null".into());
        let out = create(&options.destination).unwrap();
        let mut sink = open(out, &options, true).unwrap();
        sink.item(&crate::sample::end(0, 0, 0)).unwrap();
        sink.flush().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_created_is_named() {
        let path = PathBuf::from("/no/such/folder/out");
        let error = reserve(&Destination::File(path)).unwrap_err();
        assert_eq!(error.to_string(), "cannot write to /no/such/folder/out");
        assert!(std::error::Error::source(&error).is_some());
    }
}
