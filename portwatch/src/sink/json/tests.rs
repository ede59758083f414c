#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::io;

use serde_json::Value;

use super::*;
use crate::{event::Op, sample, sink::schema};

fn printed(items: &[Item], args: bool) -> String {
    let mut out = Vec::new();
    let mut json = Json::new(&mut out, args);
    for item in items {
        json.item(item).unwrap();
    }
    json.flush().unwrap();
    String::from_utf8(out).unwrap()
}

fn everything() -> Vec<Item> {
    sample::stream()
        .into_iter()
        .chain(sample::hostile())
        .collect()
}

#[test]
fn lines() {
    insta::assert_snapshot!(printed(&sample::stream(), true));
    insta::assert_snapshot!("hostile_names", printed(&sample::hostile(), true));
}

#[test]
fn every_line_is_valid() {
    let lines = printed(&everything(), true);
    assert_eq!(schema::problems(&lines), [""; 0]);
}

#[test]
fn lines_are_counted_from_one() {
    for (line, expected) in printed(&everything(), true).lines().zip(1..) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["seq"], expected);
    }
}

#[test]
fn keys_stand_in_one_order() {
    let lines = printed(&everything(), true);
    let keys = [
        "schema",
        "seq",
        "time",
        "time_boot",
        "event",
        "error",
        "network",
        "socket",
        "process",
        "thread",
        "container",
        "systemd",
        "conflict",
        "warning",
        "missing",
    ]
    .map(|key| format!("\"{key}\":"));
    for line in lines.lines().filter(|line| line.contains("\"outcome\"")) {
        let places: Vec<_> = keys.iter().filter_map(|key| top_level(line, key)).collect();
        assert!(places.is_sorted(), "{line}");
        assert!(places.len() >= 8, "{line}");
    }
}

/// Where a key of the outermost object stands.
fn top_level(line: &str, key: &str) -> Option<usize> {
    let mut depth = 0;
    let mut in_string = false;
    let mut escaped = false;
    for (place, character) in line.char_indices() {
        if depth == 1 && !in_string && line[place..].starts_with(key) {
            return Some(place);
        }
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn arguments_can_be_left_out() {
    let items = [sample::event(sample::sighting(Op::Bind, "0.0.0.0:8080"))];
    assert!(printed(&items, true).contains("\"command_args\":[\"node\",\"server.js\"]"));
    assert!(!printed(&items, false).contains("server.js"));
}

#[test]
fn what_is_not_known_is_absent() {
    for line in printed(&everything(), true).lines() {
        assert!(
            !line.contains("null") && !line.contains("\"\"") && !line.contains("{}"),
            "{line}"
        );
    }
}

#[test]
fn a_full_disk_is_reported() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut json = Json::new(full, true);
    json.item(&sample::start()).unwrap();
    assert_eq!(json.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
}
