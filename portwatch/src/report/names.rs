//! Programs by numbers.

use std::collections::HashMap;

use crate::event::Container;

/// A program as a person knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Its name.
    pub name: String,
    /// systemd unit.
    pub unit: Option<String>,
    /// Id of its container.
    pub container: Option<String>,
}

/// The number that stands for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WhoId(u32);

/// Programs that are told apart. The rest goes by one name.
const MOST: usize = 50_000;

/// All programs so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Who, WhoId>,
    all: Vec<Who>,
}

impl Names {
    pub(super) fn number(
        &mut self,
        name: &str,
        unit: Option<&str>,
        container: Option<&Container>,
    ) -> WhoId {
        let mut who = Who {
            name: name.to_owned(),
            unit: unit.map(str::to_owned),
            container: container.map(|container| container.id.clone()),
        };
        if let Some(id) = self.known.get(&who) {
            return *id;
        }
        if self.all.len() >= MOST {
            who = Who {
                name: "(others)".to_owned(),
                ..Who::default()
            };
        }
        let next = WhoId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        let all = &mut self.all;
        *self.known.entry(who).or_insert_with_key(|who| {
            all.push(who.clone());
            next
        })
    }

    pub(super) fn get(&self, id: WhoId) -> Who {
        self.all.get(id.0 as usize).cloned().unwrap_or_default()
    }
}
