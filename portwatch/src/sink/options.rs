//! What can be asked of a sink.

use std::path::PathBuf;

use clap::{ColorChoice, ValueEnum};

/// How and where to print.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputOptions {
    /// Text or JSON.
    pub format: Format,
    /// Where data goes.
    pub destination: Destination,
    /// No names of services, users or hosts.
    pub numeric: bool,
    /// When to use colours.
    pub color: ColorChoice,
    /// No header, totals or notes.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbosity: u8,
}

/// Where data goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Standard error, while a COMMAND has standard output.
    Stderr,
    /// A file, overwritten.
    File(PathBuf),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people; the layout may change
    #[default]
    Text,
    /// JSON Lines, one object a line, for programs: the schema portwatch/1
    Json,
}
