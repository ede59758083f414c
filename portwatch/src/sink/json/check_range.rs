//! A range of ports that was asked about, in one object.

use std::ops::RangeInclusive;

use jiff::tz::TimeZone;

use super::{
    SCHEMA, conflict,
    object::{Key, Object, key, string},
    process::People,
};
use crate::{
    event::{CheckedRange, Listing, RESERVED_PORTS, Time, port_list},
    sink::{clock::Clock, digits},
};

/// The line; `time`: when it was asked.
#[must_use]
pub fn line(checked: &CheckedRange, time: Time) -> Vec<u8> {
    let CheckedRange {
        range,
        ephemeral,
        reserved,
        sockets,
        netns,
        elsewhere: _, // told by netns
        may_hide,
    } = checked;
    let (mut clock, mut creation) = (Clock::new(TimeZone::UTC), Clock::new(TimeZone::UTC));
    let mut people = People::in_full(true, &mut creation);
    let mut out = Vec::new();
    Object::write(&mut out, |line| {
        line.word(key!("schema"), SCHEMA);
        line.number(key!("seq"), 1);
        line.time(key!("time"), &mut clock, time.utc);
        line.number(key!("time_boot"), time.boot);
        line.word(key!("record"), "check_range");
        ends(line, key!("range"), range);
        ends(line, key!("ephemeral"), ephemeral);
        lists(line, key!("reserved"), reserved);
        let given_out = checked.given_out();
        lists(line, key!("given_out"), &given_out);
        line.object(key!("socket"), |part| {
            part.maybe_number(key!("netns"), *netns);
        });
        line.list(key!("sockets"), sockets, |out, listing| {
            let Listing { socket, owner, .. } = listing;
            let missing = listing.missing();
            Object::write(out, |part| {
                conflict::held(part, socket, owner, &mut people);
                if !missing.is_empty() {
                    part.list(key!("missing"), missing, string);
                }
            });
        });
        if !given_out.is_empty() {
            line.object(key!("sysctl"), |part| {
                part.word(key!("name"), RESERVED_PORTS);
                part.text(key!("value"), port_list(&checked.remedy()).as_str());
            });
        }
        line.flag(key!("incomplete"), may_hide.then_some(true));
    });
    out.push(b'\n');
    out
}

fn ends(line: &mut Object<'_>, key: Key, range: &RangeInclusive<u16>) {
    line.list(key, [*range.start(), *range.end()], digits::number);
}

fn lists(line: &mut Object<'_>, key: Key, ranges: &[RangeInclusive<u16>]) {
    line.list(key, ranges, |out, range| {
        out.push(b'[');
        digits::number(out, *range.start());
        out.push(b',');
        digits::number(out, *range.end());
        out.push(b']');
    });
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{sample, sink::schema};

    #[test]
    fn lines_are_as_the_schema_says() {
        let lines = sample::ranges();
        let lines = lines.iter().flat_map(|one| line(one, sample::time()));
        let text = String::from_utf8(lines.collect()).unwrap();
        for line in text.lines() {
            assert_eq!(schema::problems(&format!("{line}\n")), [""; 0]);
        }
        insta::assert_snapshot!(text);
    }
}
