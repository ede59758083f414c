//! What a recording costs: a minute of binds at a given rate, a report on many events, and the bytes that
//! each kind of event takes in the file.
//!
//! Figures are printed as [`super::drive`] does.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use portwatch::{
    conflict::words,
    event::{
        Conflict, Culprit, Endpoint, Errno, Event, Family, Findings, Holder, Item, Kind, Occupant,
        Op, Outcome, Overlap, Owner, PortClass, PortFacts, Process, Reason, Sighting, Socket,
        SocketOptions, Task, TcpState, Time, Transport, Verdict, Via,
    },
    store::{
        database::{self, Opened},
        retention::Bounds,
    },
};
use serde_json::Value;

use super::memory;
use crate::{
    expect::lookup,
    sys::{
        sock::{self, Sock},
        task,
    },
    tracer::PATIENCE,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The portwatch to measure.
    #[arg(long)]
    portwatch: PathBuf,
    /// Binds a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Seconds of them.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Events of the recording that is summed up.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
}

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("portwatch-recording-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let measured = sustained(options, &scratch.join("sustained.pwdb"))
        .and_then(|()| summed_up(options, &scratch.join("summed.pwdb")))
        .and_then(|()| sizes(&scratch));
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    measured
}

/// Binds at the rate, with a recorder that keeps everything.
fn sustained(options: &Options, file: &Path) -> Result<()> {
    let Options {
        portwatch,
        rate,
        seconds,
        ..
    } = options;
    let mut recorder = Command::new(portwatch)
        .args(["record", "-q", "-t", "-e", "bind", "--keep", "all", "-w"])
        .arg(file)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", portwatch.display()))?;
    let made = ready(portwatch, file, &mut recorder).and_then(|()| {
        let made = storm(*rate, Duration::from_secs(*seconds))?;
        Ok((made, memory::peak(recorder.id())?))
    });
    task::signal(recorder.id(), libc::SIGTERM)?;
    let status = recorder.wait()?;
    let (made, peak) = made?;
    ensure!(status.success(), "the recorder ended with {status}");
    let totals = report(portwatch, file)?;
    let number = |path: &str| {
        let number = lookup(&totals, path).and_then(Value::as_u64);
        number.with_context(|| format!("no {path} in {totals}"))
    };
    let bytes = fs::metadata(file)?.len();
    println!("value\trecord\tmade\t{made}");
    println!("value\trecord\tevents\t{}", number("totals.events")?);
    println!("value\trecord\tlost\t{}", number("totals.lost")?);
    println!("value\trecord\trss-peak-kb\t{peak}");
    println!("value\trecord\tfile-bytes\t{bytes}");
    Ok(())
}

