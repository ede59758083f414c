//! One file a verb.

pub mod check;
pub mod completions;
pub mod doctor;
pub mod man;
pub mod trace;
pub mod who;
