//! `portwatch check`: would a bind() succeed now, and if not, why.
//!
//! [`ask`] answers. Here the question is made of what was typed, and the answer gets its names: a refusal
//! those of the event that it would be.

pub mod ask;
mod automatic;
pub(super) mod place;
mod typed;

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use nix::net::if_::if_nametoindex;

use self::{
    ask::{Answer, Question, ask},
    place::{inside, may_bind_low},
    typed::Typed,
};
use crate::{
    cli::{Format, OutputOptions, check::CheckArgs},
    conflict::{rules::Claim, verdict::kind_of, words},
    enrich::{Enricher, Options, image::Images},
    event::{
        Backend, Checked, Conflict, Culprit, Doubt, Endpoint, Event, Explanation, Family, Findings,
        Holder, Kind, Listing, Missed, Op, Outcome, Outlook, Owner, Socket, SocketOptions, Task,
        TcpState, Time, Verdict,
    },
    failure::{self, Failure},
    sink,
    sockets::{
        listing::{Lister, entries},
        port::Survey,
        table::Row,
    },
};

/// Holders that are named; of more the rest is counted.
const NAMED: usize = 64;

/// Prints the answer: 0 free, 1 not free, 3 cannot be told.
///
/// # Errors
/// When what was typed means nothing here, the kernel does not show its sockets, or the output cannot be
/// written.
pub fn run(args: &CheckArgs, options: &OutputOptions) -> Result<u8, Failure> {
    let namespace = place::open(args.netns.as_ref())?;
    let (checked, time) = inside(namespace, || checked(args, options))??;
    let mut out = sink::create(&options.destination).map_err(Failure::from_open)?;
    let text = match options.format {
        Format::Json => sink::json::check::line(&checked, time),
        Format::Text => sink::text::check::lines(&checked),
    };
    out.write_all(&text)
        .map_err(|error| Failure::from_write(error, &options.destination))?;
    Ok(match checked.outlook {
        Outlook::Free => 0,
        Outlook::Refused(_) => 1,
        Outlook::Unknown(_) => 3,
    })
}

/// In the network namespace in question.
fn checked(args: &CheckArgs, options: &OutputOptions) -> Result<(Checked, Time), Failure> {
    let question = question(args)?;
    let answer = ask(&question)
        .context("cannot ask the kernel for its sockets")
        .map_err(|error| Failure::new(failure::Kind::Impossible, error))?;
    let mut enricher = Enricher::new(Options {
        numeric: options.numeric,
        args: true,
        brief: false,
        // Nothing is expected of it that only a better one sees.
        backend: Backend::RawTp,
    })
    .context("cannot read the clocks")?;
    let now = enricher.now().context("cannot read the clocks")?;
    Ok((told(&question, answer, &mut enricher, now, options)?, now))
}

fn question(args: &CheckArgs) -> Result<Question, Failure> {
    let Typed {
        transport,
        address,
        port,
    } = Typed::of(args)?;
    let device = match &args.device {
        None => None,
        Some(name) => Some(if_nametoindex(name.as_str()).map_err(|_| {
            let error = anyhow::anyhow!("there is no interface {name:?} in this network namespace");
            Failure::new(failure::Kind::Usage, error).hint("ip link shows which there are")
        })?),
    };
    let uid = place::user(args.uid.as_ref())?;
    Ok(Question {
        claim: Claim {
            transport,
            address,
            v6only: args.v6only,
            device,
            reuseaddr: args.reuseaddr,
            reuseport: args.reuseport,
            uid: uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw()),
            state: TcpState::Closed,
        },
        device: args.device.clone(),
        port,
        may_bind_low: may_bind_low(uid),
    })
}

/// The answer with names.
fn told(
    question: &Question,
    answer: Answer,
    enricher: &mut Enricher,
    now: Time,
    options: &OutputOptions,
) -> Result<Checked, Failure> {
    let Answer {
        outlook,
        survey,
        involved,
        rivals,
    } = answer;
    let sought = survey.is_some() && question.port != 0;
    let Survey {
        rows,
        missed,
        may_hide: _, // told by the outlook
        netns,
    } = survey.unwrap_or_default();
    let netns = netns.or_else(place::netns);
    enricher.remember(entries(&rows));
    let event = event(question, outlook, &rows, &involved, now.boot, netns);
    let sighting = enricher.event(event);
    let event = sighting.event;
    let explanation = match outlook {
        Outlook::Free => None,
        Outlook::Refused(_) => sighting.explanation.map(Arc::unwrap_or_clone),
        Outlook::Unknown(why) => {
            let all = of(&rows, &involved);
            let first: Vec<Row> = all.iter().take(NAMED).cloned().collect();
            let suspects = named(first, missed, options)?;
            Some(doubtful(why, &all, suspects, missed))
        }
    };
    let rivals = named(of(&rows, &rivals), missed, options)?;
    let mut missing = sighting.missing;
    // The rest is of a call that was made, and of its process.
    missing.retain(|path| path.starts_with("conflict.") || path.starts_with("network."));
    Ok(Checked {
        transport: event.transport,
        family: event.family,
        local: event.local,
        facts: sighting.local,
        interface: sighting.interface,
        socket: event.socket,
        outlook,
        explanation,
        sought,
        rivals,
        missing,
    })
}

