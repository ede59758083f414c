#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::path::Path;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::{
    event::{End, Item, Lost, LostReason},
    sample::{self, by, connect, event, exposed, failed, nginx, refused_by, sighting},
    sink::{json, schema, text::report::Look},
    store::{
        database::{Opened, Reader, open},
        keep::Keep,
        retention::Bounds,
    },
};

const SECOND: u64 = 1_000_000_000;

fn moment(seconds: u64) -> Time {
    let time = sample::time();
    Time {
        boot: time.boot + seconds * SECOND,
        utc: time.utc + std::time::Duration::from_secs(seconds),
    }
}

/// The event happens so many seconds later, in a process of that number.
fn at(seconds: u64, pid: u32, mut sighting: Sighting) -> Item {
    sighting.time = moment(seconds);
    sighting.event.time_boot = sighting.time.boot;
    sighting.event.task.pid = pid;
    sighting.event.task.tid = pid;
    event(sighting)
}

fn start(seconds: u64) -> Item {
    let Item::Start(start) = sample::start() else {
        panic!("no start");
    };
    Item::Start(crate::event::Start {
        time: moment(seconds),
        ..start
    })
}

fn end(seconds: u64) -> Item {
    Item::End(End {
        events: 0,
        failures: 0,
        lost: 0,
        time: moment(seconds),
    })
}

fn lost(seconds: u64, count: u64) -> Item {
    Item::Lost(Lost {
        count,
        reason: LostReason::RingFull,
        time: moment(seconds),
    })
}

/// A night: a service that is restarted until its port is free, one that never gets it, a listener that
/// nobody wanted, a database that is down, and a recorder that is killed.
fn night() -> Vec<Item> {
    let refused = || refused_by(sighting(Op::Bind, "0.0.0.0:8080"), vec![nginx()]);
    let mut items = vec![start(0)];
    for try_ in 0..6u32 {
        items.push(at(10 * u64::from(try_) + 1, 500 + try_, refused()));
    }
    items.push(at(65, 506, sighting(Op::Bind, "0.0.0.0:8080")));
    items.push(at(65, 506, sighting(Op::Listen, "0.0.0.0:8080")));
    let other = || by(refused(), "java", "/usr/bin/java", &["java", "-jar", "x"]);
    items.push(at(70, 600, other()));
    items.push(at(75, 600, other()));
    items.push(at(80, 700, exposed("0.0.0.0:46007")));
    items.push(lost(90, 1204));
    for second in 100..140 {
        let down = failed(
            connect("127.0.0.1:40000", "127.0.0.1:5432"),
            libc::ECONNREFUSED,
        );
        items.push(at(second, 800, down));
        let client = connect("127.0.0.1:40001", "127.0.0.1:443");
        items.push(at(second, 801, client));
    }
    items.push(start(4000));
    items.push(at(4001, 900, sighting(Op::Bind, "0.0.0.0:81")));
    items.push(end(4100));
    items
}

fn report(items: &[Item], scope: Scope, top: usize) -> Report {
    let mut summary = Summary::new(scope);
    items.iter().for_each(|item| summary.item(item));
    summary.finish(top)
}

fn of_file(path: &Path, scope: Scope, top: usize) -> Report {
    let mut summary = Summary::new(scope);
    Reader::open(path).unwrap().sum_up(&mut summary).unwrap();
    summary.finish(top)
}

fn recorded(items: &[Item]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pwdb");
    let bounds = Bounds {
        size: 64 << 20,
        age: None,
    };
    let Opened {
        mut database,
        mut encoder,
        ..
    } = open(&path, bounds).unwrap();
    let mut entries = Vec::new();
    items
        .iter()
        .for_each(|item| encoder.item(item, &mut entries));
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let count = database.write(rest, Timestamp::now()).unwrap();
        rest = &rest[count..];
    }
    database.close().unwrap();
    (folder, path)
}

fn everything() -> Vec<Item> {
    let samples = sample::stream().into_iter().chain(sample::hostile());
    night().into_iter().chain(samples).collect()
}

fn text(report: &Report, width: Option<usize>) -> String {
    let look = Look {
        width,
        color: false,
        zone: TimeZone::UTC,
    };
    String::from_utf8(crate::sink::text::report::lines(report, &look)).unwrap()
}

#[test]
fn a_night_for_people() {
    let report = report(&night(), Scope::default(), 10);
    insta::assert_snapshot!("night", text(&report, None));
    insta::assert_snapshot!("night_on_80_columns", text(&report, Some(80)));
}

#[test]
fn a_night_for_programs() {
    let report = report(&night(), Scope::default(), 10);
    let line: serde_json::Value = serde_json::from_slice(&json::report::line(&report)).unwrap();
    insta::assert_json_snapshot!("night_for_programs", line);
}

