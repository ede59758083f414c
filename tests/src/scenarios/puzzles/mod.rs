//! The puzzles of the wild: what people ran into, and what portwatch has to say to it. [`LIST`] has
//! all of them; a scenario says which of them it proves.

mod addresses;
mod connections;
mod list;
mod programs;
mod races;

use super::Scenario;
use crate::script::Role;

pub(crate) use list::markdown;

/// A table of parts, each named as its function.
macro_rules! roles {
    ($($name:ident),* $(,)?) => {
        &[$($crate::script::Role { name: stringify!($name), play: $name }),*]
    };
}
pub(super) use roles;

/// Those that stand nowhere else.
pub(super) fn all() -> impl Iterator<Item = Scenario> {
    [connections::ALL, addresses::ALL, programs::ALL, races::ALL]
        .into_iter()
        .flatten()
        .copied()
}

/// What others do in them.
pub(super) fn all_roles() -> impl Iterator<Item = Role> {
    [connections::ROLES, programs::ROLES, races::ROLES]
        .into_iter()
        .flatten()
        .copied()
}
