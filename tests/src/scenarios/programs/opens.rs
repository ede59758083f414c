//! What became of connects that were open when connect() returned, as far as the program has asked.

use std::collections::HashMap;

use crate::strace::{self, Call};

/// Answers of SO_ERROR, and of connect() called again: for each socket the places of the calls, and the names of the errors.
pub(super) struct Opens(HashMap<u64, Vec<(usize, Option<String>)>>);

impl Opens {
    pub(super) fn new(calls: &[Call]) -> Self {
        let mut answers: HashMap<_, Vec<_>> = HashMap::new();
        for (place, call) in calls.iter().enumerate() {
            let error = match call.name.as_str() {
                "getsockopt" if call.arg(2) == "SO_ERROR" && call.result == "0" => {
                    Some(call.arg(3).trim_matches(['[', ']'])).filter(|error| *error != "0")
                }
                "connect" if !matches!(call.error(), Some("EINPROGRESS" | "EALREADY")) => {
                    call.error()
                }
                _ => continue,
            };
            if let Some(inode) = strace::inode(call.arg(0)) {
                let answer = (place, error.map(str::to_owned));
                answers.entry(inode).or_default().push(answer);
            }
        }
        Self(answers)
    }

    /// The error that the connect() at this place ended with; `None` if nobody has asked for it.
    pub(super) fn ended(&self, place: usize, inode: u64) -> Option<Option<&str>> {
        let answers = self.0.get(&inode)?;
        let (_, error) = answers.iter().find(|(asked, _)| *asked > place)?;
        Some(error.as_deref())
    }
}
