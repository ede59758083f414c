#![expect(clippy::unwrap_used, reason = "tests panic")]

use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::{sample, sink::escape::is_harmful};

/// What goes to the output, and what to the notes.
fn printed(items: &[Item], adjust: impl FnOnce(&mut TextOptions)) -> (String, String) {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut options = TextOptions {
        width: None,
        color: false,
        args: true,
        quiet: false,
        zone: TimeZone::UTC,
    };
    adjust(&mut options);
    let mut text = Text::new(&mut out, &mut notes, options);
    for item in items {
        text.item(item).unwrap();
    }
    text.flush().unwrap();
    (
        String::from_utf8(out).unwrap(),
        String::from_utf8(notes).unwrap(),
    )
}

/// Header, data and totals as they appear on a terminal of this width.
fn terminal(items: &[Item], columns: usize) -> String {
    let (data, notes) = printed(items, |options| options.width = Some(columns));
    let (header, totals) = match notes.trim_end().rsplit_once('\n') {
        Some((header, totals)) => (format!("{header}\n"), format!("{totals}\n")),
        None => (String::new(), notes),
    };
    format!("{header}{data}{totals}")
}

#[test]
fn on_80_columns() {
    insta::assert_snapshot!(terminal(&sample::stream(), 80));
}

#[test]
fn on_120_columns() {
    insta::assert_snapshot!(terminal(&sample::stream(), 120));
}

#[test]
fn piped() {
    insta::assert_snapshot!(printed(&sample::stream(), |_| {}).0);
}

#[test]
fn hostile_names() {
    insta::assert_snapshot!(printed(&sample::hostile(), |_| {}).0);
    insta::assert_snapshot!(
        "hostile_names_on_80_columns",
        terminal(&sample::hostile(), 80)
    );
}

#[test]
fn in_colours() {
    let items = [
        sample::event(sample::sighting(crate::event::Op::Bind, "0.0.0.0:8080")),
        sample::event(sample::conflicts().swap_remove(0)),
        sample::event(sample::exposed("0.0.0.0:46007")),
        sample::lost(3, LostReason::TableFull),
    ];
    let (data, _) = printed(&items, |options| {
        options.color = true;
        options.width = Some(80);
    });
    insta::assert_snapshot!(data.replace('\x1b', "␛"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let items: Vec<_> = sample::stream()
        .into_iter()
        .chain(sample::hostile())
        .collect();
    for columns in 80..260 {
        let (data, _) = printed(&items, |options| options.width = Some(columns));
        for line in data.lines() {
            assert!(line.width() <= columns, "{columns}: {line}");
        }
    }
}

#[test]
fn nothing_harmful_reaches_a_terminal() {
    for columns in [None, Some(80), Some(120)] {
        let (data, _) = printed(&sample::hostile(), |options| options.width = columns);
        assert!(!data.chars().any(|c| c != '\n' && is_harmful(c)), "{data}");
        assert!(data.lines().all(is_ours), "{data}");
    }
}

/// An event, a note, or how a note goes on.
fn is_ours(line: &str) -> bool {
    ["12:03:11.482 ", "             ↳ ", "               "]
        .iter()
        .any(|start| line.starts_with(start))
}

#[test]
fn words_that_the_row_has_are_not_said_again() {
    let refused = sample::refused(
        sample::sighting(crate::event::Op::Bind, "0.0.0.0:8080"),
        crate::event::Kind::Unknown,
        libc::EINVAL,
    );
    let items = [sample::event(refused)];
    for (columns, lines) in [(80, 2), (120, 1)] {
        let (data, _) = printed(&items, |options| options.width = Some(columns));
        assert_eq!(data.lines().count(), lines, "{data}");
        assert_eq!(data.matches("invalid argument").count(), 1, "{data}");
    }
}

#[test]
fn a_name_longer_than_a_line_is_wrapped() {
    let name = "x".repeat(255);
    let holder =
        sample::held(crate::event::Kind::Listener, "0.0.0.0:8080").by(sample::occupant(900, &name));
    let items = [sample::event(sample::refused_by(
        sample::sighting(crate::event::Op::Bind, "0.0.0.0:8080"),
        vec![holder],
    ))];
    let (data, _) = printed(&items, |options| options.width = Some(80));
    assert!(data.lines().all(|line| line.width() <= 80), "{data}");
}

#[test]
fn arguments_can_be_left_out() {
    let items = [sample::event(sample::sighting(
        crate::event::Op::Bind,
        "0.0.0.0:8080",
    ))];
    let (data, _) = printed(&items, |options| options.args = false);
    assert!(
        data.contains(" node ") && !data.contains("server.js"),
        "{data}"
    );
}

#[test]
fn header_and_totals_are_notes_and_can_be_left_out() {
    let items = [sample::start(), sample::end(1, 0, 0)];
    let (data, notes) = printed(&items, |_| {});
    assert_eq!(data, "");
    insta::assert_snapshot!(notes);
    assert_eq!(
        printed(&items, |options| options.quiet = true),
        (String::new(), String::new())
    );
}

#[test]
fn a_closed_pipe_is_reported() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let options = TextOptions {
        width: None,
        color: false,
        args: true,
        quiet: true,
        zone: TimeZone::UTC,
    };
    let mut text = Text::new(writer, io::sink(), options);
    text.item(&sample::stream()[1]).unwrap();
    assert_eq!(text.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
