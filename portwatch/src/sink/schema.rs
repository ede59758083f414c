//! The published schema, for tests: every line that a test prints must be valid.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../docs/schema/portwatch-1.json");

static PUBLISHED: LazyLock<Validator> = LazyLock::new(|| validator(&parsed()));

/// The published schema with every field closed that it does not name. Readers must accept fields
/// that are added later; we must not print one that is not documented.
static STRICT: LazyLock<Validator> = LazyLock::new(|| {
    let mut schema = parsed();
    close(&mut schema);
    for line in [
        "start_line",
        "socket_line",
        "lost_line",
        "end_line",
        "record_line",
        "check_line",
        "check_range_line",
    ] {
        // A line's own keys stand in two places: here and at the root.
        let properties = schema["$defs"][line]["properties"].as_object_mut().unwrap();
        for common in ["schema", "seq", "time", "time_boot"] {
            properties.insert(common.to_owned(), json!(true));
        }
        schema["$defs"][line]["additionalProperties"] = json!(false);
    }
    validator(&schema)
});

fn parsed() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

pub(crate) fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

/// Closes every object type that names its properties.
pub(crate) fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            if object.get("type") == Some(&json!("object"))
                && object.contains_key("properties")
                && !object.contains_key("oneOf")
            {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with lines, by the published schema and by its strict reading; empty if nothing.
pub(crate) fn problems(lines: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for line in lines.lines() {
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => {
                problems.push(format!("{error}: {line}"));
                continue;
            }
        };
        for validator in [&*PUBLISHED, &*STRICT] {
            problems.extend(
                validator
                    .iter_errors(&value)
                    .map(|error| format!("{}: {error}: {line}", error.instance_path())),
            );
        }
    }
    problems
}

/// Whether the published schema alone accepts a line.
fn accepts(line: &Value) -> bool {
    PUBLISHED.is_valid(line)
}

#[test]
fn the_schema_itself_is_valid() {
    assert!(jsonschema::draft202012::meta::is_valid(&parsed()));
}

#[test]
fn the_schema_refuses_what_the_contract_forbids() {
    let line: Value = json!({
        "schema": "portwatch/1", "seq": 2, "time": "2026-11-22T12:03:11.482000000Z", "time_boot": 5,
        "event": {"name": "bind", "outcome": "failure", "via": "syscall", "duration": 9},
        "error": {"type": "EADDRINUSE", "code": 98},
        "network": {"transport": "tcp", "type": "ipv4", "local": {"address": "0.0.0.0", "port": 80}},
        "socket": {"cookie": "1a", "inode": 7, "auto_port": false},
        "process": {"pid": 1, "comm": "x", "user": {"id": 0}},
        "thread": {"id": 1},
        "conflict": {
            "kind": "listener", "overlap": "exact", "reason": "no_reuse", "device": false,
            "holders": [{
                "kind": "listener",
                "network": {"transport": "tcp", "type": "ipv4", "connection": {"state": "listen"}},
                "socket": {}, "since": "2026-11-22T12:03:11.482000000Z", "processes": [],
                "creator": {"pid": 7, "user": {"id": 0}, "exited": true}
            }],
            "holders_total": 1, "truncated": false, "message": "held by x", "hint": "Stop x."
        },
        "missing": ["conflict.holders.processes"]
    });
    assert!(accepts(&line));

    for (pointer, wrong) in [
        ("/schema", json!("portwatch/2")),
        ("/seq", json!(0)),
        ("/time", json!("2026-11-22T12:03:11Z")),
        ("/time", json!("2026-11-22T12:03:11.482000000+01:00")),
        ("/event/name", json!("release?")),
        ("/event/outcome", json!("failed")),
        ("/event/outcome", json!("success")),
        ("/event/outcome", json!("unknown")),
        ("/event/via", json!("io-uring")),
        ("/event/duration", json!(-1)),
        ("/error/type", json!("")),
        ("/error/code", json!(-98)),
        ("/error", json!(null)),
        ("/network/transport", json!("mptcp")),
        ("/network/local/address", json!("localhost")),
        ("/network/local/port", json!(65536)),
        ("/network/local/port", json!("80")),
        ("/network/local", json!({})),
        ("/socket/cookie", json!("0")),
        ("/socket/cookie", json!(26)),
        ("/socket/inode", json!(0)),
        ("/socket/auto_port", json!(0)),
        ("/process/pid", json!(null)),
        ("/process/comm", json!("")),
        ("/thread", json!({})),
        ("/conflict/kind", json!("socket")),
        ("/conflict/kind", json!(null)),
        ("/conflict/overlap", json!("partial")),
        ("/conflict/reason", json!("reuse")),
        ("/conflict/message", json!("two\nlines")),
        ("/conflict/hint", json!("")),
        ("/conflict/exhausted", json!({"range": [1, 2]})),
        ("/conflict/holders/0", json!({})),
        ("/conflict/holders/0/kind", json!("exhausted")),
        ("/conflict/holders/0/network/connection", json!(null)),
        ("/conflict/holders/0/since", json!("2026-11-22T12:03:11Z")),
        ("/conflict/holders/0/processes", json!([{}])),
        ("/conflict/holders/0/creator/exited", json!(false)),
        ("/missing", json!([])),
    ] {
        let mut broken = line.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match broken.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = wrong.clone(),
            parent => parent[key] = wrong.clone(),
        }
        assert!(!accepts(&broken), "{pointer} {wrong}");
    }

    let record: Value = json!({
        "schema": "portwatch/1", "seq": 1, "time": "2026-11-22T12:03:11.482000000Z", "time_boot": 5,
        "record": "socket",
        "network": {"transport": "tcp", "type": "ipv4", "connection": {"state": "listen"}},
        "socket": {"inode": 7}, "processes": [], "missing": ["process"]
    });
    assert!(accepts(&record));
    for key in ["record", "network", "socket", "processes", "time"] {
        let mut broken = record.clone();
        broken.as_object_mut().unwrap().remove(key);
        assert!(!accepts(&broken), "without {key}");
    }
    assert!(problems(&record.to_string()).is_empty());

    let mut newer = line.clone();
    newer["socket"]["mark"] = json!(7);
    newer["netfilter"] = json!({});
    assert!(accepts(&newer), "fields may be added");
    assert!(!problems(&newer.to_string()).is_empty(), "but we have none");
}
