//! `portwatch churn`: every port that is taken, parked and given back is counted, to the last one.

mod exhausted;
mod many;
mod nat;
mod programs;
mod screen;
mod search;
mod totals;
mod usage;
pub(super) mod watched;

use super::Session;

/// The sessions of all parts.
pub(super) fn all() -> impl Iterator<Item = Session> {
    [
        totals::ALL,
        exhausted::ALL,
        search::ALL,
        usage::ALL,
        screen::ALL,
        nat::ALL,
        programs::ALL,
        many::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}
