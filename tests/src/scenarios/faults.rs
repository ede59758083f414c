//! What goes wrong while portwatch looks: processes that are hidden, vanish, become others or have too
//! many descriptors; names that are meant to harm.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;

use super::{Scenario, Session, exhausted::next_second, puzzles::roles, scenarios, sessions};
use crate::{
    bench::{self, Bench},
    expect::{self, Want},
    runner::Workload,
    script::{Role, Script, skip, tags},
    sys::{
        bpf::Cgroup,
        netns::{self, Netns},
        proc::Me,
        sock::{Kind, Sock},
        task,
    },
    tracer::Tracer,
};

pub(super) const ALL: &[Scenario] = scenarios![
    fault_holder_becomes_another_program,
    fault_pid_of_the_creator_is_reused,
    fault_everything_vanishes,
    fault_ten_thousand_descriptors,
    fault_control_characters,
    fault_hostile_cgroup,
];

pub(super) const SESSIONS: &[Session] = sessions![fault_processes_are_hidden];

/// Workloads of sessions.
pub(super) const PARTS: &[Scenario] = scenarios![hidden_holder, hidden_conflicts, refused_by_older];

pub(super) const ROLES: &[Role] = roles![becomes_another, leaves_it_behind, crowd, listens];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PORT: u16 = 8080;

/// Listens and executes another program, which has the socket then.
fn becomes_another(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.listener(Kind::Tcp4, (LO4, PORT))?;
    sock.stay_open_on_exec()?;
    s.becomes(tags().first().context("no program")?);
    Ok(vec![sock])
}

/// The pid stays, the name does not: who got the port and who has it are the same process.
fn fault_holder_becomes_another_program(s: &mut Script) -> Result<()> {
    let program = s.copy("afterwards")?;
    let kept = s.program("before", "becomes_another", &[&program])?;
    let now = Me::executing(kept.me.pid, &program)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &now)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.processes.1", Want::Absent)
        .is("conflict.holders.0.creator.pid", kept.me.pid)
        .says(&[&format!("held by afterwards (pid {}", kept.me.pid)]);
    Ok(())
}

/// Listens, leaves its socket to another program, and is about to end.
fn leaves_it_behind(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.listener(Kind::Tcp4, (LO4, PORT))?;
    sock.stay_open_on_exec()?;
    s.bequeath(tags().first().context("no program")?)?;
    Ok(vec![sock])
}

/// Whoever got the port has exited, and its pid is the caller's now.
fn fault_pid_of_the_creator_is_reused(s: &mut Script) -> Result<()> {
    let program = s.copy("heir")?;
    let kept = s.program("first-owner", "leaves_it_behind", &[&program])?;
    let &[heir] = &kept.heirs[..] else {
        bail!("{:?}", kept.heirs);
    };
    Me::executing(heir, &program)?;
    s.dismiss(&kept)?;
    // It has another parent now.
    let heir = Me::of(heir)?;
    let sock = kept.sock()?;
    let reused = s.forked_as(kept.me.pid.cast_signed(), |s| {
        let late = s.socket(Kind::Tcp4)?;
        s.bind(&late, (LO4, PORT))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, sock, "listen")
            .named(0, &heir)
            .judged(("listener", "exact", "no_reuse"))
            .holders_total(1)
            .is("process.pid", kept.me.pid)
            .set("conflict.holders.0.processes.1", Want::Absent)
            .is("conflict.holders.0.creator.pid", kept.me.pid)
            .is(
                "conflict.holders.0.creator.executable.path",
                kept.me.executable.as_str(),
            )
            .is("conflict.holders.0.creator.exited", true)
            .says(&[
                &format!("bound by first-owner (pid {}, exited)", kept.me.pid),
                &format!("still open in heir (pid {}", heir.pid),
            ]);
        Ok(())
    });
    match reused {
        Err(error) if error.downcast_ref() == Some(&Errno::ENOSYS) => {
            skip("no clone3 on this kernel")
        }
        other => other,
    }
}

/// Processes and their network namespaces end as soon as they were refused.
fn fault_everything_vanishes(s: &mut Script) -> Result<()> {
    for _ in 0..8 {
        s.forked(|s| {
            netns::unshare(libc::CLONE_NEWNET)?;
            netns::link_up("lo")?;
            s.relearn()?;
            let holder = s.listener(Kind::Tcp4, (LO4, PORT))?;
            let late = s.socket(Kind::Tcp4)?;
            s.bind(&late, (LO4, PORT))
                .fails(Errno::EADDRINUSE)?
                .holder(0, &holder, "listen")?
                .judged(("listener", "exact", "no_reuse"))
                .set("conflict.holders.0.processes.1", Want::Absent)
                .holders_total(1);
            Ok(())
        })?;
    }
    Ok(())
}

const MANY: u32 = 10_000;

