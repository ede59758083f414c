//! A look at all sockets: at the start, and whenever something was missed.

use crate::{
    errno,
    event::Backend,
    facts::Gathered,
    load::{
        LoadError,
        churn::{Counting, Link},
    },
    plan::{self, Attachment, Plan},
    sockets::namespaces,
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

    /// Takes one; the value is how many ports turned out to be given back.
    ///
    /// # Errors
    /// Why it cannot be taken, in words.
    pub(super) fn take(&mut self, counting: &mut Counting) -> Result<u64, String> {
        let Some([descriptors, connections]) = &self.loaded else {
            return match &self.planned {
                // Nothing is older than a command, and raw tracepoints say so themselves.
                Err(reason) if reason == COMMAND => Ok(0),
                Err(reason) => Err(reason.clone()),
                Ok(_) => Err("the iterators are not loaded".to_owned()),
            };
        };
        self.number += 1;
        let words = |error: LoadError| errno::words(&anyhow::Error::from(error));
        counting.begin_look(self.number).map_err(words)?;
        let mut outcome = descriptors.run();
        let connections = connections.clone();
        namespaces::each(
            &[],
            move |_| connections.run(),
            |result| {
                if let Err(error) = result {
                    outcome = Err(error);
                }
            },
        );
        outcome.map_err(|error| errno::words(&error))?;
        if self.number == 1 {
            return Ok(0);
        }
        counting.end_look(self.number).map_err(words)
    }
}

const COMMAND: &str = "a command has no ports yet";
