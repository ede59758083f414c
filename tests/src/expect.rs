//! What a scenario wants to see, and whether lines of output are that. Pure.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What must stand at one path of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Want {
    /// This value.
    Is(Value),
    /// Any value.
    Present,
    /// Nothing.
    Absent,
    /// Nothing, or `false`.
    NotTrue,
    /// An integer in this range, ends included.
    Within(u64, u64),
    /// One of these values.
    OneOf(Vec<Value>),
    /// A list that holds this value.
    Lists(Value),
    /// A text with all of these in it.
    Says(Vec<String>),
    /// A text without a character that acts on a terminal.
    Harmless,
    /// What the inner one says, or nothing.
    Maybe(Box<Want>),
    /// What the inner one says, or nothing and the path listed in `missing`.
    Known(Box<Want>),
    /// The same with another path listed: that of the whole which this is a part of.
    UnlessMissing(String, Box<Want>),
}

impl Want {
    /// This value.
    pub(crate) fn is(value: impl Into<Value>) -> Self {
        Self::Is(value.into())
    }

    /// A text with all of these in it.
    pub(crate) fn says(words: &[&str]) -> Self {
        Self::Says(words.iter().map(|words| (*words).to_owned()).collect())
    }

    /// This, or nothing.
    pub(crate) fn maybe(self) -> Self {
        Self::Maybe(Box::new(self))
    }

    /// This, or nothing and the path listed in `missing`.
    pub(crate) fn known(self) -> Self {
        Self::Known(Box::new(self))
    }

    /// This, or nothing and `path` listed in `missing`.
    pub(crate) fn unless_missing(self, path: &str) -> Self {
        Self::UnlessMissing(path.to_owned(), Box::new(self))
    }

    /// Why `line` does not have this at `path` and does not list `listed` either.
    fn or_missing(&self, line: &Value, path: &str, listed: &str) -> Result<(), String> {
        let missing = line.get("missing").and_then(Value::as_array);
        if missing.is_some_and(|paths| paths.iter().any(|path| path == listed)) {
            return Ok(());
        }
        self.check(line, path)
            .map_err(|why| format!("{why}, and not in `missing`"))
    }

    /// Why `line` does not have this at `path`.
    fn check(&self, line: &Value, path: &str) -> Result<(), String> {
        let got = lookup(line, path);
        let fail = |expected: &str| {
            Err(match got {
                Some(got) => format!("{path}: expected {expected}, got {got}"),
                None => format!("{path}: expected {expected}, got nothing"),
            })
        };
        match (self, got) {
            (Self::Is(want), Some(got)) if want == got => Ok(()),
            (Self::Is(want), _) => fail(&want.to_string()),
            (Self::Present, Some(_)) | (Self::Absent | Self::Maybe(_), None) => Ok(()),
            (Self::Present, None) => fail("something"),
            (Self::Absent, Some(_)) => fail("nothing"),
            (Self::NotTrue, None | Some(Value::Bool(false))) => Ok(()),
            (Self::NotTrue, Some(_)) => fail("nothing or false"),
            (Self::Within(low, high), got) => match got.and_then(Value::as_u64) {
                Some(number) if (*low..=*high).contains(&number) => Ok(()),
                _ => fail(&format!("{low} to {high}")),
            },
            (Self::OneOf(values), Some(got)) if values.contains(got) => Ok(()),
            (Self::OneOf(values), _) => fail(&format!("one of {}", Value::from(values.clone()))),
            (Self::Lists(value), Some(Value::Array(items))) if items.contains(value) => Ok(()),
            (Self::Lists(value), _) => fail(&format!("a list with {value}")),
            (Self::Says(words), Some(Value::String(text))) => {
                match words.iter().find(|words| !text.contains(words.as_str())) {
                    None => Ok(()),
                    Some(words) => fail(&format!("{words:?} in it")),
                }
            }
            (Self::Says(words), _) => fail(&format!("a text with {words:?}")),
            (Self::Harmless, Some(Value::String(text))) if !text.contains(char::is_control) => {
                Ok(())
            }
            (Self::Harmless, _) => fail("a text without control characters"),
            (Self::Maybe(inner), Some(_)) | (Self::Known(inner), Some(_)) => {
                inner.check(line, path)
            }
            (Self::UnlessMissing(_, inner), Some(_)) => inner.check(line, path),
            (Self::Known(inner), None) => inner.or_missing(line, path, path),
            (Self::UnlessMissing(whole, inner), None) => inner.or_missing(line, path, whole),
        }
    }
}

