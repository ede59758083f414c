//! The scenarios, by topic.

mod accept;
mod bind;
mod check;
mod churn;
mod command;
mod conflict;
mod connect;
mod crowded;
mod disturbed;
mod exhausted;
mod faults;
mod files;
mod filters;
mod fire;
mod lifecycle;
mod list;
mod listen;
pub(crate) mod locked;
mod looked_up;
mod namespaces;
mod older;
mod options;
mod parity;
mod passed;
mod policy;
mod privilege;
mod process;
mod programs;
pub(crate) mod puzzles;
mod random;
mod record;
mod refusals;
mod release;
mod subflows;
mod udp;
mod ways;
mod who;

use anyhow::Result;

use crate::{
    bench::Bench,
    script::{Role, Script},
};

/// A part of the world, and what portwatch has to say about it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Unique, short_snake_case.
    pub(crate) name: &'static str,
    /// What to do, in a process and a network namespace of its own.
    pub(crate) run: fn(&mut Script) -> Result<()>,
    /// The puzzles that it proves, by their numbers in [`puzzles::LIST`].
    pub(crate) proves: &'static [u8],
}

/// A table of scenarios, each named as its function, with the puzzles that it proves.
macro_rules! scenarios {
    (@proves) => { &[] };
    (@proves $puzzles:expr) => { &$puzzles };
    ($($name:ident $(: $puzzles:expr)?),* $(,)?) => {
        &[$($crate::scenarios::Scenario {
            name: stringify!($name),
            run: $name,
            proves: $crate::scenarios::scenarios!(@proves $($puzzles)?),
        }),*]
    };
}
use scenarios;

/// A scenario that runs portwatch itself, in a way of its own.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    /// Unique, short_snake_case.
    pub(crate) name: &'static str,
    /// What to do, and to check.
    pub(crate) run: fn(&Bench) -> Result<()>,
    /// Where it has something new to say.
    pub(crate) spread: Spread,
    /// The event that its portwatch is asked for, which it shares with those right before and after it that ask
    /// for the same.
    pub(crate) asks: Option<&'static str>,
}

/// With which backends of which kernels a session is run when all are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// All.
    EachBackend,
    /// The backend has to do with it, and so has the kernel, but each by itself: every backend of this machine and of
    /// one guest, and the first of every kernel; at length all.
    Crossed,
    /// No hook has to do with it: the first backend of each kernel.
    EachKernel,
    /// The kernel has not to do with it either: this machine, and one guest.
    Once,
}

/// Sessions that run a workload each under a portwatch that is asked for one kind of event, and is shared by
/// those that follow one another, and the workloads: `session = workload`.
macro_rules! asked {
    ($event:literal: $($session:ident = $work:ident),* $(,)?) => {
        pub(super) const ALL: &[$crate::scenarios::Session] = &[$($crate::scenarios::Session {
            name: stringify!($session),
            run: |bench| $crate::bench::asked(bench, $event, stringify!($work)),
            spread: $crate::scenarios::Spread::EachBackend,
            asks: Some($event),
        }),*];
        pub(super) const PARTS: &[$crate::scenarios::Scenario] =
            $crate::scenarios::scenarios![$($work),*];
    };
}
use asked;

/// A table of sessions, each named as its function; `: crossed` where it is not the pair of backend and kernel
/// that matters, `: each_kernel` where the backend makes no difference, `: once` where the kernel makes none
/// ([`Spread`]).
macro_rules! sessions {
    (@spread) => { $crate::scenarios::Spread::EachBackend };
    (@spread crossed) => { $crate::scenarios::Spread::Crossed };
    (@spread each_kernel) => { $crate::scenarios::Spread::EachKernel };
    (@spread once) => { $crate::scenarios::Spread::Once };
    ($($name:ident $(: $spread:ident)?),* $(,)?) => {
        &[$($crate::scenarios::Session {
            name: stringify!($name),
            run: $name,
            spread: $crate::scenarios::sessions!(@spread $($spread)?),
            asks: None,
        }),*]
    };
}
use sessions;

/// Those with a portwatch of their own, or one that they share with a few, in the order they run: those that
/// ask for the same event follow one another.
pub(crate) fn all_sessions() -> impl Iterator<Item = Session> {
    [
        lifecycle::ALL,
        disturbed::ALL,
        command::ALL,
        refusals::ALL,
        privilege::ALL,
        files::ALL,
        filters::ALL,
        accept::ALL,
        passed::ALL,
        release::ALL,
        namespaces::SESSIONS,
        older::ALL,
        faults::SESSIONS,
        who::ALL,
        check::ALL,
        list::ALL,
        parity::ALL,
        fire::ALL,
        random::ALL,
        record::ALL,
        programs::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain(churn::all())
}

/// A workload by name, those of sessions included.
pub(crate) fn workload(name: &str) -> Option<Scenario> {
    all()
        .chain(filters::MIX.iter().copied())
        .chain(faults::PARTS.iter().copied())
        .chain(random::PARTS.iter().copied())
        .chain(accept::PARTS.iter().copied())
        .chain(release::PARTS.iter().copied())
        .chain(passed::PARTS.iter().copied())
        .find(|scenario| scenario.name == name)
}

/// Those that share one portwatch, in the order they run.
pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    [
        bind::ALL,
        listen::ALL,
        conflict::ALL,
        crowded::ALL,
        exhausted::ALL,
        connect::ALL,
        udp::ALL,
        subflows::ALL,
        passed::SCENARIOS,
        options::ALL,
        namespaces::ALL,
        policy::ALL,
        process::ALL,
        faults::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain(ways::all())
    .chain(puzzles::all())
}

/// What others do in a scenario, by name.
pub(crate) fn role(name: &str) -> Option<Role> {
    puzzles::all_roles()
        .chain(faults::ROLES.iter().copied())
        .chain(passed::ROLES.iter().copied())
        .chain(namespaces::ROLES.iter().copied())
        .find(|role| role.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its name one is found.
    #[test]
    fn workloads_have_names_of_their_own() {
        let parts = [
            filters::MIX,
            faults::PARTS,
            random::PARTS,
            accept::PARTS,
            release::PARTS,
            passed::PARTS,
        ];
        let parts = parts.into_iter().flatten().copied();
        let mut names: Vec<_> = all().chain(parts).map(|one| one.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all()
            .map(|scenario| scenario.name)
            .chain(all_sessions().map(|session| session.name))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
