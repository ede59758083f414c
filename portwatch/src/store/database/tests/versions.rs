//! Schemas of the past and of the future.

use super::*;

#[test]
fn schemas_of_the_future_are_refused_and_those_of_the_past_upgraded() {
    let (_folder, path) = folder();
    record(&path, BOUNDS, &everything());
    let connection = Connection::open(&path).unwrap();
    let next = schema::version() + 1;
    connection
        .pragma_update(None, "user_version", next)
        .unwrap();
    drop(connection);
    assert!(matches!(open(&path, BOUNDS), Err(StoreError::Newer { found, .. }) if found == next));
    assert!(matches!(Reader::open(&path), Err(StoreError::Newer { found, .. }) if found == next));

    // A version that is yet to come: its step fails in the middle, and nothing has happened.
    let mut connection = Connection::open(&path).unwrap();
    let version = |connection: &Connection| -> i32 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    connection
        .pragma_update(None, "user_version", schema::version())
        .unwrap();
    let good = "ALTER TABLE warning ADD COLUMN kind TEXT";
    let bad = "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)";
    let steps = |step| [schema::STEPS, &[step]].concat();
    let found = schema::version();
    upgrade(&mut connection, found, &steps(bad)).unwrap_err();
    assert_eq!(version(&connection), found);
    assert!(connection.prepare("SELECT * FROM half").is_err());
    assert!(connection.prepare("SELECT * FROM conflicts").is_ok());
    upgrade(&mut connection, found, &steps(good)).unwrap();
    assert_eq!(version(&connection), next);
    assert!(connection.prepare("SELECT kind FROM warning").is_ok());
}

/// What a portwatch of schema 1 had left: it was killed, and had seen four binds, listens and connects
/// and one conflict.
fn version_1(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let [first, ..] = schema::STEPS else {
        panic!("there is no schema");
    };
    for batch in [first, schema::VIEWS, include_str!("version-1.sql")] {
        connection.execute_batch(batch).unwrap();
    }
    for (name, value) in [
        ("application_id", identity::APPLICATION),
        ("user_version", 1),
    ] {
        connection.pragma_update(None, name, value).unwrap();
    }
    connection
        .execute("DELETE FROM note WHERE event = 'end'", [])
        .unwrap();
}

#[test]
fn what_an_older_portwatch_wrote_is_read_as_it_is_and_upgraded_by_a_recorder() {
    let (_folder, path) = folder();
    version_1(&path);
    let before = json(&items(&path));
    assert_eq!(before.lines().count(), 6, "{before}");
    assert_eq!(summed_up(&path).conflicts.len(), 1);

    let opened = open(&path, BOUNDS).unwrap();
    assert_eq!(opened.upgraded, Some(1));
    opened.database.close().unwrap();
    assert_eq!(json(&items(&path)), before);
    record(&path, BOUNDS, &[sample::start(), sample::end(0, 0, 0)]);
    assert_eq!(items(&path).len(), 8);
    let report = summed_up(&path);
    assert_eq!((report.runs, report.conflicts.len()), (2, 1));
    assert!(report.gaps[0].killed);
}
