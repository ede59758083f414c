#![expect(clippy::unwrap_used, reason = "tests panic")]

use super::*;

const ALL: &[Column] = &[
    Column::Transport,
    Column::State,
    Column::Count,
    Column::Local,
    Column::Service,
    Column::Peer,
    Column::Left,
    Column::Netns,
    Column::Class,
    Column::Options,
    Column::Pid,
    Column::Up,
    Column::Container,
    Column::Unit,
    Column::Command,
];

fn look(width: Option<usize>) -> Look {
    Look {
        width,
        color: false,
        header: true,
        args: true,
        now: crate::sample::time(),
        columns: ALL,
    }
}

fn shown(look: Look) -> String {
    String::from_utf8(lines(&crate::sample::listings(), look)).unwrap()
}

#[test]
fn in_columns() {
    insta::assert_snapshot!(shown(look(Some(240))));
}

#[test]
fn in_a_pipe_every_line_has_every_column() {
    let text = shown(look(None));
    let fields = |line: &str| line.split_whitespace().count().min(ALL.len());
    assert!(text.lines().all(|line| fields(line) == ALL.len()), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn lines_fit_the_terminal_where_they_can() {
    let fixed = |width: usize| {
        let text = shown(look(Some(width)));
        assert!(
            text.lines().all(|line| line.chars().count() <= width),
            "{width}: {text}"
        );
        text
    };
    assert!(fixed(240).contains("CLASS"));
    let text = fixed(150);
    assert!(!text.contains("CLASS") && text.contains("UNIT"), "{text}");
    let text = fixed(100);
    assert!(
        !text.contains("SERVICE") && text.contains("COMMAND"),
        "{text}"
    );
    // What cannot be done without is shown all the same.
    let text = shown(look(Some(20)));
    assert!(text.contains("127.0.0.1:51234"), "{text}");
}

#[test]
fn without_titles_and_arguments_and_with_names_that_would_harm() {
    let bare = shown(Look {
        header: false,
        args: false,
        ..look(Some(240))
    });
    assert!(!bare.contains("PROTO") && !bare.contains("server.js"));
    assert!(bare.chars().all(|one| one == '\n' || !one.is_control()));
}

#[test]
fn an_owner_that_is_hidden_stands_out() {
    let colored = shown(Look {
        color: true,
        ..look(Some(240))
    });
    let line = colored.lines().find(|line| line.contains("10.0.0.1"));
    let line = line.unwrap();
    assert!(line.ends_with("\u{1b}[1m\u{1b}[33m?\u{1b}[0m"), "{line:?}");
}
