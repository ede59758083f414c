#![expect(clippy::unwrap_used, reason = "tests panic")]

mod connections;
mod families;
mod owners;
mod refusals;
mod rules;

use std::fmt::Write as _;

use crate::{
    conflict::verdict::judge,
    event::{Container, Op, Overlap, Reason, *},
    sample::{
        self, Held, again, borne, by, connect, exhausted, held, nginx, occupant, refused,
        refused_by, sighting,
    },
    sink::escape::is_harmful,
};

fn bind(local: &str) -> Sighting {
    sighting(Op::Bind, local)
}

fn udp(mut sighting: Sighting) -> Sighting {
    sighting.event.transport = Transport::Udp;
    sighting
}

fn adjusted(mut sighting: Sighting, adjust: impl FnOnce(&mut Event)) -> Sighting {
    adjust(&mut sighting.event);
    sighting
}

/// A listener of knxd on 0.0.0.0:6720.
fn knxd() -> Held {
    held(Kind::Listener, "0.0.0.0:6720")
        .rule(Overlap::Exact, Reason::NoReuse)
        .lasting(86_400)
}

fn systemd() -> Occupant {
    occupant(1, "systemd")
}

fn container(id: &str, runtime: &'static str) -> Option<Container> {
    Some(Container {
        id: id.repeat(4),
        runtime: Some(runtime),
    })
}

fn in_container(pid: u32, name: &str) -> Occupant {
    occupant(pid, name).with(|process| process.container = container("0a1b2c3d4e5f6071", "docker"))
}

/// The same, of cases that a verdict can come to.
fn judged(cases: Vec<(&str, Sighting)>) -> String {
    for (title, sighting) in &cases {
        let verdict = judge(&sighting.event, Backend::Tracing, || Some(1024)).unwrap();
        let said = &sighting.explanation.as_ref().unwrap().verdict;
        assert_eq!(verdict, *said, "{title}");
    }
    told(cases)
}

/// A title and what is said, a case each.
fn told(cases: Vec<(&str, Sighting)>) -> String {
    let mut text = String::new();
    for (title, sighting) in cases {
        let explanation = sighting.explanation.unwrap();
        let hint = explanation
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!(". {hint}"));
        writeln!(text, "{title}:\n    {}{hint}", explanation.message).unwrap();
    }
    text
}

#[test]
fn names_are_harmless_and_lines_are_lines() {
    for item in sample::hostile() {
        let Item::Event(caller) = item else { continue };
        let name = caller.event.task.comm.as_deref().unwrap();
        for sighting in [
            refused_by(
                bind("0.0.0.0:8080"),
                vec![held(Kind::Listener, "0.0.0.0:8080").by(occupant(900, name))],
            ),
            refused(*caller.clone(), Kind::Privileged, libc::EACCES),
        ] {
            let explanation = sighting.explanation.unwrap();
            for words in [Some(&explanation.message), explanation.hint.as_ref()]
                .into_iter()
                .flatten()
            {
                assert!(!words.chars().any(is_harmful), "{words:?}");
            }
        }
    }
}

#[test]
fn a_verdict_without_owners_is_survived() {
    let mut sighting = refused_by(bind("0.0.0.0:8080"), vec![nginx()]);
    sample::explanation_of(&mut sighting).owners.clear();
    assert_eq!(
        again(sighting).explanation.unwrap().message,
        "held by a socket of uid 0 (listening on 127.0.0.1:8080); its process could not be found; \
         your wildcard covers it; SO_REUSEADDR does not count against a listener"
    );
}
