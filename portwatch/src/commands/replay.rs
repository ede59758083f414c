//! `portwatch replay`: a recording, printed as it would have been printed then.

mod numeric;
mod stream;

use super::recording;
use crate::{cli::ReplayOptions, failure::Failure, report::Kept, sink, stderr::say};
use stream::Replayed;

/// Prints a recording; the value is the exit status.
///
/// # Errors
/// When it is none, or the output cannot be written.
pub fn run(options: &ReplayOptions) -> Result<u8, Failure> {
    let ReplayOptions {
        file,
        selection,
        count,
        args,
        output,
    } = options;
    let mut reader = recording::open(file, output)?;
    let kept = reader.kept().map_err(Failure::cannot_read)?;
    if let Some(words) = kept.and_then(Kept::words)
        && !output.quiet
    {
        say(format_args!("portwatch: {words}"));
    }
    let written = |error| Failure::from_write(error, &output.destination);
    let out = sink::reserve(&output.destination).map_err(Failure::from_open)?;
    let mut sink = sink::open(out, output, *args).map_err(written)?;
    let mut replayed = Replayed::new(selection, *count);
    while !replayed.is_full() {
        let items = reader.items().map_err(Failure::cannot_read)?;
        if items.is_empty() {
            break;
        }
        for item in items {
            if let Some(mut item) = replayed.take(item) {
                if output.numeric {
                    numeric::without_names(&mut item);
                }
                sink.take(item).map_err(written)?;
            }
        }
        sink.flush().map_err(written)?;
    }
    let is_whole = replayed.is_whole();
    if let Some(end) = replayed.end() {
        sink.take(end).map_err(written)?;
    }
    sink.close().map_err(written)?;
    if !is_whole && !output.quiet {
        say("portwatch: the recording has no end: its recorder is at work, or was killed");
    }
    Ok(0)
}
