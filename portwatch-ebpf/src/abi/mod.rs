//! The shared definitions, one idea a file.

pub mod record;
