//! `portwatch record`: what happens, kept in a file.

mod service;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context as _;
use jiff::Timestamp;

use crate::{
    cli::{Destination, RecordOptions},
    failure::{Failure, Kind},
    host::kernel,
    sink::{Sink, escape::harmless},
    stderr::say,
    store::{
        database::{self, Opened, Reader, StoreError},
        keep::{Keep, Keeper},
        place::{self, Surroundings},
        sink::Store,
        writer::{Word, Writer},
    },
};

use super::live;
use service::{Service, Writing};

/// Records to the end; the value is the exit status.
///
/// # Errors
/// When it cannot start, or the recording cannot be written.
pub fn run(options: &RecordOptions) -> Result<u8, Failure> {
    let path = match &options.file {
        Some(path) => path.clone(),
        None => default_place()?,
    };
    let mut trace = options.trace.clone();
    trace.output.destination = Destination::File(path.clone());
    let writing = Writing::default();
    // Of a file name alone it is the empty path.
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    let place = directory.clone();
    let mut service = Service::new(Rc::clone(&writing), directory);
    live::run(&trace, &mut service, || {
        let mut prepared = Prepared::default();
        if options.file.is_none() {
            make(&place, &mut prepared.made)?;
        }
        let opened = database::open(&path, options.bounds).map_err(Failure::cannot_record)?;
        let opened = prepared.opened.insert(opened);
        let keeper = keeper(opened, options)?;
        Ok(move || store(prepared, keeper, options, &writing))
    })
}

/// A file in which nothing is recorded yet, and the directories that were made for it. A start that is refused
/// leaves none behind.
#[derive(Default)]
struct Prepared {
    opened: Option<Opened>,
    made: Vec<PathBuf>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.take() {
            opened.discard();
        }
        // From the innermost on; one in which somebody has put something stays.
        for directory in self.made.drain(..) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// What picks what is kept. It knows what was refused before this start, as far as the end of the file
/// tells: what resolves that is to be kept too.
fn keeper(opened: &Opened, options: &RecordOptions) -> Result<Keeper, Failure> {
    /// Rows of the end that are looked at: it takes a moment.
    const ROWS: i64 = 10_000;
    let mut keeper = Keeper::new(options.keep);
    if options.keep == Keep::All {
        return Ok(keeper);
    }
    let mut read = || -> Result<(), StoreError> {
        let mut reader = Reader::open(opened.database.path())?;
        reader.skip_to_last(ROWS)?;
        loop {
            let items = reader.items()?;
            if items.is_empty() {
                return Ok(());
            }
            keeper.learn(&items);
        }
    };
    read().map_err(Failure::cannot_record)?;
    Ok(keeper)
}

fn announce(opened: &Opened) {
    let path = opened.database.path().display();
    if let Some(version) = opened.upgraded {
        say(format_args!(
            "portwatch: {path} had schema {version} and was brought up to date"
        ));
    }
    say(format_args!("portwatch: recording to {path}"));
}

/// Begins, with every hook attached.
fn store(
    mut prepared: Prepared,
    keeper: Keeper,
    options: &RecordOptions,
    writing: &Writing,
) -> io::Result<Box<dyn Sink>> {
    let quiet = options.trace.output.quiet;
    prepared.made.clear();
    let opened = prepared.opened.take();
    let opened = opened.ok_or_else(|| io::Error::other("there is no file"))?;
    if !quiet {
        announce(&opened);
    }
    let Opened {
        mut database,
        encoder,
        ..
    } = opened;
    database.keeps(options.keep, options.trace.selection.is_narrow());
    let path = database.path().to_owned();
    let writer = Writer::start(database, move |word| tell(&path, quiet, &word))?;
    // There is one stream, so it is set once.
    writing.get_or_init(|| writer.pulse());
    Ok(Box::new(Store::new(keeper, encoder, writer)))
}

/// That nothing can be written is an error, and said in any case.
fn tell(path: &Path, quiet: bool, word: &Word) {
    let path = path.display();
    match word {
        Word::Stuck { why, by_reader } => {
            let what = match by_reader {
                true => "end that program",
                false => "make room",
            };
            say(format_args!(
                "portwatch: cannot write to {path}: {}\nhint: {what}: until then events are kept in memory, and \
                 those that do not fit are lost",
                harmless(why)
            ));
        }
        Word::Going if !quiet => say(format_args!("portwatch: writing to {path} again")),
        Word::Going => {}
    }
}

/// Makes the state directory, if need be. `made`: what was not there, from the innermost on.
fn make(directory: &Path, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let lacks = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let lacking = directory.ancestors().take_while(lacks);
    made.extend(lacking.map(Path::to_owned));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {}", directory.display()))
        .map_err(|error| Failure::new(Kind::Other, error).hint("name a file with -w FILE"))
}

/// A new file in the state directory.
fn default_place() -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let surroundings = Surroundings {
        state_directory: variable("STATE_DIRECTORY"),
        state_home: variable("XDG_STATE_HOME"),
        home: variable("HOME"),
        is_root: nix::unistd::geteuid().is_root(),
        host: kernel::host_name(),
    };
    let directory = place::directory(&surroundings).ok_or_else(|| {
        let error = anyhow::anyhow!("there is no state directory: HOME is not set");
        Failure::new(Kind::Usage, error).hint("name a file with -w FILE")
    })?;
    Ok(directory.join(place::name(&surroundings, Timestamp::now())))
}
