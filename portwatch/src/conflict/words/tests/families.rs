//! Those who have inherited a socket or left it to others, and those who start others again.

use super::*;

fn one(held: Held) -> Sighting {
    refused_by(bind("0.0.0.0:8080"), vec![held])
}

fn anyone() -> Held {
    held(Kind::Listener, "0.0.0.0:8080").lasting(300)
}

/// Of the same program as the caller.
fn node(pid: u32) -> Occupant {
    occupant(pid, "node").with(|process| {
        process.executable_path = Some("/usr/bin/node".into());
        process.args = Some(vec!["node".into(), "server.js".into()]);
    })
}

fn own() -> Occupant {
    Occupant {
        task: bind("0.0.0.0:1").event.task.clone(),
        process: node(1).process,
    }
}

fn with_parent(mut occupant: Occupant, parent: u32) -> Occupant {
    occupant.task.parent_pid = Some(parent);
    occupant
}

fn child(occupant: Occupant) -> Occupant {
    with_parent(occupant, own().task.pid)
}

#[test]
fn inherited_and_left_behind() {
    let unread = |mut held: Held| {
        held.owner.incomplete = true;
        one(held)
    };
    let sleep = || occupant(900, "sleep");
    let text = told(vec![
        (
            "the parent of the caller",
            refused_by(
                adjusted(bind("0.0.0.0:8080"), |event| {
                    event.task.parent_pid = Some(900);
                }),
                vec![anyone().by(node(900))],
            ),
        ),
        ("a child of the caller", one(anyone().by(child(node(900))))),
        (
            "closed here, open in children",
            one(anyone()
                .by(child(node(900)))
                .by(child(node(901)))
                .created(own(), false)),
        ),
        (
            "closed here, open in what was started",
            one(anyone().by(child(sleep())).created(own(), false)),
        ),
        (
            "closed here, open where it was sent to",
            one(anyone().by(sleep()).created(own(), false)),
        ),
        (
            "closed here, open somewhere",
            one(anyone().created(own(), false)),
        ),
        (
            "a worker whose master is gone",
            one(anyone().by(node(900)).created(node(899), true)),
        ),
        (
            "not all processes could be read",
            unread(anyone().by(occupant(900, "server"))),
        ),
        ("nor beside this one", unread(anyone().by(own()))),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn supervisors_start_again() {
    let under = |parent: Occupant| {
        let mut held = anyone().by(with_parent(occupant(900, "server"), parent.task.pid));
        held.owner.parent = Some(Box::new(parent));
        one(held)
    };
    let hosted = |name: &str, parent| {
        let occupant = occupant(900, name).of("supervisor.service");
        one(anyone().by(with_parent(occupant, parent)))
    };
    let text = told(vec![
        ("supervisord", under(occupant(800, "supervisord"))),
        ("pm2", under(occupant(800, "PM2 v5.3.0: God"))),
        (
            "runsv",
            under(occupant(800, "runsv").with(|process| {
                process.args = Some(vec!["runsv".into(), "web".into()]);
            })),
        ),
        ("a shell", under(occupant(800, "sh"))),
        ("in supervisord's unit", hosted("server", 850)),
        ("supervisord itself", hosted("supervisord", 1)),
    ]);
    insta::assert_snapshot!(text);
}
