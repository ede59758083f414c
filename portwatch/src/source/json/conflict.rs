//! `conflict` and `warning`, read.

use std::sync::Arc;

use super::{Numbered, Wrong, container, endpoint, facts, part::Part, process, socket};
use crate::event::{
    Bearer, Consumer, Creator, Culprit, Departure, Errno, Exhausted, Explanation, Findings, Holder,
    Occupant, Owner, Policy, PolicyProgram, Refused, Time, Verdict, Warning,
};

pub(super) fn explanation(
    part: Part<'_>,
    mut people: Option<Numbered<'_>>,
) -> Result<Explanation, Wrong> {
    let kind = part.at("kind");
    let mut culprits = Vec::new();
    let mut owners = Vec::new();
    for holder in part.at("holders").list()?.into_iter().flatten() {
        let (culprit, owner) = self::holder(holder, &mut people)?;
        culprits.push(culprit);
        owners.push(owner);
    }
    let programs = part.at("policy").at("programs").list()?;
    let programs: Option<Vec<_>> = programs.map(|all| all.map(program).collect()).transpose()?;
    let interfaces = part.at("interfaces").list()?;
    let interfaces = interfaces
        .map(|all| all.map(bearer).collect())
        .transpose()?;
    let (exhausted, gone) = (part.at("exhausted"), part.at("gone"));
    let exhausted = exhausted
        .is_there()
        .then(|| self::exhausted(exhausted, &mut people))
        .transpose()?;
    let gone = gone.is_there().then(|| departure(gone, &mut people));
    let message = part.at("message");
    Ok(Explanation {
        verdict: Verdict {
            kind: kind.must(kind.word())?,
            overlap: part.at("overlap").word()?,
            reason: part.at("reason").word()?,
            device: part.at("device").flag()?,
            culprits,
            total: part.at("holders_total").number()?.unwrap_or_default(),
            truncated: part.at("truncated").flag()?.unwrap_or_default(),
        },
        owners,
        findings: Findings {
            exhausted,
            interfaces,
            device: None,
            policy: programs.map(|programs| Policy::Programs(programs, false)),
            gone: gone.transpose()?,
        },
        message: message.must(message.string())?,
        hint: part.at("hint").string()?,
    })
}

pub(super) fn warning(part: Part<'_>, mut people: Option<Numbered<'_>>) -> Result<Warning, Wrong> {
    let (kind, message) = (part.at("kind"), part.at("message"));
    let refused = part.at("refused");
    let processes = part.at("processes").list()?.into_iter().flatten();
    Ok(Warning {
        kind: kind.must(kind.word())?,
        refused: refused
            .is_there()
            .then(|| self::refused(refused))
            .transpose()?,
        message: message.must(message.string())?,
        hint: part.at("hint").string()?,
        processes: processes
            .map(|other| occupant(other, &mut people))
            .collect::<Result<_, _>>()?,
    })
}

fn refused(part: Part<'_>) -> Result<Refused, Wrong> {
    let (time_boot, code) = (part.at("time_boot"), part.at("error").at("code"));
    Ok(Refused {
        time_boot: time_boot.must(time_boot.number())?,
        errno: Errno(code.must(code.number())?),
        local: endpoint(part.at("network").at("local"))?,
    })
}

