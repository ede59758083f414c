//! Who has the socket in the way.

use super::*;

#[test]
fn owners_of_every_kind() {
    let one = |held: Held| refused_by(bind("0.0.0.0:8080"), vec![held]);
    let anyone = || held(Kind::Listener, "0.0.0.0:8080").lasting(300);
    let node = occupant(900, "node").with(|process| {
        process.executable_path = Some("/usr/bin/node".into());
        process.args = Some(vec!["node".into(), "server.js".into()]);
    });
    let other_script = node
        .clone()
        .with(|process| process.args = Some(vec!["node".into(), "x.js".into()]));
    let own = Occupant {
        task: sighting(Op::Bind, "0.0.0.0:1").event.task.clone(),
        process: node.process.clone(),
    };
    let proxy = occupant(23076, "docker-proxy")
        .of("docker.service")
        .with(|process| {
            process.args = Some(
                [
                    "docker-proxy",
                    "-container-ip",
                    "172.17.0.16",
                    "-container-port",
                    "8080",
                ]
                .map(str::to_owned)
                .to_vec(),
            );
        });
    let by_knxd = |held: Held| {
        held.by(occupant(900, "knxd").of("knxd.service"))
            .by(systemd())
    };
    let second_nginx = by(bind("0.0.0.0:8080"), "nginx", "/usr/sbin/nginx", &["nginx"]);
    let mut knxd_itself = by(bind("0.0.0.0:6720"), "knxd", "/usr/sbin/knxd", &["knxd"]);
    std::sync::Arc::make_mut(&mut knxd_itself.process).systemd_unit = Some("knxd.service".into());
    let mut in_same_container = bind("0.0.0.0:8080");
    std::sync::Arc::make_mut(&mut in_same_container.process).container =
        container("0a1b2c3d4e5f6071", "docker");
    let pod = |id: &str| {
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2.slice";
        Some(format!("{path}/cri-containerd-{id}.scope"))
    };
    let in_pod = |own: &str| {
        let mut sighting = bind("0.0.0.0:8080");
        let process = std::sync::Arc::make_mut(&mut sighting.process);
        process.container = container(own, "containerd");
        process.cgroup = pod(own);
        let mate = in_container(900, "redis-server").with(|process| process.cgroup = pod("x"));
        refused_by(sighting, vec![anyone().by(mate)])
    };
    let heirs = |held: Held| {
        (813..817).fold(held.by(own.clone()), |held, pid| {
            held.by(occupant(pid, "node"))
        })
    };
    let some_known = |total, truncated| {
        let mut sighting = one(nginx());
        let verdict = &mut sample::explanation_of(&mut sighting).verdict;
        (verdict.total, verdict.truncated) = (total, truncated);
        let conflict = sighting.event.conflict.as_mut().unwrap();
        (conflict.total, conflict.truncated) = (total, truncated);
        again(sighting)
    };
    let pathless = |pid, name| occupant(pid, name).with(|process| process.executable_path = None);
    let hosted = |name: &str, unit: &str, parent| {
        let mut occupant = occupant(900, name).of(unit);
        occupant.task.parent_pid = Some(parent);
        one(anyone().by(occupant))
    };
    let many = (813..817).fold(nginx(), |held, pid| held.by(occupant(pid, "nginx")));
    let text = told(vec![
        ("a unit", one(nginx())),
        ("no unit", one(anyone().by(occupant(900, "server")))),
        (
            "a login's scope is not named",
            one(anyone().by(occupant(900, "server").of("session-3.scope"))),
        ),
        (
            "a user's unit",
            one(anyone().by(occupant(900, "syncthing")
                .of("syncthing.service")
                .with(|process| {
                    process.cgroup = Some(
                        "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service"
                            .into(),
                    );
                }))),
        ),
        (
            "the caller's own unit",
            one(anyone().by(occupant(900, "server").of("web.service"))),
        ),
        ("many processes", one(many)),
        (
            "a container",
            one(anyone().by(in_container(900, "redis-server"))),
        ),
        (
            "the caller's own container",
            refused_by(
                in_same_container,
                vec![anyone().by(in_container(900, "redis-server"))],
            ),
        ),
        (
            "a pod",
            one(
                anyone().by(in_container(900, "redis-server").with(|process| {
                    process.cgroup = Some("/kubepods/burstable/pod1/x".into());
                })),
            ),
        ),
        ("another container of the pod", in_pod("deadbeef")),
        ("the same container of the pod", in_pod("0a1b2c3d4e5f6071")),
        (
            "a forwarder that says where to",
            one(anyone().by(proxy.clone())),
        ),
        (
            "a forwarder whose listener its daemon made",
            one(anyone()
                .by(proxy.clone())
                .created(occupant(800, "dockerd"), false)),
        ),
        (
            "a forwarder and another",
            refused_by(bind("0.0.0.0:8080"), vec![anyone().by(proxy), nginx()]),
        ),
        ("a job of cron", hosted("job", "cron.service", 800)),
        ("cron", hosted("cron", "cron.service", 1)),
        ("a forwarding of ssh", hosted("sshd", "ssh.service", 800)),
        (
            "closed just now",
            one(anyone().holder(|holder| holder.references = Some(0))),
        ),
        (
            "closed just now by a known process",
            one(anyone()
                .created(occupant(300, "httpd"), false)
                .holder(|holder| holder.references = Some(0))),
        ),
        (
            "several, one of them closed just now",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![
                    anyone().holder(|holder| holder.references = Some(0)),
                    nginx(),
                ],
            ),
        ),
        ("one of more than were kept", some_known(5_000, false)),
        ("cut short", some_known(300, true)),
        ("this very process and others", one(heirs(anyone()))),
        (
            "this very process and systemd",
            one(anyone().by(own.clone()).by(systemd())),
        ),
        (
            "a forwarder",
            one(anyone().by(occupant(99047, "rootlessport"))),
        ),
        (
            "socket activation, before the first connection",
            one(knxd().by(systemd()).unit("knxd.socket")),
        ),
        (
            "the same, of the caller itself",
            refused_by(knxd_itself, vec![knxd().by(systemd()).unit("knxd.socket")]),
        ),
        ("socket activation, the service runs", one(by_knxd(knxd()))),
        ("systemd, for an unknown unit", one(knxd().by(systemd()))),
        (
            "another first process",
            one(anyone().by(occupant(1, "init"))),
        ),
        ("this very process", one(anyone().by(own.clone()))),
        (
            "the same program",
            refused_by(
                second_nginx,
                vec![nginx().rule(Overlap::Exact, Reason::ReuseListening)],
            ),
        ),
        ("the same script", one(anyone().by(node.clone()))),
        ("another script", one(anyone().by(other_script))),
        (
            "left to another program",
            one(anyone()
                .by(occupant(412, "sh"))
                .created(occupant(300, "httpd"), true)),
        ),
        (
            "handed to another program",
            one(anyone()
                .by(occupant(412, "sh"))
                .created(occupant(300, "httpd"), false)),
        ),
        (
            "left to a process whose executable is not known",
            one(anyone()
                .by(pathless(412, "sh"))
                .created(occupant(300, "httpd"), true)),
        ),
        (
            "left to one of the same name",
            one(anyone()
                .by(pathless(412, "httpd"))
                .created(pathless(300, "httpd"), true)),
        ),
        (
            "gone into the background",
            one(nginx().created(occupant(811, "nginx"), true)),
        ),
        (
            "no process",
            one(anyone().holder(|holder| holder.socket.uid = Some(33))),
        ),
        (
            "no process, but a creator",
            one(anyone().created(occupant(300, "httpd"), true)),
        ),
        (
            "several",
            refused_by(
                bind("0.0.0.0:8080"),
                vec![
                    nginx(),
                    held(Kind::Listener, "127.0.0.2:8080")
                        .rule(Overlap::Wildcard, Reason::NoReuse)
                        .by(occupant(7, "a")),
                    held(Kind::Listener, "127.0.0.3:8080")
                        .rule(Overlap::Wildcard, Reason::NoReuse)
                        .by(occupant(8, "b")),
                ],
            ),
        ),
    ]);
    insta::assert_snapshot!(text);
}
