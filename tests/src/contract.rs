//! What holds for every line of every stream, whatever the scenario.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::{degraded, expect::lookup};

/// The published schema.
static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    validator(
        "docs/schema/portwatch-1.json",
        include_str!("../../docs/schema/portwatch-1.json"),
    )
});

/// That of `churn`.
static CHURN: LazyLock<Validator> = LazyLock::new(|| {
    validator(
        "docs/schema/churn-1.json",
        include_str!("../../docs/schema/churn-1.json"),
    )
});

fn validator(name: &str, text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).unwrap_or_default();
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema);
    match validator {
        Ok(validator) => validator,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// A line of `churn`, if nothing is wrong with it.
pub(crate) fn churn(text: &str) -> Result<Value, anyhow::Error> {
    let line: Value = serde_json::from_str(text)?;
    let wrong: Vec<_> = CHURN
        .iter_errors(&line)
        .map(|error| format!("{error} at {:?}", error.instance_path().as_str()))
        .collect();
    anyhow::ensure!(wrong.is_empty(), "{}: {text}", wrong.join("; "));
    Ok(line)
}

/// The names of `event.name` that this version prints.
const NAMES: &[&str] = &[
    "start", "bind", "listen", "connect", "autobind", "accept", "release", "lost", "end",
];

/// Checks a stream line by line.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    seq: u64,
    events: u64,
    failures: u64,
    lost: u64,
    ended: bool,
}

impl Stream {
    /// Takes the next line; all that is wrong with it.
    pub(crate) fn check(&mut self, text: &str) -> Result<Value, Vec<String>> {
        let line: Value = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(error) => return Err(vec![format!("not JSON ({error}): {text:?}")]),
        };
        let mut wrong: Vec<_> = SCHEMA
            .iter_errors(&line)
            .map(|error| format!("{error} at {:?}", error.instance_path().as_str()))
            .collect();
        self.check_place(&line, &mut wrong);
        check_values(&line, "", &mut wrong);
        check_missing(&line, &mut wrong);
        if wrong.is_empty() {
            Ok(line)
        } else {
            Err(wrong)
        }
    }

    /// Events seen so far: (all, failures, lost).
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.events, self.failures, self.lost)
    }

    /// Whether `end` was seen.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    fn check_place(&mut self, line: &Value, wrong: &mut Vec<String>) {
        let mut expect = |ok: bool, what: &str| {
            if !ok {
                wrong.push(what.to_owned());
            }
        };
        let text = |path| lookup(line, path).and_then(Value::as_str);
        let number = |path| lookup(line, path).and_then(Value::as_u64);
        self.seq += 1;
        expect(
            text("schema") == Some("portwatch/1"),
            "schema is not portwatch/1",
        );
        expect(
            number("seq") == Some(self.seq),
            &format!("seq is not {}, one more than before", self.seq),
        );
        expect(
            text("time").is_some_and(is_utc),
            "time is no RFC 3339 UTC time with ns",
        );
        expect(!self.ended, "a line after `end`");
        let name = text("event.name").unwrap_or_default();
        expect(
            NAMES.contains(&name),
            &format!("event.name {name:?} is not in the contract"),
        );
        expect(
            (name == "start") == (self.seq == 1),
            "`start` is not the first line, or not alone",
        );
        let outcome = text("event.outcome");
        match name {
            "start" => {
                for path in [
                    "portwatch.version",
                    "kernel.release",
                    "host.name",
                    "backend",
                ] {
                    expect(text(path).is_some(), &format!("`start` without {path}"));
                }
                let degraded: Vec<_> = line
                    .get("degraded")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                wrong.extend(degraded::compare(
                    text("backend").unwrap_or_default(),
                    &degraded,
                ));
            }
            "lost" => {
                expect(text("lost.reason").is_some(), "`lost` without lost.reason");
                expect(
                    number("lost.count").is_some_and(|n| n > 0),
                    "`lost` of nothing",
                );
                self.lost += number("lost.count").unwrap_or(0);
            }
            "end" => self.ended = true,
            _ => {
                self.events += 1;
                self.failures += u64::from(outcome == Some("failure"));
                expect(
                    matches!(outcome, Some("success" | "failure" | "unknown")),
                    "event.outcome is none of success, failure, unknown",
                );
                expect(
                    (outcome == Some("failure")) == lookup(line, "error").is_some(),
                    "error without failure, or failure without error",
                );
                expect(number("time_boot").is_some(), "an event without time_boot");
                expect(
                    text("network.transport").is_some(),
                    "an event without network.transport",
                );
            }
        }
    }
}

