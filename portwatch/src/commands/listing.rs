//! What `list` and `who` share: the look, its limits in words, and the output.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
};

use anyhow::Context as _;

use crate::{
    cli::{Format, OutputOptions},
    errno,
    event::{Listing, Missed, Time},
    failure::{Failure, Kind},
    sink::{
        self,
        text::listing::{Column, Look},
    },
    sockets::{
        listing::Lister,
        look::{Seen, look},
        scope::Scope,
        table::Row,
    },
    stderr::say,
};

/// Sockets that were found.
#[derive(Debug)]
pub(super) struct Found {
    /// With the names of those who have them.
    pub(super) listings: Vec<Listing>,
    now: Time,
    /// What was not seen, in words, for stderr.
    notes: Vec<String>,
    /// Why nothing can be said where nothing was found.
    blind: Option<Failure>,
}

/// Looks for the sockets of a scope that `keep` wants too.
///
/// # Errors
/// When the clocks cannot be read.
pub(super) fn find(
    scope: &Scope,
    keep: impl Fn(&Row) -> bool,
    options: &OutputOptions,
) -> Result<Found, Failure> {
    let late = |reason: &str| {
        let reason = errno::words(&reason);
        let text = "looking through the descriptors of all processes, which takes long";
        note(options, &format!("{text}: {reason}"));
    };
    let Seen {
        rows,
        left_out,
        missed,
        outside,
        closed,
        hidden: may_be_elsewhere,
        absent,
        images,
        without_iterator,
        may_hide,
        diag,
    } = look(scope, late);
    let mut notes = Vec::new();
    let mut blind = None;
    match (diag, &without_iterator) {
        (Err(error), Some(reason)) => {
            let words = errno::words(&error);
            notes.push(format!("sockets are missing: sock_diag: {words}"));
            let error = anyhow::Error::new(error).context("cannot ask the kernel for its sockets");
            let failure = Failure::new(Kind::Impossible, error);
            blind = Some(failure.hint(format!("nor by iterator: {reason}")));
        }
        (Err(error), None) => notes.push(format!(
            "sockets that no process has are missing, such as those in TIME_WAIT: sock_diag: {}",
            errno::words(&error)
        )),
        (Ok(()), _) => {}
    }
    if !absent.is_empty() && absent.len() == scope.netns.len() && blind.is_none() {
        blind = Some(no_way(&absent, may_be_elsewhere));
    }
    let rows: Vec<Row> = rows.into_iter().filter(|row| keep(row)).collect();
    let mut lister = Lister::new(options.numeric).context("cannot read the clocks")?;
    let now = lister.now().context("cannot read the clocks")?;
    let listings = lister
        .list(rows, &images, missed == Missed::Nothing && !outside)
        .context("cannot read the clocks")?;
    let hidden = listings.iter().filter(|one| one.is_hidden()).count();
    if hidden > 0 {
        notes.push(unknown_owners(hidden, missed));
    }
    if closed > 0 {
        notes.push(format!("{closed} network namespaces cannot be looked into"));
    }
    if may_be_elsewhere {
        notes.push("network namespaces may be missing: not every process shows its own".to_owned());
    }
    notes.extend(
        absent
            .iter()
            .map(|inode| format!("no way leads to a network namespace {inode}")),
    );
    if left_out > 0 {
        notes.push(format!("{left_out} sockets more than can be held"));
    }
    if let Some(reason) = without_iterator
        .as_deref()
        .map(|reason| errno::words(&reason))
    {
        if may_hide {
            notes.push(format!(
                "sockets that are bound and do not listen may be missing: {reason}"
            ));
        } else if options.verbosity > 0 {
            notes.push(format!("looked without the kernel's iterator: {reason}"));
        }
    }
    Ok(Found {
        listings,
        now,
        notes,
        blind,
    })
}

/// How they are to be printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) columns: &'static [Column],
    pub(super) header: bool,
}

impl Found {
    /// Prints them.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(super) fn print(&self, layout: Layout, options: &OutputOptions) -> Result<(), Failure> {
        let Layout { columns, header } = layout;
        write(options, |file, out| match options.format {
            Format::Json => sink::json::listing::write(&self.listings, self.now, true, out),
            Format::Text => {
                let look = Look {
                    width: sink::width(file),
                    color: sink::colored(options.color, file),
                    header: header && !options.quiet && !self.listings.is_empty(),
                    args: true,
                    now: self.now,
                    columns,
                };
                sink::text::listing::write(&self.listings, look, out)
            }
        })
    }

    /// Says `nothing` where what was meant was not found, and what was not seen. The value is the exit
    /// status.
    ///
    /// # Errors
    /// When nothing was found because the kernel tells nothing.
    pub(super) fn conclude(
        self,
        is_found: bool,
        nothing: &str,
        options: &OutputOptions,
    ) -> Result<u8, Failure> {
        if let Some(blind) = self.blind.filter(|_| !is_found) {
            return Err(blind);
        }
        if !is_found {
            note(options, nothing);
        }
        for text in &self.notes {
            note(options, text);
        }
        Ok(u8::from(!is_found))
    }
}

/// None of the namespaces that were asked for could be looked into. `hidden`: some processes do not show theirs.
fn no_way(absent: &[u32], hidden: bool) -> Failure {
    let inodes: Vec<_> = absent.iter().map(ToString::to_string).collect();
    let error = anyhow::anyhow!("no way leads into network namespace {}", inodes.join(", "));
    // Of root nothing more can be had.
    if hidden && !nix::unistd::geteuid().is_root() {
        return Failure::new(Kind::Impossible, error)
            .hint("not every process shows its own: run it with sudo");
    }
    Failure::new(Kind::Usage, error).hint("give the path of one of its processes, /proc/PID/ns/net")
}

/// What a pipe takes at a time (pipe(7)).
const CHUNK: usize = 64 << 10;

/// Has `make` write to the place it goes to.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(
    options: &OutputOptions,
    make: impl FnOnce(&File, &mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), Failure> {
    let file = sink::create(&options.destination).map_err(Failure::from_open)?;
    let mut out = BufWriter::with_capacity(CHUNK, &file);
    make(&file, &mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from_write(error, &options.destination))
}

/// Says something on stderr, unless that is not wanted.
pub(super) fn note(options: &OutputOptions, text: &str) {
    if !options.quiet {
        say(format_args!("portwatch: {text}"));
    }
}

/// Why there are sockets without owners: only what could not be read for want of permission is hidden.
fn unknown_owners(count: usize, missed: Missed) -> String {
    let why = match missed {
        Missed::Hidden => "are hidden from this user",
        Missed::Unread => "are not known: not every process could be read",
        // Or nobody has them any more: from inside that cannot be told.
        Missed::Nothing => "are not known: they may be outside this pid namespace",
    };
    format!("the owners of {count} of these sockets {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_is_what_may_not_be_read_and_nothing_else() {
        for (missed, is_hidden) in [
            (Missed::Hidden, true),
            (Missed::Unread, false),
            (Missed::Nothing, false),
        ] {
            let text = unknown_owners(3, missed);
            assert_eq!(text.contains("hidden"), is_hidden, "{text}");
            assert!(text.contains("of 3 of these"), "{text}");
        }
    }
}
