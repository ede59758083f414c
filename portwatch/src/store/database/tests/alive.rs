//! Signs of life.

use super::*;

#[test]
fn a_recorder_with_nothing_to_keep_is_known_to_have_been_there() {
    let (_folder, path) = folder();
    let at = |utc: &str, boot| Time {
        boot,
        utc: utc.parse().unwrap(),
    };
    let start = |time| {
        let Item::Start(start) = sample::start() else {
            panic!("no start");
        };
        Item::Start(Start { time, ..start })
    };
    let run = |begin, signs: &[Time]| {
        let Opened {
            mut database,
            mut encoder,
            ..
        } = open(&path, BOUNDS).unwrap();
        // Before there is anything it belongs to, it says nothing.
        database.alive(begin).unwrap();
        let mut entries = Vec::new();
        encoder.item(&start(begin), &mut entries);
        write(&mut database, &entries);
        for sign in signs {
            database.alive(*sign).unwrap();
        }
    };
    let seen = at("2026-11-22T12:01:00Z", 61);
    let quiet = at("2026-11-22T14:00:00Z", 7201);
    run(
        at("2026-11-22T12:00:00Z", 1),
        &[at("2026-11-22T12:00:30Z", 31), seen],
    );
    run(at("2026-11-22T13:00:00Z", 3601), &[]);
    run(at("2026-11-22T13:30:00Z", 5401), &[quiet]);
    run(at("2026-11-22T15:00:00Z", 9001), &[]);
    let gaps: Vec<_> = summed_up(&path)
        .gaps
        .iter()
        .map(|gap| (gap.from, gap.killed))
        .collect();
    assert_eq!(
        gaps,
        [
            (quiet, true),
            (at("2026-11-22T13:00:00Z", 3601), true),
            (seen, true),
        ]
    );
    let connection = Connection::open(&path).unwrap();
    let rows: i64 = connection
        .query_row("SELECT count(*) FROM run", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 4, "one each");
}