/// Takes line number `seq` of sockets that were looked up; all that is wrong with it.
pub(crate) fn record(text: &str, seq: u64) -> Result<Value, Vec<String>> {
    one(text, "socket", seq)
}

/// Takes an answer that is a line by itself; all that is wrong with it.
pub(crate) fn answer(text: &str, record: &str) -> Result<Value, Vec<String>> {
    one(text, record, 1)
}

fn one(text: &str, record: &str, seq: u64) -> Result<Value, Vec<String>> {
    let line: Value = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(error) => return Err(vec![format!("not JSON ({error})")]),
    };
    let mut wrong: Vec<_> = SCHEMA
        .iter_errors(&line)
        .map(|error| format!("{error} at {:?}", error.instance_path().as_str()))
        .collect();
    for (path, value) in [("record", Value::from(record)), ("seq", seq.into())] {
        if lookup(&line, path) != Some(&value) {
            wrong.push(format!("{path} is not {value}"));
        }
    }
    check_values(&line, "", &mut wrong);
    check_missing(&line, &mut wrong);
    if wrong.is_empty() {
        Ok(line)
    } else {
        Err(wrong)
    }
}

/// Unknown is absent: never null, never an empty text.
fn check_values(value: &Value, path: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Null => wrong.push(format!("{path} is null")),
        Value::String(text) if text.is_empty() && !path.contains("command_args") => {
            wrong.push(format!("{path} is empty"));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                check_values(value, &path, wrong);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                check_values(value, &format!("{path}.{index}"), wrong);
            }
        }
        _ => {}
    }
}

/// What is listed as missing is missing.
fn check_missing(line: &Value, wrong: &mut Vec<String>) {
    for path in line
        .get("missing")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        match path.as_str() {
            Some(path) if lookup(line, path).is_none() => {}
            _ => wrong.push(format!("`missing` lists {path}, which is there")),
        }
    }
}

/// `2026-11-22T10:11:12.123456789Z`
fn is_utc(text: &str) -> bool {
    const FORM: &str = "0000-00-00T00:00:00.000000000Z";
    text.len() == FORM.len()
        && text
            .chars()
            .zip(FORM.chars())
            .all(|(got, form)| match form {
                '0' => got.is_ascii_digit(),
                _ => got == form,
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"schema":"portwatch/1","seq":1,"time":"2026-11-22T10:11:12.123456789Z",
        "time_boot":5,"event":{"name":"start"},"portwatch":{"version":"1"},
        "kernel":{"release":"6.1"},"host":{"name":"h"},"backend":"tracing",
        "degraded":["calls-before-socket-layer: EBADF","sctp-beyond-bind: SCTP listen",
            "preempted-calls: while another task","error-read-early: the errno",
            "accept-refused-early: EMFILE"]}"#;

    fn bind(seq: u64) -> String {
        format!(
            r#"{{"schema":"portwatch/1","seq":{seq},"time":"2026-11-22T10:11:12.123456789Z",
            "time_boot":5,"event":{{"name":"bind","outcome":"success"}},
            "network":{{"transport":"tcp","type":"ipv4"}},"socket":{{}},
            "process":{{"pid":7,"user":{{"id":0}}}},"thread":{{"id":7}}}}"#
        )
    }

    #[test]
    fn a_right_stream_passes_and_is_counted() {
        let mut stream = Stream::default();
        assert!(
            stream.check(START).is_ok(),
            "{:?}",
            Stream::default().check(START)
        );
        assert!(stream.check(&bind(2)).is_ok());
        assert_eq!(stream.totals(), (1, 0, 0));
        assert!(!stream.ended());
    }

    #[test]
    fn gaps_and_wrong_beginnings_are_seen() {
        let mut stream = Stream::default();
        assert!(stream.check(START).is_ok());
        assert!(stream.check(&bind(3)).is_err());
        assert!(Stream::default().check(&bind(1)).is_err());
    }

    #[test]
    fn nulls_empty_texts_and_false_missing_are_seen() {
        for bad in [
            r#""x":null"#,
            r#""x":{"y":""}"#,
            r#""missing":["event.name"]"#,
            r#""error":{"code":5}"#,
        ] {
            let mut stream = Stream::default();
            assert!(stream.check(START).is_ok());
            let line = bind(2).replacen('{', &format!("{{{bad},"), 1);
            assert!(stream.check(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn times_are_utc_with_nanoseconds() {
        assert!(is_utc("2026-11-22T10:11:12.123456789Z"));
        assert!(!is_utc("2026-11-22T10:11:12Z"));
        assert!(!is_utc("2026-11-22T10:11:12.123456789+01:00"));
    }
}
