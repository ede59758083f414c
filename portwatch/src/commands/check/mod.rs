//! `portwatch check`.

pub mod ask;
