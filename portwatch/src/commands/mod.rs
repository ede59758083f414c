//! One file a verb.

pub mod check;
pub mod check_range;
pub mod churn;
pub mod completions;
pub mod doctor;
pub mod list;
mod listing;
mod live;
pub mod man;
pub mod record;
mod recording;
pub mod replay;
pub mod report;
mod target;
pub mod trace;
pub mod who;
