//! Sockets that were looked up, one object a line.

use jiff::tz::TimeZone;

use super::{
    SCHEMA, conflict,
    object::{Object, key, string},
};
use crate::{
    event::{Listing, Time},
    sink::clock::Clock,
};

/// The lines of sockets that were looked up at `time`; `args`: with the arguments of processes.
#[must_use]
pub fn lines(listings: &[Listing], time: Time, args: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut clock, mut creation) = (Clock::new(TimeZone::UTC), Clock::new(TimeZone::UTC));
    for (seq, listing) in (1u64..).zip(listings) {
        Object::write(&mut out, |line| {
            line.word(key!("schema"), SCHEMA);
            line.number(key!("seq"), seq);
            line.time(key!("time"), &mut clock, time.utc);
            line.number(key!("time_boot"), time.boot);
            line.word(key!("record"), "socket");
            conflict::held(line, &listing.socket, &listing.owner, args, &mut creation);
            let missing = listing.missing();
            if !missing.is_empty() {
                line.list(key!("missing"), missing, string);
            }
        });
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sink::schema;

    #[test]
    fn lines_are_as_the_schema_says() {
        let lines = lines(&crate::sample::listings(), crate::sample::time(), true);
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(schema::problems(&text), [""; 0]);
        insta::assert_snapshot!(text);
    }
}
