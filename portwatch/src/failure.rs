//! Why a command failed, as the user is told: what was tried, why it did not work, what to do next,
//! and the exit status.

use std::io;

use crate::{
    cli::Destination,
    host::privilege::Privileges,
    load::LoadError,
    plan::{Facts, PlanError},
    sink::OpenError,
};

/// The kinds of failure, which are exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2
    Usage,
    /// 3: not permitted, or not possible on this kernel
    Impossible,
    /// 4
    Other,
}

/// A failure.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            kind,
            error: error.into(),
            hints: Vec::new(),
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// No way into the kernel works: names the privileges that are missing, if that is why.
    #[must_use]
    pub fn no_way_in(error: PlanError, facts: &Facts) -> Self {
        let mut failure = Self::new(Kind::Impossible, error);
        failure.error = failure.error.context("cannot trace on this machine");
        let obstacles = Privileges::read().map_or_else(Vec::new, |own| own.obstacles());
        failure.hints.extend(obstacles);
        if failure.hints.is_empty() {
            failure
                .hints
                .push("portwatch doctor shows every hook and field with its status".to_owned());
        }
        let _ = facts;
        failure
    }

    /// The destination cannot be opened.
    #[must_use]
    pub fn from_open(error: OpenError) -> Self {
        Self::new(Kind::Other, error)
    }

    /// The output cannot be written.
    #[must_use]
    pub fn from_write(error: io::Error, destination: &Destination) -> Self {
        let full = error.kind() == io::ErrorKind::StorageFull;
        let error = anyhow::Error::from(error);
        let error = match destination {
            Destination::File(path) => error.context(format!("cannot write to {}", path.display())),
            Destination::Stdout | Destination::Stderr => error.context("cannot write the output"),
        };
        let failure = Self::new(Kind::Other, error);
        if full {
            failure.hint("make room, or choose another place with -w FILE")
        } else {
            failure
        }
    }

    /// Whether the reader of the output went away.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Impossible => 3,
            Kind::Other => 4,
        }
    }

    /// Prints it.
    pub fn report(&self) {
        eprintln!("portwatch: {:#}", self.error);
        for hint in &self.hints {
            eprintln!("hint: {hint}");
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Kind::Other, error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::new(Kind::Impossible, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_file_that_did_not_fit() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::from_write(full(), &Destination::File("/mnt/trace.json".into()));
        assert_eq!(failure.code(), 4);
        let text = format!("{:#}", failure.error);
        assert!(
            text.starts_with("cannot write to /mnt/trace.json: "),
            "{text}"
        );
        assert_eq!(failure.hints.len(), 1);
        let text = format!(
            "{:#}",
            Failure::from_write(full(), &Destination::Stdout).error
        );
        assert!(text.starts_with("cannot write the output: "), "{text}");
    }
}
