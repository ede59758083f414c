//! `conflict`: why a call was refused, and who has the sockets in its way.

use super::{
    object::{Object, key},
    process::{self, People, occupant},
    socket::{identity, network, options, side},
};
use crate::event::{
    Bearer, Consumer, Creator, Culprit, Departure, Exhausted, Explanation, Findings, Holder, Kind,
    Overlap, Owner, Policy, PolicyProgram, Reason, Scope, Verdict,
};

/// Writes the object. `sought`: whether the owners of the port were looked at; then their numbers
/// are known, be they 0.
pub(super) fn write(
    line: &mut Object<'_>,
    explanation: &Explanation,
    sought: bool,
    people: &mut People<'_>,
) {
    let Explanation {
        verdict,
        owners,
        findings,
        message,
        hint,
    } = explanation;
    let Verdict {
        kind,
        overlap,
        reason,
        device,
        culprits,
        total,
        truncated,
    } = verdict;
    line.object(key!("conflict"), |part| {
        rule(part, *kind, *overlap, *reason);
        part.flag(key!("device"), *device);
        if sought || !culprits.is_empty() {
            let holders = culprits.iter().zip(owners);
            part.list(key!("holders"), holders, |out, (culprit, owner)| {
                Object::write(out, |part| holder(part, culprit, owner, people));
            });
        }
        if sought {
            part.number(key!("holders_total"), *total);
            part.flag(key!("truncated"), *truncated);
        }
        let Findings {
            exhausted,
            interfaces,
            device: _, // printed as network.interface
            policy,
            gone,
        } = findings;
        if let Some(Policy::Programs(programs, _)) = policy {
            part.object(key!("policy"), |part| {
                part.list(key!("programs"), programs, |out, program| {
                    Object::write(out, |part| self::program(part, program));
                });
            });
        }
        if let Some(bearers) = interfaces {
            part.list(
                key!("interfaces"),
                bearers,
                |out, Bearer { name, state }| {
                    Object::write(out, |part| {
                        part.text(key!("name"), name.as_str());
                        part.word(key!("state"), state.as_str());
                    });
                },
            );
        }
        if let Some(exhausted) = exhausted {
            self::exhausted(part, exhausted, people);
        }
        if let Some(gone) = gone {
            part.object(key!("gone"), |part| departure(part, gone, people));
        }
        part.text(key!("message"), message.as_str());
        part.text(key!("hint"), hint.as_deref());
    });
}

fn rule(part: &mut Object<'_>, kind: Kind, overlap: Option<Overlap>, reason: Option<Reason>) {
    part.word(key!("kind"), kind.as_str());
    part.word(key!("overlap"), overlap.map(Overlap::as_str));
    part.word(key!("reason"), reason.map(Reason::as_str));
}

fn holder(part: &mut Object<'_>, culprit: &Culprit, owner: &Owner, people: &mut People<'_>) {
    let Culprit {
        holder,
        kind,
        overlap,
        reason,
    } = culprit;
    rule(part, *kind, *overlap, *reason);
    held(part, holder, owner, people);
}

/// A socket and who has it.
pub(super) fn held(part: &mut Object<'_>, holder: &Holder, owner: &Owner, people: &mut People<'_>) {
    let Holder {
        transport,
        family,
        state,
        local,
        peer,
        socket,
        // Seen in `kind`, and in who owns it.
        chose_port: _,
        accepted: _,
        of_kernel: _,
        remnant: _,
        references: _,
        caller_has_it: _,
        taker: _,
        closer: _,
    } = holder;
    let Owner {
        since,
        processes,
        incomplete: _, // said by `missing`
        parent: _,     // said in words
        creator,
        closer,
        expires,
        local: local_facts,
        peer: peer_facts,
        interface,
        systemd_unit,
    } = owner;
    let first = processes.first();

    part.object(key!("network"), |part| {
        network(part, *transport, *family);
        part.object(key!("connection"), |part| {
            part.word(key!("state"), state.as_str());
        });
        side(part, key!("local"), local, local_facts);
        if let Some(peer) = peer {
            side(part, key!("peer"), peer, peer_facts);
        }
        part.object(key!("interface"), |part| {
            part.text(key!("name"), interface.as_deref());
        });
    });
    part.object(key!("socket"), |part| {
        identity(part, socket);
        options(part, socket);
    });
    if let Some(since) = since {
        part.time(key!("since"), people.clock, since.utc);
    }
    part.list(key!("processes"), processes, |out, item| {
        Object::write(out, |part| occupant(part, item, people));
    });
    if let Some(first) = first {
        part.object(key!("process"), |part| occupant(part, first, people));
    }
    if let Some(Creator {
        occupant: creator,
        exited,
    }) = creator.as_deref()
    {
        part.object(key!("creator"), |part| {
            occupant(part, creator, people);
            // A word for what is so; that it is not so goes without saying.
            part.flag(key!("exited"), exited.then_some(true));
        });
    }
    if let Some(closer) = closer {
        departure(part, closer, people);
    }
    if let Some(expires) = expires {
        part.time(key!("expires"), people.clock, expires.utc);
    }
    process::container(
        part,
        first.and_then(|first| first.process.container.as_ref()),
    );
    process::unit(part, systemd_unit.as_deref());
}

/// `closed` and `closer`
fn departure(part: &mut Object<'_>, departure: &Departure, people: &mut People<'_>) {
    let Departure {
        occupant: who,
        exited,
        closed,
    } = departure;
    part.time(key!("closed"), people.clock, closed.utc);
    part.object(key!("closer"), |part| {
        occupant(part, who, people);
        part.flag(key!("exited"), exited.then_some(true));
    });
}

fn program(part: &mut Object<'_>, program: &PolicyProgram) {
    let PolicyProgram {
        id,
        name,
        attach_type,
        cgroup,
    } = program;
    part.number(key!("id"), *id);
    part.text(key!("name"), name.as_deref());
    part.word(key!("attach_type"), *attach_type);
    part.text(key!("cgroup"), cgroup.as_str());
}

fn exhausted(part: &mut Object<'_>, exhausted: &Exhausted, people: &mut People<'_>) {
    let Exhausted {
        range,
        range_of_socket,
        reserved,
        scope,
        used,
        time_wait,
        bound: _, // said in words
        top,
        top_is_whole: _, // said by `missing`
    } = exhausted;
    part.object(key!("exhausted"), |part| {
        if let Some(range) = range {
            let ends = [*range.start(), *range.end()];
            part.list(key!("range"), ends, crate::sink::digits::number);
        }
        part.flag(key!("range_of_socket"), range_of_socket.then_some(true));
        part.maybe_number(key!("reserved"), *reserved);
        part.maybe_number(key!("used"), *used);
        part.maybe_number(key!("time_wait"), *time_wait);
        part.word(key!("scope"), scope.map(Scope::as_str));
        if !top.is_empty() {
            part.list(key!("top"), top, |out, consumer| {
                let Consumer {
                    occupant: process,
                    count,
                } = consumer;
                Object::write(out, |part| {
                    part.object(key!("process"), |part| occupant(part, process, people));
                    part.number(key!("count"), *count);
                });
            });
        }
    });
}
