//! The scenarios, by topic.

mod bind;
mod conflict;
mod connect;
mod exhausted;
mod listen;
mod policy;
mod process;
mod udp;
mod ways;

use anyhow::Result;

use crate::script::Script;

/// A part of the world, and what portwatch has to say about it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Unique, short_snake_case.
    pub(crate) name: &'static str,
    /// What to do, in a process and a network namespace of its own.
    pub(crate) run: fn(&mut Script) -> Result<()>,
}

/// A table of scenarios, each named as its function.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        &[$($crate::scenarios::Scenario { name: stringify!($name), run: $name }),*]
    };
}
use scenarios;

/// All of them, in the order they run.
pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    [
        bind::ALL,
        listen::ALL,
        conflict::ALL,
        exhausted::ALL,
        connect::ALL,
        udp::ALL,
        ways::ALL,
        policy::ALL,
        process::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
