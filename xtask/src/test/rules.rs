//! The rules of sharing a port against the kernel: a test of the kernel, not of a backend, so it runs
//! once on each.

use super::Selection;

/// Its job, and the last part of its tier's name.
pub(crate) const ID: &str = "rules";

/// What all names of its tests begin with.
const PREFIX: &str = "rules_";

/// How many random cases.
const CASES: u32 = 5000;
const CASES_LONG: u32 = 100_000;

/// How many random questions to `check`.
const QUESTIONS: u32 = 1000;
const QUESTIONS_LONG: u32 = 10_000;

/// Arguments of the runner; `None` if the filter asks for scenarios.
pub(crate) fn argv(selection: &Selection) -> Option<Vec<String>> {
    if !wants_rules(selection) {
        return None;
    }
    let (cases, questions) = if selection.long {
        (CASES_LONG, QUESTIONS_LONG)
    } else {
        (CASES, QUESTIONS)
    };
    let mut argv = vec![
        "rules".to_string(),
        "--cases".into(),
        cases.to_string(),
        "--questions".into(),
        questions.to_string(),
    ];
    argv.extend(
        selection
            .filter
            .iter()
            .flat_map(|filter| ["--filter".to_string(), filter.clone()]),
    );
    Some(argv)
}

/// Whether the filter leaves scenarios to run: who asks for a rule does not ask for them.
pub(crate) fn wants_scenarios(selection: &Selection) -> bool {
    !selection
        .filter
        .as_ref()
        .is_some_and(|filter| filter.starts_with(PREFIX))
}

fn wants_rules(selection: &Selection) -> bool {
    selection.filter.is_none() || !wants_scenarios(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(long: bool, filter: Option<&str>) -> Selection {
        Selection {
            machines: None,
            kernels: Vec::new(),
            attach: Vec::new(),
            long,
            filter: filter.map(String::from),
        }
    }

    #[test]
    fn a_filter_is_for_one_or_the_other() {
        let all = selection(false, None);
        assert_eq!(
            argv(&all).unwrap_or_default(),
            ["rules", "--cases", "5000", "--questions", "1000"]
        );
        assert!(wants_scenarios(&all));
        let scenario = selection(false, Some("bind_v4"));
        assert_eq!(argv(&scenario), None);
        assert!(wants_scenarios(&scenario));
        let rules = selection(true, Some("rules_random"));
        assert_eq!(
            argv(&rules).unwrap_or_default(),
            [
                "rules",
                "--cases",
                "100000",
                "--questions",
                "10000",
                "--filter",
                "rules_random"
            ]
        );
        assert!(!wants_scenarios(&rules));
    }
}