/// Waits until the recorder's first line is in the file.
fn ready(portwatch: &Path, file: &Path, recorder: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let replay = Command::new(portwatch)
            .args(["replay", "-q", "-o", "json"])
            .arg(file)
            .stderr(Stdio::null())
            .output()?;
        if replay.stdout.starts_with(b"{") {
            return Ok(());
        }
        if let Some(status) = recorder.try_wait()? {
            bail!("the recorder ended with {status}");
        }
        ensure!(Instant::now() < deadline, "the recorder does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Binds at a rate. The value is how many.
fn storm(rate: u64, length: Duration) -> Result<u64> {
    let began = Instant::now();
    let mut made = 0u64;
    loop {
        let passed = began.elapsed();
        if passed >= length {
            return Ok(made);
        }
        // Below 2^64 for as long as anybody measures.
        let due = (passed.as_secs_f64() * rate as f64) as u64;
        if made >= due {
            std::thread::sleep(Duration::from_micros(500));
        }
        while made < due {
            bind()?;
            made += 1;
        }
    }
}

/// socket, bind to a port that the kernel picks, close; without the listen() of std.
fn bind() -> Result<()> {
    let sock = Sock::new(sock::Kind::Tcp4)?;
    sock.bind(&(Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(())
}

fn report(portwatch: &Path, file: &Path) -> Result<Value> {
    let output = Command::new(portwatch)
        .args(["report", "-o", "json"])
        .arg(file)
        .output()?;
    ensure!(
        output.status.success(),
        "report ended with {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A report on so many events of all kinds.
fn summed_up(options: &Options, file: &Path) -> Result<()> {
    let Options {
        portwatch, events, ..
    } = options;
    fill(file, *events, |at| match at % 20 {
        0 => of(at, Op::Bind, refused(libc::EACCES)),
        1 => of(at, Op::Connect, refused(libc::ECONNREFUSED)),
        2..8 => of(at, Op::Bind, Outcome::Success),
        8..10 => of(at, Op::Listen, Outcome::Success),
        _ if at % 1000 == 999 => conflict(at),
        _ => of(at, Op::Connect, Outcome::Success),
    })?;
    let mut command = Command::new(portwatch);
    command
        .args(["report", "-o", "json"])
        .arg(file)
        .stdout(Stdio::null());
    let mut times = Vec::new();
    for _ in 0..3 {
        let since = Instant::now();
        let status = command.status()?;
        ensure!(status.success(), "report ended with {status}");
        times.push(since.elapsed());
    }
    times.sort_unstable();
    println!("value\treport\tevents\t{events}");
    println!("value\treport\tmedian-ms\t{}", times[1].as_millis());
    Ok(())
}

/// Makes the event of a number.
type Make = fn(u64) -> Sighting;

/// Bytes of a row of each kind, with all that belongs to it.
fn sizes(scratch: &Path) -> Result<()> {
    const COUNT: u64 = 50_000;
    let kinds: [(&str, Make); 6] = [
        ("bind", |at| of(at, Op::Bind, Outcome::Success)),
        ("listen", |at| of(at, Op::Listen, Outcome::Success)),
        ("connect", |at| of(at, Op::Connect, Outcome::Success)),
        ("connect-refused", |at| {
            of(at, Op::Connect, refused(libc::ECONNREFUSED))
        }),
        ("conflict", conflict),
        ("process", |at| {
            let mut own = of(at, Op::Connect, Outcome::Success);
            own.event.task.pid = u32::try_from(at).unwrap_or(u32::MAX);
            own
        }),
    ];
    for (kind, make) in kinds {
        let file = scratch.join(format!("{kind}.pwdb"));
        fill(&file, COUNT, make)?;
        let bytes = fs::metadata(&file)?.len();
        println!("value\tbytes\t{kind}\t{}", bytes / COUNT);
    }
    Ok(())
}

fn fill(file: &Path, count: u64, make: impl Fn(u64) -> Sighting) -> Result<()> {
    let bounds = Bounds {
        size: 16 << 30,
        age: None,
    };
    let Opened {
        mut database,
        mut encoder,
        ..
    } = database::open(file, bounds)?;
    let mut entries = Vec::new();
    for at in 0..count {
        encoder.item(&Item::Event(Box::new(make(at))), &mut entries);
        if entries.len() >= 10_000 || at + 1 == count {
            let mut rest = &entries[..];
            while !rest.is_empty() {
                let Ok(count) = database.write(rest, Timestamp::now()) else {
                    bail!("cannot write {}", file.display());
                };
                rest = &rest[count..];
            }
            entries.clear();
        }
    }
    database.close()?;
    Ok(())
}

const fn refused(errno: i32) -> Outcome {
    Outcome::Failure(Errno(errno.unsigned_abs()))
}

/// An event of one of two hundred processes, on one of many ports.
fn of(at: u64, op: Op, outcome: Outcome) -> Sighting {
    let pid = 1000 + (at % 200) as u32;
    let boot = 1_000_000_000_000 + at * 20_000;
    let time = Time {
        boot,
        utc: Timestamp::from_second(1_795_000_000 + (at / 50_000) as i64).unwrap_or_default(),
    };
    let port = 1024 + (at.wrapping_mul(7919) % 60_000) as u16;
    let connects = op == Op::Connect;
    Sighting {
        event: Box::new(Event {
            time_boot: boot,
            duration: Some(5_000 + at % 3_000),
            op,
            outcome,
            via: Some(Via::Syscall),
            transport: Transport::Tcp,
            family: Family::Ipv4,
            local: end(Ipv4Addr::new(10, 0, 0, 1), port),
            peer: connects.then(|| end(Ipv4Addr::new(10, 0, (at % 50) as u8, 9), 5432)),
            auto_port: connects,
            backlog: (op == Op::Listen).then_some(511),
            socket: Socket {
                cookie: Some(0x10_0000 + at),
                inode: Some(1_000_000 + at),
                netns: Some(4_026_531_840),
                device: None,
                uid: Some(1000),
                options: SocketOptions {
                    reuseaddr: Some(true),
                    reuseport: Some(false),
                    ..SocketOptions::default()
                },
            },
            task: Task {
                pid,
                tid: pid,
                parent_pid: Some(1),
                vpid: Some(pid),
                uid: 1000,
                comm: Some(format!("worker-{}", pid % 10)),
                ..Task::default()
            },
            refused_by_policy: false,
            may_bind_low: None,
            no_port_left: false,
            bound_port: None,
            own_range: None,
            freed: None,
            held: None,
            conflict: None,
        }),
        time,
        process: process(pid),
        local: PortFacts {
            service: None,
            class: Some(PortClass::of(port)),
            ephemeral: Some((32768..=60999).contains(&port)),
        },
        peer: PortFacts::default(),
        interface: None,
        explanation: None,
        warning: None,
        missing: Vec::new(),
    }
}

fn process(pid: u32) -> Arc<Process> {
    let name = format!("worker-{}", pid % 10);
    Arc::new(Process {
        executable_path: Some(format!("/usr/bin/{name}")),
        args: Some(vec![
            name.clone(),
            "--config".into(),
            format!("/etc/{name}.toml"),
        ]),
        creation: Timestamp::from_second(1_794_000_000 + i64::from(pid)).ok(),
        user_name: Some("app".into()),
        cgroup: Some(format!("/system.slice/{name}.service")),
        container: None,
        systemd_unit: Some(format!("{name}.service")),
    })
}

/// A bind that one of ten listeners is in the way of.
fn conflict(at: u64) -> Sighting {
    let mut sighting = of(at, Op::Bind, refused(libc::EADDRINUSE));
    let port = 8000 + (at % 10) as u16;
    let local = end(Ipv4Addr::UNSPECIFIED, port);
    sighting.event.local = local;
    sighting.event.conflict = Some(Conflict::default());
    let holder = Holder::new(Transport::Tcp, Family::Ipv4, TcpState::Listen, local);
    let pid = 500 + (at % 10) as u32;
    let owner = Owner {
        processes: vec![Occupant {
            task: Task {
                pid,
                tid: pid,
                comm: Some("nginx".into()),
                ..Task::default()
            },
            process: process(pid),
        }],
        since: Some(sighting.time),
        ..Owner::default()
    };
    let verdict = Verdict {
        kind: Kind::Listener,
        overlap: Some(Overlap::Exact),
        reason: Some(Reason::ReuseListening),
        device: Some(false),
        culprits: vec![Culprit {
            holder,
            kind: Kind::Listener,
            overlap: Some(Overlap::Exact),
            reason: Some(Reason::ReuseListening),
        }],
        total: 1,
        truncated: false,
    };
    let Sighting { event, process, .. } = &sighting;
    let explanation = words::explain(event, process, verdict, vec![owner], Findings::default());
    sighting.explanation = Some(Arc::new(explanation));
    sighting
}

const fn end(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint {
        address: Some(std::net::IpAddr::V4(address)),
        port: Some(port),
    }
}
