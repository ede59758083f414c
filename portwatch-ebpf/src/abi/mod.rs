//! The shared definitions, one idea a file.

pub mod calls;
pub mod churn;
pub mod config;
pub mod layout;
pub mod note;
pub mod record;