/// The value at a dotted path; digits index lists.
pub(crate) fn lookup<'a>(line: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(line, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}

/// One line that must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expect {
    wants: BTreeMap<String, Want>,
    /// Why it may be left out, if it may.
    optional: Option<String>,
}

impl Expect {
    /// Demands something of a path; a later demand replaces an earlier one.
    pub(crate) fn set(&mut self, path: &str, want: Want) -> &mut Self {
        self.wants.insert(path.to_owned(), want);
        self
    }

    /// Demands a value.
    pub(crate) fn is(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        self.set(path, Want::is(value))
    }

    /// Drops what was demanded of a path.
    pub(crate) fn forget(&mut self, path: &str) -> &mut Self {
        self.wants.remove(path);
        self
    }

    /// What is demanded of a path.
    pub(crate) fn wanted(&self, path: &str) -> Option<&Want> {
        self.wants.get(path)
    }

    /// The line may be left out, but if it is there it must be right.
    pub(crate) fn optional(&mut self, why: &str) -> &mut Self {
        self.optional = Some(why.to_owned());
        self
    }

    /// Whether it has to be there.
    pub(crate) fn is_needed(&self) -> bool {
        self.optional.is_none()
    }

    /// Everything about `line` that is not as expected.
    pub(crate) fn differences(&self, line: &Value) -> Vec<String> {
        self.wants
            .iter()
            .filter_map(|(path, want)| want.check(line, path).err())
            .collect()
    }

    /// The wanted value at a path, where exactly one is right.
    fn exact(&self, path: &str) -> Option<&Value> {
        match self.wants.get(path) {
            Some(Want::Is(value)) => Some(value),
            _ => None,
        }
    }

    /// The text wanted at a path.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.exact(path)?.as_str()
    }

    /// The number wanted at a path.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.exact(path)?.as_u64()
    }

    /// The port wanted at a path.
    pub(crate) fn port(&self, path: &str) -> Option<u16> {
        self.exact(path)?.as_u64()?.try_into().ok()
    }

    /// What it is about, in a few words.
    pub(crate) fn title(&self) -> String {
        let text = |path| {
            self.exact(path).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        };
        let mut title = text("event.name").unwrap_or_else(|| "a line".to_owned());
        for path in [
            "network.transport",
            "network.local.address",
            "network.local.port",
            "network.peer.address",
            "network.peer.port",
            "error.type",
            "event.outcome",
        ] {
            if let Some(text) = text(path) {
                let _ = write!(title, " {text}");
            }
        }
        if let Some(pid) = text("process.pid") {
            let _ = write!(title, " of pid {pid}");
        }
        title
    }
}

/// The lines of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expected {
    /// What must be there, and nothing else.
    pub(crate) lines: Vec<Expect>,
    /// Whether they may come in any order.
    pub(crate) any_order: bool,
    /// Processes of the scenario.
    pub(crate) pids: Vec<u32>,
    /// Its network namespaces.
    pub(crate) netns: Vec<u64>,
}

impl Expected {
    /// Whether a line tells of this scenario.
    pub(crate) fn owns(&self, line: &Value) -> bool {
        let number = |path| lookup(line, path).and_then(Value::as_u64);
        let pid = |path| {
            number(path).is_some_and(|pid| self.pids.iter().any(|own| u64::from(*own) == pid))
        };
        number("socket.netns").is_some_and(|netns| self.netns.contains(&netns))
            || pid("process.pid")
            || pid("process.parent_pid")
    }
}

/// Why lines are not what was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// In one line.
    pub(crate) why: String,
    /// The rest of the story.
    pub(crate) details: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Mismatch {}

/// Compares what came with what was expected.
pub(crate) fn compare(expected: &Expected, got: &[Value]) -> Result<(), Mismatch> {
    let found = if expected.any_order {
        in_any_order(&expected.lines, got)
    } else {
        in_order(&expected.lines, got)
    };
    found.map_err(|why| {
        let mut details = Vec::new();
        for line in expected.lines.iter().take(SHOWN) {
            let note = match &line.optional {
                Some(reason) => format!(" (may be missing: {reason})"),
                None => String::new(),
            };
            details.push(format!("expected: {}{note}", line.title()));
        }
        for line in got.iter().take(SHOWN) {
            details.push(format!("got: {line}"));
        }
        for (what, len) in [("expected", expected.lines.len()), ("got", got.len())] {
            if len > SHOWN {
                details.push(format!("({what}: {len} lines in all)"));
            }
        }
        Mismatch { why, details }
    })
}