/// The rows at these places.
fn of(rows: &[Row], places: &[usize]) -> Vec<Row> {
    let rows = places.iter().filter_map(|&at| rows.get(at));
    rows.cloned().collect()
}

/// Rows with the names of those who have them.
fn named(rows: Vec<Row>, missed: Missed, options: &OutputOptions) -> Result<Vec<Listing>, Failure> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut lister = Lister::new(options.numeric).context("cannot read the clocks")?;
    let named = lister.list(rows, &Images::default(), missed == Missed::Nothing);
    Ok(named.context("cannot read the clocks")?)
}

/// The event that it would be.
fn event(
    question: &Question,
    outlook: Outlook,
    rows: &[Row],
    involved: &[usize],
    now: u64,
    netns: Option<u32>,
) -> Event {
    let Question { claim, port, .. } = question;
    let is_v6 = claim.address.is_ipv6();
    let port = Some(*port).filter(|&port| port != 0);
    let conflict = port.map(|_| conflict(rows, involved));
    Event {
        time_boot: now,
        duration: None,
        op: Op::Bind,
        outcome: match outlook {
            Outlook::Refused(errno) => Outcome::Failure(errno),
            Outlook::Free | Outlook::Unknown(_) => Outcome::Success,
        },
        via: None,
        transport: claim.transport,
        family: if is_v6 { Family::Ipv6 } else { Family::Ipv4 },
        local: Endpoint {
            address: Some(claim.address),
            port,
        },
        peer: None,
        auto_port: false,
        backlog: None,
        socket: Socket {
            cookie: None,
            inode: None,
            netns,
            device: claim.device,
            uid: Some(claim.uid),
            options: SocketOptions {
                reuseaddr: Some(claim.reuseaddr),
                reuseport: Some(claim.reuseport),
                v6only: is_v6.then_some(claim.v6only),
                ..SocketOptions::default()
            },
        },
        task: Task {
            uid: claim.uid,
            ..Task::default()
        },
        refused_by_policy: false,
        may_bind_low: question.may_bind_low,
        no_port_left: false,
        bound_port: None,
        own_range: None,
        freed: None,
        held: None,
        conflict,
    }
}

/// The owners of the port: those in the way first, listeners before others.
fn conflict(rows: &[Row], involved: &[usize]) -> Conflict {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    places.sort_by_key(|at| {
        let listens = rows
            .get(*at)
            .is_some_and(|row| row.socket.state == TcpState::Listen);
        (!involved.contains(at), !listens)
    });
    let named = places.iter().take(NAMED);
    Conflict {
        holders: named
            .filter_map(|&at| Some(rows.get(at)?.socket.clone()))
            .collect(),
        total: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        truncated: rows.len() > NAMED,
        rest_apart: false,
        connect_only: false,
        last: None,
    }
}

fn doubtful(why: Doubt, all: &[Row], suspects: Vec<Listing>, missed: Missed) -> Explanation {
    let holders: Vec<Holder> = all.iter().map(|row| row.socket.clone()).collect();
    let (message, hint) = words::doubt(why, &holders, missed);
    let truncated = suspects.len() < all.len();
    let (culprits, owners) = suspects.into_iter().map(suspect).unzip();
    Explanation {
        verdict: Verdict {
            kind: Kind::Unknown,
            overlap: None,
            reason: None,
            device: None,
            culprits,
            total: u32::try_from(all.len()).unwrap_or(u32::MAX),
            truncated,
        },
        owners,
        findings: Findings::default(),
        message,
        hint,
    }
}

/// A socket that may be in the way.
fn suspect(listing: Listing) -> (Culprit, Owner) {
    let Listing { socket, owner, .. } = listing;
    let culprit = Culprit {
        kind: kind_of(&socket, false),
        holder: socket,
        overlap: None,
        reason: None,
    };
    (culprit, owner)
}