fn holder(part: Part<'_>, people: &mut Option<Numbered<'_>>) -> Result<(Culprit, Owner), Wrong> {
    let network = part.at("network");
    let (kind, state) = (part.at("kind"), network.at("connection").at("state"));
    let (transport, family) = (network.at("transport"), network.at("type"));
    let peer = network.at("peer");
    let holder = Holder {
        peer: peer.is_there().then(|| endpoint(peer)).transpose()?,
        socket: socket(part.at("socket"))?,
        ..Holder::new(
            transport.must(transport.word())?,
            family.must(family.word())?,
            state.must(state.word())?,
            endpoint(network.at("local"))?,
        )
    };
    let culprit = Culprit {
        holder,
        kind: kind.must(kind.word())?,
        overlap: part.at("overlap").word()?,
        reason: part.at("reason").word()?,
    };

    let mut processes: Vec<Occupant> = part
        .at("processes")
        .list()?
        .into_iter()
        .flatten()
        .map(|one| occupant(one, people))
        .collect::<Result<_, _>>()?;
    // A line has the container of the first beside it.
    if let Some(first) = processes.first_mut()
        && people.is_none()
    {
        Arc::make_mut(&mut first.process).container = container(part.at("container"))?;
    }
    let creator = part.at("creator");
    let creator = creator.is_there().then(|| {
        Ok(Creator {
            occupant: occupant(creator, people)?,
            exited: creator.at("exited").flag()?.unwrap_or_default(),
        })
    });
    let creator = creator.transpose()?;
    let closer = part.at("closer").is_there();
    let owner = Owner {
        since: moment(part.at("since"))?,
        processes,
        incomplete: false,
        parent: None,
        creator: creator.map(Box::new),
        closer: closer
            .then(|| departure(part, people).map(Box::new))
            .transpose()?,
        expires: moment(part.at("expires"))?,
        local: facts(network.at("local"))?,
        peer: facts(peer)?,
        interface: network.at("interface").at("name").string()?,
        systemd_unit: part.at("systemd").at("unit").string()?,
    };
    Ok((culprit, owner))
}

/// `closed` and `closer`
fn departure(part: Part<'_>, people: &mut Option<Numbered<'_>>) -> Result<Departure, Wrong> {
    let (closer, closed) = (part.at("closer"), part.at("closed"));
    Ok(Departure {
        occupant: occupant(closer, people)?,
        exited: closer.at("exited").flag()?.unwrap_or_default(),
        closed: closed.must(moment(closed))?,
    })
}

/// A line does not tell these moments on the kernel's clock.
fn moment(part: Part<'_>) -> Result<Option<Time>, Wrong> {
    let utc = part.time()?;
    Ok(utc.map(|utc| Time { boot: 0, utc }))
}

fn occupant(part: Part<'_>, people: &mut Option<Numbered<'_>>) -> Result<Occupant, Wrong> {
    let Some(people) = people else {
        let (task, process) = process(part)?;
        let process = Arc::new(process);
        return Ok(Occupant { task, process });
    };
    let id = part.at("id");
    let number: u64 = id.must(id.number())?;
    let mut occupant = people(number.cast_signed()).ok_or_else(|| id.wrong())?;
    if let Some(thread) = part.at("thread").number()? {
        occupant.task.tid = thread;
    }
    Ok(occupant)
}

fn program(part: Part<'_>) -> Result<PolicyProgram, Wrong> {
    let (id, cgroup) = (part.at("id"), part.at("cgroup"));
    let attach_type = part.at("attach_type");
    Ok(PolicyProgram {
        id: id.must(id.number())?,
        name: part.at("name").string()?,
        attach_type: attach_type.must(attach_type.own_word())?,
        cgroup: cgroup.must(cgroup.string())?,
    })
}

fn bearer(part: Part<'_>) -> Result<Bearer, Wrong> {
    let (name, state) = (part.at("name"), part.at("state"));
    Ok(Bearer {
        name: name.must(name.string())?,
        state: state.must(state.word())?,
    })
}

fn exhausted(part: Part<'_>, people: &mut Option<Numbered<'_>>) -> Result<Exhausted, Wrong> {
    let ends: Vec<u16> = part
        .at("range")
        .list()?
        .into_iter()
        .flatten()
        .map(|end| end.must(end.number()))
        .collect::<Result<_, _>>()?;
    let range = match ends[..] {
        [first, last] => Some(first..=last),
        _ => None,
    };
    let top = part.at("top").list()?.into_iter().flatten();
    Ok(Exhausted {
        range,
        range_of_socket: part.at("range_of_socket").flag()?.unwrap_or_default(),
        reserved: part.at("reserved").number()?,
        scope: part.at("scope").word()?,
        used: part.at("used").number()?,
        time_wait: part.at("time_wait").number()?,
        bound: None,
        top: top
            .map(|consumer| {
                let count = consumer.at("count");
                Ok(Consumer {
                    occupant: occupant(consumer.at("process"), people)?,
                    count: count.must(count.number())?,
                })
            })
            .collect::<Result<_, _>>()?,
        top_is_whole: false,
    })
}
