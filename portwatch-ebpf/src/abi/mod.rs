//! The shared definitions, one idea a file.

pub mod config;
pub mod connecting;
pub mod layout;
pub mod record;
