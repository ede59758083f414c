//! A bind() that was asked about, in one object.

use jiff::tz::TimeZone;

use super::{
    SCHEMA, conflict, line,
    object::{Object, key, string},
    process::People,
    socket::{identity, network, options, side},
};
use crate::{
    event::{Checked, Kind, Listing, Outlook, Time},
    sink::clock::Clock,
};

/// The line; `time`: when it was asked.
#[must_use]
pub fn line(checked: &Checked, time: Time) -> Vec<u8> {
    let Checked {
        transport,
        family,
        local,
        facts,
        interface,
        socket,
        outlook,
        explanation,
        sought,
        rivals,
        missing,
    } = checked;
    let (mut clock, mut creation) = (Clock::new(TimeZone::UTC), Clock::new(TimeZone::UTC));
    let mut people = People::in_full(true, &mut creation);
    let mut out = Vec::new();
    Object::write(&mut out, |line| {
        line.word(key!("schema"), SCHEMA);
        line.number(key!("seq"), 1);
        line.time(key!("time"), &mut clock, time.utc);
        line.number(key!("time_boot"), time.boot);
        line.word(key!("record"), "check");
        line.object(key!("check"), |part| {
            part.word(key!("outcome"), outlook.as_str());
            if let Outlook::Unknown(doubt) = outlook {
                part.word(key!("doubt"), doubt.as_str());
            }
        });
        if let Outlook::Refused(errno) = outlook {
            line::error(line, *errno);
        }
        line.object(key!("network"), |part| {
            network(part, *transport, *family);
            side(part, key!("local"), local, facts);
            part.object(key!("interface"), |part| {
                part.text(key!("name"), interface.as_deref());
            });
        });
        line.object(key!("socket"), |part| {
            identity(part, socket);
            options(part, socket);
        });
        if let Some(explanation) = explanation {
            conflict::write(line, explanation, *sought, &mut people);
        }
        if !rivals.is_empty() {
            line.list(key!("rivals"), rivals, |out, rival| {
                let Listing { socket, owner, .. } = rival;
                Object::write(out, |part| {
                    part.word(key!("kind"), Kind::Bound.as_str());
                    conflict::held(part, socket, owner, &mut people);
                });
            });
        }
        if !missing.is_empty() {
            line.list(key!("missing"), missing, |out, path| string(out, path));
        }
    });
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{sample, sink::schema};

    #[test]
    fn lines_are_as_the_schema_says() {
        let checked = sample::checked();
        let lines = checked.iter().flat_map(|one| line(one, sample::time()));
        let text = String::from_utf8(lines.collect()).unwrap();
        for line in text.lines() {
            assert_eq!(schema::problems(&format!("{line}\n")), [""; 0]);
        }
        insta::assert_snapshot!(text);
    }
}
