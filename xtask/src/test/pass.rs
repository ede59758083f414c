//! Which scenarios run side by side in several guests, and which have the machine for themselves.

use super::Selection;

/// Scenarios that depend on time: a fight between a thousand processes, of which a share has to be told in
/// time, and a search through ten thousand descriptors, which lasts a second at most.
const ALONE: &[&str] = &["fire_fifty_ports", "fault_ten_thousand_descriptors"];

/// One of the times that a kernel is booted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    /// All that was chosen, in one guest at a time.
    Whole,
    /// What does not mind neighbours.
    Together,
    /// The rest, one guest after the other.
    Alone,
}

impl Pass {
    /// What to run, in order, where so many guests at once are possible and so many kernels are chosen.
    pub(super) fn plan(
        selection: &Selection,
        at_once: usize,
        kernels: usize,
    ) -> Vec<(Pass, usize)> {
        let filter = selection.filter.as_deref();
        if at_once.min(kernels) < 2 || filter.is_some_and(meets_alone) {
            return vec![(Pass::Whole, 1)];
        }
        // Who chooses by name gets what bears the name, and may have meant none that is left out.
        if filter.is_some() {
            return vec![(Pass::Whole, at_once)];
        }
        vec![(Pass::Together, at_once), (Pass::Alone, 1)]
    }

    /// What stands for the kernel in the names of tiers and logs.
    pub(super) fn label(self, tag: &str) -> String {
        match self {
            Pass::Whole | Pass::Together => tag.to_string(),
            Pass::Alone => format!("{tag}-alone"),
        }
    }

    /// Options that the scenario runner gets for it.
    pub(super) fn options(self) -> Vec<&'static str> {
        let option = match self {
            Pass::Whole => return Vec::new(),
            Pass::Together => "--without",
            Pass::Alone => "--only",
        };
        ALONE.iter().flat_map(|prefix| [option, *prefix]).collect()
    }
}

/// Whether a filter asks for one of them, as the runner understands it.
fn meets_alone(filter: &str) -> bool {
    ALONE.iter().any(|name| name.contains(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(filter: Option<&str>, at_once: usize, kernels: usize) -> Vec<(Pass, usize)> {
        let selection = Selection {
            machines: None,
            kernels: Vec::new(),
            attach: Vec::new(),
            long: false,
            filter: filter.map(String::from),
        };
        Pass::plan(&selection, at_once, kernels)
    }

    #[test]
    fn load_is_measured_alone() {
        assert_eq!(plan(None, 2, 4), [(Pass::Together, 2), (Pass::Alone, 1)]);
        for filter in ["fire", "fifty", "fault_"] {
            assert_eq!(plan(Some(filter), 2, 4), [(Pass::Whole, 1)], "{filter}");
        }
    }

    #[test]
    fn one_guest_boots_once() {
        assert_eq!(plan(None, 1, 4), [(Pass::Whole, 1)]);
        assert_eq!(plan(None, 2, 1), [(Pass::Whole, 1)]);
        assert_eq!(plan(Some("bind_v4"), 2, 4), [(Pass::Whole, 2)]);
    }
}
