//! What happened, in one line.

use super::{Case, exhausted, held, not_local, phrase::harmless, policy, refused};
use crate::event::Kind;

/// Why the call was refused.
#[must_use]
pub fn message(case: &Case<'_>) -> String {
    let words = match case.verdict.kind {
        Kind::Listener
        | Kind::Bound
        | Kind::Client
        | Kind::Accepted
        | Kind::Closing
        | Kind::TimeWait
        | Kind::Kernel => held::held(case).unwrap_or_else(|| refused::unknown(case)),
        Kind::Gone => refused::gone(case),
        Kind::Exhausted => exhausted::exhausted(case),
        Kind::AlreadyBound => refused::already_bound(case.event),
        Kind::Privileged => refused::privileged(case),
        Kind::NotLocal => not_local::message(case),
        Kind::Policy => policy::message(case),
        // Which of its owners is in the way may be known though what it is is not.
        Kind::Unknown => held::held(case).unwrap_or_else(|| refused::unknown(case)),
    };
    harmless(&words)
}
