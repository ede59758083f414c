//! A look at all sockets: at the start, and whenever something was missed.

use std::collections::BTreeSet;

use crate::{
    errno,
    event::Backend,
    facts::Gathered,
    load::{
        LoadError,
        churn::{Counting, Link},
    },
    plan::{self, Attachment, Plan},
    sockets::namespaces::{self, Visited},
};

/// The iterators, and how often they ran.
pub(super) struct Looks {
    planned: Result<[Attachment; 2], String>,
    loaded: Option<[Link; 2]>,
    number: u32,
}

impl Looks {
    /// Which iterators there are. Of a command nothing is older than the look.
    pub(super) fn plan(gathered: &Gathered, plan: &Plan, descendants: bool) -> Self {
        let planned = if plan.backend == Backend::RawTp {
            Err("raw tracepoints do not see ports given back".to_owned())
        } else if descendants {
            Err(COMMAND.to_owned())
        } else {
            plan::churn::iterators(&gathered.facts)
        };
        Self {
            planned,
            loaded: None,
            number: 0,
        }
    }

    pub(super) fn iterators(&self) -> &[Attachment] {
        self.planned.as_ref().map_or(&[], |planned| planned)
    }

    /// Loads them, once.
    pub(super) fn load(&mut self, counting: &mut Counting) {
        let Ok(planned) = &self.planned else {
            return;
        };
        let load = |counting: &mut Counting| -> Result<[Link; 2], LoadError> {
            let [descriptors, connections] = *planned;
            Ok([
                counting.iterator(descriptors)?,
                counting.iterator(connections)?,
            ])
        };
        match load(counting) {
            Ok(links) => self.loaded = Some(links),
            Err(error) => {
                let reason = errno::words(&format_args!("{:#}", anyhow::Error::from(error)));
                self.planned = Err(reason);
            }
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Why it cannot be taken, in words.
    pub(super) fn take(&mut self, counting: &mut Counting) -> Result<Looked, String> {
        let Some([descriptors, connections]) = &self.loaded else {
            return match &self.planned {
                // Nothing is older than a command, and raw tracepoints say so themselves.
                Err(reason) if reason == COMMAND => Ok(Looked::default()),
                Err(reason) => Err(reason.clone()),
                Ok(_) => Err("the iterators are not loaded".to_owned()),
            };
        };
        self.number += 1;
        let words = |error: LoadError| errno::words(&anyhow::Error::from(error));
        counting.begin_look(self.number).map_err(words)?;
        let mut outcome = descriptors.run();
        let connections = connections.clone();
        let mut seen = BTreeSet::new();
        let visited = namespaces::each(
            &[],
            move |netns| (netns, connections.run()),
            |(netns, result)| {
                seen.insert(netns);
                if let Err(error) = result {
                    outcome = Err(error);
                }
            },
        );
        outcome.map_err(|error| errno::words(&error))?;
        let unseen = unseen(&visited);
        if self.number == 1 {
            return Ok(Looked { gone: 0, unseen });
        }
        let gone = counting
            .end_look(self.number, &seen, unseen.is_none())
            .map_err(words)?;
        Ok(Looked { gone, unseen })
    }
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// So many ports turned out to be given back.
    pub(super) gone: u64,
    /// Where it did not get to, in words: what is held there stays as it is.
    pub(super) unseen: Option<String>,
}

/// Whether there was no way into a network namespace.
fn unseen(visited: &Visited) -> Option<String> {
    match visited {
        Visited {
            closed: 0,
            hidden: false,
            ..
        } => None,
        Visited { closed: 0, .. } => {
            Some("processes hide their network namespaces (hidepid in proc(5))".to_owned())
        }
        Visited { closed: 1, .. } => Some("one network namespace cannot be entered".to_owned()),
        Visited { closed, .. } => Some(format!("{closed} network namespaces cannot be entered")),
    }
}

const COMMAND: &str = "a command has no ports yet";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_did_not_get_everywhere_says_so() {
        for (closed, hidden, words) in [
            (0, false, None),
            (1, false, Some("one network namespace cannot be entered")),
            (3, true, Some("3 network namespaces cannot be entered")),
            (
                0,
                true,
                Some("processes hide their network namespaces (hidepid in proc(5))"),
            ),
        ] {
            let visited = Visited {
                closed,
                hidden,
                absent: Vec::new(),
            };
            assert_eq!(unseen(&visited).as_deref(), words);
        }
    }
}