/// Opens files until it has ten thousand descriptors, a socket after them, and forks.
fn crowd(s: &mut Script) -> Result<Vec<Sock>> {
    task::allow_descriptors(MANY + 100)?;
    let file = fs::File::open("/dev/null")?;
    for _ in 0..MANY {
        // SAFETY: takes and returns integers.
        let fd = crate::sys::check(unsafe { libc::dup(file.as_raw_fd()) })?;
        // SAFETY: the kernel has just returned it. It stays open.
        std::mem::forget(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let sock = s.listener(Kind::Tcp4, (LO4, PORT))?;
    ensure!(sock.fd() > MANY.cast_signed(), "descriptor {}", sock.fd());
    let worker = task::Background::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    s.heir(worker.pid());
    // It ends with this process.
    std::mem::forget(worker);
    Ok(vec![sock])
}

/// A socket among ten thousand files, of two processes: both are named.
fn fault_ten_thousand_descriptors(s: &mut Script) -> Result<()> {
    let kept = s.program("crowded", "crowd", &[])?;
    next_second();
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        // Under emulation there is not always the time to look at all descriptors.
        .set(
            "conflict.holders.0.processes.1.pid",
            Want::is(kept.heirs[0]).unless_missing("conflict.holders.processes"),
        )
        .set("conflict.holders.0.processes.2", Want::Absent)
        .says(&[&format!("held by crowded (pid {}", kept.me.pid)]);
    Ok(())
}

/// Listens on the address that it is told.
fn listens(s: &mut Script) -> Result<Vec<Sock>> {
    let address: SocketAddr = tags().first().context("no address")?.parse()?;
    Ok(vec![s.listener(Kind::Tcp4, address)?])
}

/// A program whose file and arguments clear the screen: exact in JSON, harmless in words.
fn fault_control_characters(s: &mut Script) -> Result<()> {
    let args = ["127.0.0.1:8080", "\x1b]0;title\x07\x1b[2J", "two\nlines"];
    let kept = s.program("evil\x1b[2J\n\r", "listens", &args)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.message", Want::Harmless)
        .set("conflict.hint", Want::Harmless);
    ensure!(kept.me.comm == "evil\x1b[2J\n\r", "{:?}", kept.me.comm);
    Ok(())
}

/// A cgroup whose name clears the screen, turns the line round and is no UTF-8, with a unit's ending: told as
/// far as it is text, and of no unit.
fn fault_hostile_cgroup(s: &mut Script) -> Result<()> {
    let own = s.me.cgroup.clone().unwrap_or_else(|| "/".to_owned());
    let name = OsStr::from_bytes(b"\x1b[2J\xe2\x80\xae\xff\".service");
    let Some(cgroup) = Cgroup::enter_named(&own, name)? else {
        return skip("cgroup v2 is not mounted");
    };
    s.relearn()?;
    let told = format!("{}/{}", own.trim_end_matches('/'), name.to_string_lossy());
    ensure!(s.me.cgroup.as_ref() == Some(&told), "{:?}", s.me.cgroup);
    let _holder = s.listener(Kind::Tcp4, (LO4, PORT))?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .is("process.linux.cgroup", told.as_str())
        .set("systemd.unit", Want::Absent)
        .set("conflict.message", Want::Harmless)
        .set("conflict.hint", Want::Harmless);
    s.keep(cgroup);
    Ok(())
}

/// Has a port before portwatch is there.
fn hidden_holder(s: &mut Script) -> Result<()> {
    s.program("older", "listens", &["127.0.0.1:8080"])?;
    Ok(())
}

/// Meets that one, and one that has come after portwatch.
fn hidden_conflicts(s: &mut Script) -> Result<()> {
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .held(0, Kind::Tcp4, (LO4, PORT).into(), None, "listen")
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.processes.0", Want::Absent)
        .set("conflict.holders.0.process", Want::Absent)
        .set("missing", Want::Lists("conflict.holders.processes".into()))
        .says(&["its process could not be found"]);
    let kept = s.program("newer", "listens", &["127.0.0.1:8081"])?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 8081))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .says(&[&format!("held by newer (pid {}", kept.me.pid)]);
    Ok(())
}

/// Meets the one that was there before portwatch, and nothing is asked of the line but to be there.
fn refused_by_older(s: &mut Script) -> Result<()> {
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT)).fails(Errno::EADDRINUSE)?;
    Ok(())
}

/// procfs mounted with hidepid=2 (proc(5)) and no CAP_SYS_PTRACE: whoever came after portwatch is named
/// from what the kernel noted, of whoever was there before it is said that his name is not known.
fn fault_processes_are_hidden(bench: &Bench) -> Result<()> {
    let netns = Netns::new()?;
    let mut older = Workload::start(&netns, "hidden_holder", bench.backend, false, false)?;
    let told = older.told()?;
    let mut args = vec!["helper".into(), "with-hidden-processes".into()];
    args.push(bench.portwatch.clone().into_os_string());
    args.extend(bench.trace_args(["-o", "json"]));
    let mut tracer = Tracer::start(&Bench::own_program()?, args)?;
    let mut newer = Workload::start(&netns, "hidden_conflicts", bench.backend, false, false)?;
    let expected = newer.told()?;
    let mut lines = tracer.until_now()?;
    let expected = bench::told(newer.end(expected)?)?;
    lines.retain(|line| expected.owns(line));
    expect::compare(&expected, &lines)?;
    bench::told(older.end(told)?)?;
    tracer.stop()?.ended_well(0)
}