#[test]
fn every_report_is_valid() {
    let published: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/schema/report-1.json")).unwrap();
    let mut closed = published.clone();
    schema::close(&mut closed);
    for items in [night(), everything(), Vec::new()] {
        for top in [1, 100] {
            let line = json::report::line(&report(&items, Scope::default(), top));
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            for schema in [&published, &closed] {
                let validator = schema::validator(schema);
                let problems: Vec<_> = validator
                    .iter_errors(&line)
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert_eq!(problems, [""; 0]);
            }
        }
    }
}

#[test]
fn no_control_character_reaches_a_terminal() {
    let text = text(&report(&everything(), Scope::default(), 1000), Some(100));
    assert!(text.contains("gpj.exe"), "{text}");
    for character in text.chars().filter(|one| *one != '\n') {
        assert!(
            !character.is_control() && character != '\u{202e}',
            "{text:?}"
        );
    }
}

#[test]
fn a_file_and_its_lines_give_one_report() {
    let items = everything();
    let (_folder, path) = recorded(&items);
    let mut all = Vec::new();
    let mut sink = json::Json::new(&mut all, true);
    items
        .iter()
        .for_each(|item| crate::sink::Sink::item(&mut sink, item).unwrap());
    crate::sink::Sink::flush(&mut sink).unwrap();
    drop(sink);
    let lines: Vec<Item> = String::from_utf8(all)
        .unwrap()
        .lines()
        .map(|line| crate::source::json::line(line).unwrap())
        .collect();
    let scopes = [
        Scope::default(),
        Scope {
            since: Some(moment(70).utc),
            until: Some(moment(120).utc),
            ports: Vec::new(),
        },
        Scope {
            ports: vec![8080..=8080],
            ..Scope::default()
        },
    ];
    for scope in scopes {
        let direct = report(&items, scope.clone(), 100);
        assert_eq!(of_file(&path, scope.clone(), 100), direct);
        assert_eq!(report(&lines, scope, 100), direct);
    }
}

#[test]
fn a_conflict_is_resolved_when_the_same_program_gets_the_port() {
    let report = report(&night(), Scope::default(), 10);
    let [java, node] = &report.conflicts[..] else {
        panic!("{:?}", report.conflicts);
    };
    assert_eq!((java.count, java.resolution), (2, None));
    assert_eq!(node.count, 6);
    let took = node.resolution.unwrap().took.unwrap();
    assert_eq!(took.as_secs(), 64, "from the first failure on");
    let flapping = node.flapping.unwrap();
    assert_eq!(flapping.processes, 6);
    assert_eq!(flapping.every.unwrap().as_secs(), 10);
}

#[test]
fn a_conflict_that_comes_back_is_open_again() {
    let refused = || refused_by(sighting(Op::Bind, "0.0.0.0:8080"), vec![nginx()]);
    let items = [
        at(0, 1, refused()),
        at(5, 1, sighting(Op::Bind, "0.0.0.0:8080")),
        at(9, 2, refused()),
    ];
    let resolution = report(&items, Scope::default(), 1).conflicts[0].resolution;
    let resolution = resolution.unwrap();
    assert!(resolution.open_again);
    assert_eq!(resolution.times, 1);
}

#[test]
fn a_recorder_that_was_killed_left_a_gap() {
    let report = report(&night(), Scope::default(), 10);
    let [gap] = report.gaps[..] else {
        panic!("{:?}", report.gaps);
    };
    assert!(gap.killed);
    assert_eq!((gap.from, gap.to), (moment(139), moment(4000)));
    assert_eq!((report.runs, report.lost[0].count), (2, 1204));
}

#[test]
fn what_is_out_of_scope_is_not_counted() {
    let scope = Scope {
        since: Some(moment(100).utc),
        until: Some(moment(110).utc),
        ports: Vec::new(),
    };
    let report = report(&night(), scope, 10);
    assert_eq!((report.seen.events, report.seen.failures), (20, 10));
    assert_eq!(report.failures[0].count, 10);
    assert!(report.conflicts.is_empty() && report.lost.is_empty() && report.gaps.is_empty());
    assert_eq!(report.unended, None);
}

/// A pause that began before what is asked for, or lasts all through it, is one all the same.
#[test]
fn a_pause_is_told_wherever_the_scope_meets_it() {
    let between = |since, until| Scope {
        since: Some(moment(since).utc),
        until: Some(moment(until).utc),
        ports: Vec::new(),
    };
    for (since, until, expected) in [
        (0, 100, 0),
        (0, 1000, 1),
        (1000, 2000, 1),
        (2000, 5000, 1),
        (4050, 5000, 0),
    ] {
        let report = report(&night(), between(since, until), 10);
        assert_eq!(report.gaps.len(), expected, "{since} {until}");
        for gap in report.gaps {
            assert_eq!((gap.from, gap.to), (moment(139), moment(4000)));
        }
    }
    let words = text(&report(&night(), between(1000, 2000), 10), None);
    assert!(
        words.contains("nothing happened since 2026-11-22"),
        "{words}"
    );
}

