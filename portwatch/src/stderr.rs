//! Standard error: whoever read it may be gone, which is no reason to stop, let alone to panic as
//! `eprintln!` does.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Prints a line.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
