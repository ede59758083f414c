//! Sockets that were looked up, one object a line.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::{
    SCHEMA, conflict,
    object::{Object, key, string},
    process::People,
};
use crate::{
    event::{Listing, Time},
    sink::clock::Clock,
};

/// Writes the lines of sockets that were looked up at `time`; `args`: with the arguments of processes.
///
/// # Errors
/// Those of `out`.
pub fn write(listings: &[Listing], time: Time, args: bool, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    let (mut clock, mut creation) = (Clock::new(TimeZone::UTC), Clock::new(TimeZone::UTC));
    for (seq, listing) in (1u64..).zip(listings) {
        text.clear();
        Object::write(&mut text, |line| {
            line.word(key!("schema"), SCHEMA);
            line.number(key!("seq"), seq);
            line.time(key!("time"), &mut clock, time.utc);
            line.number(key!("time_boot"), time.boot);
            line.word(key!("record"), "socket");
            let mut people = People::in_full(args, &mut creation);
            conflict::held(line, &listing.socket, &listing.owner, &mut people);
            let missing = listing.missing();
            if !missing.is_empty() {
                line.list(key!("missing"), missing, string);
            }
        });
        text.push(b'\n');
        out.write_all(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sink::schema;

    #[test]
    fn lines_are_as_the_schema_says() {
        let mut lines = Vec::new();
        let (listings, time) = (crate::sample::listings(), crate::sample::time());
        write(&listings, time, true, &mut lines).unwrap();
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(schema::problems(&text), [""; 0]);
        insta::assert_snapshot!(text);
    }
}