#[test]
fn what_another_program_gets_or_at_another_address_resolves_nothing() {
    let python = |script: &str, local: &str| {
        let bind = sighting(Op::Bind, local);
        by(bind, "python3", "/usr/bin/python3", &["python3", script])
    };
    let refused = |script: &str| {
        let mut bind = refused_by(sighting(Op::Bind, "127.0.0.1:8080"), vec![nginx()]);
        bind.process = python(script, "127.0.0.1:8080").process;
        bind
    };
    let holder = refused_by(sighting(Op::Bind, "127.0.0.1:8080"), vec![nginx()])
        .explanation
        .map(|explanation| explanation.owners[0].processes[0].task.pid)
        .unwrap();
    let own = || python("b.py", "127.0.0.1:8080");
    for (item, resolves) in [
        (at(5, 2, python("a.py", "127.0.0.1:8080")), false),
        (at(5, 1, python("b.py", "127.0.0.2:8080")), false),
        (at(5, holder, own()), false),
        (at(5, 1, own()), true),
        (at(5, 3, own()), true),
    ] {
        let items = [at(0, 1, refused("b.py")), item];
        let report = report(&items, Scope::default(), 1);
        assert_eq!(report.conflicts[0].resolution.is_some(), resolves);
    }
}

#[test]
fn workers_that_are_refused_together_are_not_started_again_and_again() {
    let refused = || refused_by(sighting(Op::Bind, "0.0.0.0:8080"), vec![nginx()]);
    let items: Vec<_> = (0..4).map(|pid| at(0, 1 + pid, refused())).collect();
    let report = report(&items, Scope::default(), 1);
    assert_eq!(
        (report.conflicts[0].count, report.conflicts[0].flapping),
        (4, None)
    );
}

#[test]
fn a_connect_is_found_by_the_port_of_its_peer() {
    let scope = Scope {
        ports: vec![5432..=5432],
        ..Scope::default()
    };
    let report = report(&night(), scope, 10);
    assert_eq!((report.seen.events, report.failures[0].count), (40, 40));
}

/// It listens on a port of the kernel's choice: whoever asks for the one it was refused means it too.
#[test]
fn a_listener_is_found_by_the_port_that_it_was_refused() {
    let listener = at(10, 7, exposed("0.0.0.0:41237"));
    for (port, warnings, automatic) in [(587, 1, 0), (41_237, 1, 1), (588, 0, 0)] {
        let scope = Scope {
            ports: vec![port..=port],
            ..Scope::default()
        };
        let items = [start(0), listener.clone(), end(20)];
        let report = report(&items, scope.clone(), 10);
        assert_eq!(report.warnings.len(), warnings, "{port}");
        assert_eq!(
            report.automatic.as_ref().unwrap().len(),
            automatic,
            "{port}"
        );
        let (_folder, path) = recorded(&items);
        assert_eq!(of_file(&path, scope, 10), report, "{port}");
    }
}

/// Of what was not kept nothing is said, and what was kept is.
#[test]
fn what_was_not_kept_is_not_counted() {
    let mut summary = Summary::new(Scope::default());
    summary.item(&start(0));
    summary.keeping(Keeping {
        keep: Keep::Failures,
        filtered: true,
        alive: Some(moment(90)),
    });
    for item in &night()[1..8] {
        summary.item(item);
    }
    let report = summary.finish(10);
    assert_eq!((&report.turnover, &report.automatic), (&None, &None));
    assert_eq!(report.unended, Some(moment(90)));
    insta::assert_snapshot!("failures_only", text(&report, Some(100)));
}

#[test]
fn nothing_is_a_report_too() {
    let nothing = report(&[], Scope::default(), 10);
    let whole = Report {
        turnover: Some(Vec::new()),
        automatic: Some(Vec::new()),
        ..Report::default()
    };
    assert_eq!(nothing, whole);
    assert!(text(&nothing, None).starts_with("nothing happened\n0 events"));
}

proptest! {
    /// Lists are cut, nothing is made up: what is shown and what is not are all there is.
    #[test]
    fn the_sums_are_whole(top in 1usize..6) {
        let items = everything();
        let all = report(&items, Scope::default(), 1000);
        let some = report(&items, Scope::default(), top);
        prop_assert_eq!(all.more, [0; 6]);
        prop_assert_eq!(some.conflicts.len() as u64 + some.more[0], all.conflicts.len() as u64);
        prop_assert_eq!(&some.conflicts[..], &all.conflicts[..some.conflicts.len()]);
        prop_assert_eq!(some.failures.len() as u64 + some.more[2], all.failures.len() as u64);
        let conflicts: u64 = all.conflicts.iter().map(|group| group.count).sum();
        prop_assert_eq!(conflicts, all.seen.conflicts);
        let failures: u64 = all.failures.iter().map(|group| group.count).sum();
        prop_assert_eq!(conflicts + failures, all.seen.failures);
    }
}