/// Lines of each side that a failure shows at most.
const SHOWN: usize = 12;

fn in_order(expected: &[Expect], got: &[Value]) -> Result<(), String> {
    let mut rest = got.iter().enumerate();
    let mut next = rest.next();
    for want in expected {
        match next {
            Some((_, line)) if want.differences(line).is_empty() => next = rest.next(),
            _ if want.optional.is_some() => {}
            Some((index, line)) => {
                return Err(format!(
                    "line {}, expected {}: {}",
                    index + 1,
                    want.title(),
                    want.differences(line).join("; ")
                ));
            }
            None => return Err(format!("no line for {}", want.title())),
        }
    }
    match next {
        None => Ok(()),
        Some((index, line)) => Err(format!("line {} was not expected: {line}", index + 1)),
    }
}

fn in_any_order(expected: &[Expect], got: &[Value]) -> Result<(), String> {
    // By process first: thousands of lines are compared in linear time.
    let mut open: BTreeMap<Option<u64>, Vec<&Expect>> = BTreeMap::new();
    for want in expected {
        let pid = want.exact("process.pid").and_then(Value::as_u64);
        open.entry(pid).or_default().push(want);
    }
    for line in got {
        let pid = lookup(line, "process.pid").and_then(Value::as_u64);
        let mut best: Option<(Vec<String>, String)> = None;
        let mut found = false;
        for key in [pid, None] {
            let Some(candidates) = open.get_mut(&key) else {
                continue;
            };
            for (index, want) in candidates.iter().enumerate() {
                let differences = want.differences(line);
                if differences.is_empty() {
                    candidates.swap_remove(index);
                    found = true;
                    break;
                }
                if best
                    .as_ref()
                    .is_none_or(|(few, _)| differences.len() < few.len())
                {
                    best = Some((differences, want.title()));
                }
            }
            if found {
                break;
            }
        }
        if !found {
            return Err(match best {
                Some((differences, title)) => {
                    format!("a line, nearest to {title}: {}", differences.join("; "))
                }
                None => format!("a line was not expected: {line}"),
            });
        }
    }
    match open.values().flatten().find(|want| want.optional.is_none()) {
        None => Ok(()),
        Some(want) => Err(format!("no line for {}", want.title())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(name: &str, port: u16) -> Value {
        json!({"event": {"name": name}, "network": {"local": {"port": port}},
               "process": {"pid": 7}, "missing": ["socket.cookie"]})
    }

    fn want(name: &str, port: u16) -> Expect {
        let mut want = Expect::default();
        want.is("event.name", name).is("network.local.port", port);
        want
    }

    fn ordered(lines: Vec<Expect>) -> Expected {
        Expected {
            lines,
            ..Expected::default()
        }
    }

    #[test]
    fn the_same_lines_in_order_pass() {
        let expected = ordered(vec![want("bind", 1), want("listen", 1)]);
        assert_eq!(
            compare(&expected, &[line("bind", 1), line("listen", 1)]),
            Ok(())
        );
    }

    #[test]
    fn a_wrong_value_names_its_path() {
        let mismatch = compare(&ordered(vec![want("bind", 1)]), &[line("bind", 2)])
            .expect_err("the ports differ");
        assert!(
            mismatch
                .why
                .contains("network.local.port: expected 1, got 2"),
            "{}",
            mismatch.why
        );
        assert!(
            mismatch
                .details
                .iter()
                .any(|detail| detail.starts_with("got: "))
        );
    }

    #[test]
    fn missing_extra_and_swapped_lines_fail() {
        let expected = ordered(vec![want("bind", 1), want("listen", 1)]);
        let (bind, listen) = (line("bind", 1), line("listen", 1));
        for got in [
            vec![bind.clone()],
            vec![bind.clone(), listen.clone(), listen.clone()],
            vec![listen.clone(), bind.clone()],
            vec![bind.clone(), bind, listen],
            vec![],
        ] {
            assert!(compare(&expected, &got).is_err(), "{got:?}");
        }
    }

    #[test]
    fn optional_lines_may_be_missing_but_not_wrong() {
        let mut io_uring = want("bind", 1);
        io_uring.optional("raw_tp cannot see it");
        let expected = ordered(vec![io_uring, want("bind", 2)]);
        assert_eq!(compare(&expected, &[line("bind", 2)]), Ok(()));
        assert_eq!(
            compare(&expected, &[line("bind", 1), line("bind", 2)]),
            Ok(())
        );
        assert!(compare(&expected, &[line("bind", 3), line("bind", 2)]).is_err());
    }

    #[test]
    fn any_order_means_any_order_and_nothing_more() {
        let mut expected = ordered(vec![want("bind", 1), want("bind", 2)]);
        expected.any_order = true;
        assert_eq!(
            compare(&expected, &[line("bind", 2), line("bind", 1)]),
            Ok(())
        );
        assert!(compare(&expected, &[line("bind", 1), line("bind", 1)]).is_err());
        assert!(compare(&expected, &[line("bind", 1)]).is_err());
        assert!(compare(&expected, &[]).is_err());
    }

    #[test]
    fn any_order_goes_by_process_first() {
        let mut one = want("bind", 1);
        one.is("process.pid", 7);
        let mut other = want("bind", 2);
        other.is("process.pid", 8);
        let mut expected = ordered(vec![one, other]);
        expected.any_order = true;
        let mut second = line("bind", 2);
        second["process"]["pid"] = json!(8);
        assert_eq!(compare(&expected, &[second, line("bind", 1)]), Ok(()));
        assert!(compare(&expected, &[line("bind", 1), line("bind", 2)]).is_err());
    }

    #[test]
    fn each_want_says_what_it_means() {
        let line = json!({"a": {"b": 5}, "no": false, "yes": true, "list": ["x", "y"],
                          "text": "held by nginx (pid 8)", "ugly": "a\u{1b}[2J", "missing": ["gone"]});
        let pass = |path: &str, want: Want| {
            assert_eq!(want.check(&line, path), Ok(()), "{want:?} at {path}");
        };
        let fail = |path: &str, want: Want| {
            assert!(want.check(&line, path).is_err(), "{want:?} at {path}");
        };
        pass("a.b", Want::is(5));
        fail("a.b", Want::is("5"));
        fail("a.c", Want::is(5));
        pass("list.1", Want::is("y"));
        fail("list.2", Want::Present);
        pass("a", Want::Present);
        pass("a.c", Want::Absent);
        fail("a.b", Want::Absent);
        pass("no", Want::NotTrue);
        pass("none", Want::NotTrue);
        fail("yes", Want::NotTrue);
        pass("a.b", Want::Within(5, 5));
        fail("a.b", Want::Within(6, 9));
        fail("yes", Want::Within(0, 9));
        pass("a.b", Want::OneOf(vec![json!(4), json!(5)]));
        fail("a.b", Want::OneOf(vec![json!(4)]));
        pass("list", Want::Lists(json!("x")));
        fail("list", Want::Lists(json!("z")));
        fail("a.b", Want::Lists(json!(5)));
        pass("text", Want::says(&["nginx", "pid 8"]));
        fail("text", Want::says(&["nginx", "pid 9"]));
        fail("none", Want::says(&[]));
        pass("text", Want::Harmless);
        fail("ugly", Want::Harmless);
        fail("none", Want::Harmless);
        pass("none", Want::is(1).maybe());
        pass("a.b", Want::is(5).maybe());
        fail("a.b", Want::is(1).maybe());
        pass("gone", Want::is(1).known());
        pass("part.0", Want::is(1).unless_missing("gone"));
        fail("part.0", Want::is(1).unless_missing("part"));
        fail("a.b", Want::is(1).unless_missing("gone"));
        fail("none", Want::is(1).known());
        fail("a.b", Want::is(1).known());
    }

    #[test]
    fn a_scenario_owns_its_namespaces_and_processes() {
        let expected = Expected {
            pids: vec![7],
            netns: vec![99],
            ..Expected::default()
        };
        assert!(expected.owns(&json!({"socket": {"netns": 99}})));
        assert!(expected.owns(&json!({"process": {"pid": 7}})));
        assert!(expected.owns(&json!({"process": {"pid": 8, "parent_pid": 7}})));
        assert!(!expected.owns(&json!({"process": {"pid": 8}, "socket": {"netns": 98}})));
    }

    #[test]
    fn expectations_survive_the_pipe() {
        let mut expected = ordered(vec![want("bind", 1)]);
        expected.lines[0].set("x", Want::Within(1, u64::MAX).maybe().known());
        let text = serde_json::to_string(&expected).expect("plain data");
        assert_eq!(serde_json::from_str::<Expected>(&text).ok(), Some(expected));
    }
}
