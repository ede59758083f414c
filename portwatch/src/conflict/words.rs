//! A verdict in words: what happened, and what to do about it.
//!
//! A message is a phrase without a full stop, a hint is a sentence or two, so that they read as one
//! text when they are joined by a full stop. Both are one line, harmless for a terminal, and say
//! nothing that is not known: a case without words of its own gets fewer of them.

mod doubt;
mod exhausted;
mod exposed;
mod held;
mod hint;
mod message;
mod not_local;
mod owner;
pub(crate) mod phrase;
mod policy;
mod refused;
mod shared;
mod sharing;
mod supervisor;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use doubt::doubt;
pub use exposed::exposed;
pub use hint::hint;
pub use message::message;
pub use shared::shared;
pub use supervisor::is_supervisor;

use crate::event::{
    Conflict, Culprit, Event, Exhausted, Explanation, Findings, Kind, Owner, Process, Verdict,
};

/// Everything that words are made of.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The call that was refused.
    pub event: &'a Event,
    /// The caller.
    pub process: &'a Process,
    /// Why it was refused.
    pub verdict: &'a Verdict,
    /// Who owns the verdict's culprits, in their order.
    pub owners: &'a [Owner],
    /// What was found out besides.
    pub findings: &'a Findings,
}

/// An owner of whom nothing is known.
static NOBODY: LazyLock<Owner> = LazyLock::new(Owner::default);

impl<'a> Case<'a> {
    /// Of a range without free ports.
    fn exhausted(&self) -> Option<&'a Exhausted> {
        self.findings.exhausted.as_ref()
    }

    /// Whether what is left of a connection is of one that went out: all on the port got it from connect().
    fn is_outgoing(&self, culprit: &Culprit) -> bool {
        matches!(culprit.kind, Kind::TimeWait | Kind::Closing)
            && self
                .event
                .conflict
                .as_ref()
                .is_some_and(|it| it.connect_only)
    }

    /// The sockets in the way, each with its owner.
    fn held(&self) -> impl Iterator<Item = (&'a Culprit, &'a Owner)> + use<'a> {
        let owners = self.owners.iter().chain(std::iter::repeat(&*NOBODY));
        self.verdict.culprits.iter().zip(owners)
    }

    /// Whether all sockets of the port that may be in the way are known: the kernel's programs keep only a few.
    /// Else there may be more in the way, and nothing can be promised.
    fn all_known(&self) -> bool {
        self.event.conflict.as_ref().is_some_and(Conflict::is_whole)
    }
}

/// The explanation of a refused call, complete with words.
#[must_use]
pub fn explain(
    event: &Event,
    process: &Process,
    verdict: Verdict,
    owners: Vec<Owner>,
    findings: Findings,
) -> Explanation {
    let case = Case {
        event,
        process,
        verdict: &verdict,
        owners: &owners,
        findings: &findings,
    };
    let (message, hint) = (message(&case), hint(&case));
    Explanation {
        verdict,
        owners,
        findings,
        message,
        hint,
    }
}
