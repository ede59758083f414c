//! Which scenarios run side by side in several guests, and which have the machine for themselves.

use super::Selection;
use crate::vm::programs;

/// Scenarios that depend on time: a fight between a thousand processes, of which a share has to be told in
/// time, and a search through ten thousand descriptors, which lasts a second at most.
const ALONE: &[&str] = &["fire_fifty_ports", "fault_ten_thousand_descriptors"];

/// The kernel for what depends little on it or not at all, and takes minutes: Debian's programs, the recorder.
pub(super) const USUAL: &str = "6.12";

/// One of the times that a kernel is booted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    /// All that was chosen, in one guest at a time.
    Whole,
    /// What does not mind neighbours.
    Together,
    /// The rest, one guest after the other.
    Alone,
    /// Debian's programs, whose guest is much larger.
    Programs,
}

impl Pass {
    /// What to run, in order, where so many guests at once are possible and so many kernels are chosen.
    pub(super) fn plan(
        selection: &Selection,
        at_once: usize,
        kernels: usize,
    ) -> Vec<(Pass, usize)> {
        let filter = selection.filter.as_deref();
        if filter.is_some_and(|filter| filter.starts_with(programs::SCENARIOS)) {
            return vec![(Pass::Programs, 1)];
        }
        let mut passes = Pass::of_others(filter, at_once, kernels);
        if filter.is_none() && selection.wants_kernel(USUAL) {
            passes.push((Pass::Programs, 1));
        }
        passes
    }

    fn of_others(filter: Option<&str>, at_once: usize, kernels: usize) -> Vec<(Pass, usize)> {
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
            Pass::Programs => format!("{tag}-programs"),
        }
    }

    /// Whether it is for this kernel. Who names kernels gets the programs on those.
    pub(super) fn wants(self, selection: &Selection, tag: &str) -> bool {
        let named = selection.filter.is_some() && !selection.kernels.is_empty();
        self != Pass::Programs || named || tag == USUAL
    }

    /// The backend to run, and another that watches at the same time; `None`: those that were asked for, or
    /// all, one after the other.
    pub(super) fn backends(self) -> Option<(&'static str, &'static str)> {
        (self == Pass::Programs).then_some(("tracing", "kprobe"))
    }

    /// Whether it has what is no scenario too: the rules, the verifier, the lockdown.
    pub(super) fn has_the_rest(self) -> bool {
        matches!(self, Pass::Whole | Pass::Together)
    }

    /// Options that the scenario runner gets for it.
    pub(super) fn options(self) -> Vec<&'static str> {
        let all = |option, names: &[&'static str]| {
            let each = names.iter().flat_map(|prefix| [option, *prefix]);
            each.collect::<Vec<_>>()
        };
        let programs = &[programs::SCENARIOS];
        match self {
            Pass::Whole => all("--without", programs),
            Pass::Together => [all("--without", ALONE), all("--without", programs)].concat(),
            Pass::Alone => all("--only", ALONE),
            Pass::Programs => all("--only", programs),
        }
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
        assert_eq!(
            plan(None, 2, 4),
            [(Pass::Together, 2), (Pass::Alone, 1), (Pass::Programs, 1)]
        );
        for filter in ["fire", "fifty", "fault_"] {
            assert_eq!(plan(Some(filter), 2, 4), [(Pass::Whole, 1)], "{filter}");
        }
    }

    #[test]
    fn one_guest_boots_once_but_for_the_programs() {
        let twice = [(Pass::Whole, 1), (Pass::Programs, 1)];
        assert_eq!(plan(None, 1, 4), twice);
        assert_eq!(plan(None, 2, 1), twice);
        assert_eq!(plan(Some("bind_v4"), 2, 4), [(Pass::Whole, 2)]);
    }

    #[test]
    fn programs_run_on_one_kernel_or_where_they_are_asked_for() {
        assert_eq!(plan(Some("programs_nginx"), 2, 4), [(Pass::Programs, 1)]);
        let wants = |kernels: &[&'static str], filter: Option<&str>, tag| {
            let selection = Selection {
                machines: None,
                kernels: kernels.to_vec(),
                attach: Vec::new(),
                long: false,
                filter: filter.map(String::from),
            };
            Pass::Programs.wants(&selection, tag)
        };
        assert!(wants(&[], None, "6.12") && !wants(&[], None, "6.1"));
        assert!(!wants(&[], Some("programs_"), "6.1"));
        assert!(wants(&["6.1"], Some("programs_"), "6.1"));
        assert!(Pass::Whole.wants(
            &Selection {
                machines: None,
                kernels: Vec::new(),
                attach: Vec::new(),
                long: false,
                filter: None,
            },
            "6.1"
        ));
    }
}
