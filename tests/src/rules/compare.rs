//! A case on the kernel and in the rules, step by step.

use anyhow::Result;

use super::{
    case::Case,
    kernel::Kernel,
    make::Ground,
    predict::{Held, Model, Outcome},
};

/// A step after which rules and kernel part.
#[derive(Clone, Debug)]
pub(super) struct Disagreement {
    case: Case,
    /// Place of the step.
    at: usize,
    predicted: Outcome,
    happened: Outcome,
    /// Before that step, newest first.
    owners: Vec<Held>,
}

impl Disagreement {
    /// For people, and to make a named test of.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self {
            case,
            at,
            predicted,
            happened,
            owners,
        } = self;
        let mut lines = vec![
            shown(case),
            format!("step {at}: the rules say {predicted:?}, the kernel {happened:?}; owners:"),
        ];
        lines.extend(owners.iter().map(|held| format!("  {:?}", held.claim)));
        lines
    }
}

/// As `--case` takes it.
pub(super) fn shown(case: &Case) -> String {
    serde_json::to_string(case).unwrap_or_else(|error| error.to_string())
}

/// Compares cases.
pub(super) struct Judge {
    kernel: Kernel,
    ground: Ground,
}

impl Judge {
    /// With the running kernel.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            kernel: Kernel::running()?,
            ground: Ground::new()?,
        })
    }

    /// Whether they part on a case.
    pub(super) fn case(&mut self, case: &Case) -> Result<Option<Disagreement>> {
        let mut model = Model::new(self.kernel, case.udp);
        let mut site = self.ground.site(case.udp)?;
        for (at, step) in case.steps.iter().enumerate() {
            let owners = model.owners.clone();
            let predicted = model.step(step);
            if predicted == Outcome::LeftOut {
                continue;
            }
            let happened = site.step(step)?;
            if happened != predicted {
                return Ok(Some(Disagreement {
                    case: case.clone(),
                    at,
                    predicted,
                    happened,
                    owners,
                }));
            }
        }
        Ok(None)
    }

    /// The same with as few steps as it takes.
    pub(super) fn shorten(&mut self, mut found: Disagreement) -> Result<Disagreement> {
        found.case.steps.truncate(found.at + 1);
        let mut at = 0;
        while at < found.case.steps.len() {
            let mut case = found.case.clone();
            case.steps.remove(at);
            match self.case(&case)? {
                Some(shorter) => found = shorter,
                None => at += 1,
            }
        }
        Ok(found)
    }
}
