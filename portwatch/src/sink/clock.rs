//! Moments as text. The part down to the second is kept: events come many in a second.

use jiff::{
    Timestamp,
    tz::{Offset, TimeZone},
};

use super::digits;

/// `2026-11-22T12:03:11`
type Second = [u8; 19];

/// Writes moments in one time zone.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    kept: Option<(i64, Second)>,
}

impl Clock {
    pub(super) const fn new(zone: TimeZone) -> Self {
        Self { zone, kept: None }
    }

    /// Appends `12:03:11.482`.
    pub(super) fn time_of_day(&mut self, out: &mut Vec<u8>, moment: Timestamp) {
        let (second, nanosecond) = self.split(moment);
        let mut text = *b"00:00:00.000";
        text[..8].copy_from_slice(&second[11..]);
        text[9..].copy_from_slice(&digits::three(nanosecond / 1_000_000));
        out.extend_from_slice(&text);
    }

    /// Appends `2026-11-22T12:03:11.482000000Z`, which is true of a clock in UTC.
    pub(super) fn stamp(&mut self, out: &mut Vec<u8>, moment: Timestamp) {
        let (second, nanosecond) = self.split(moment);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        text[..19].copy_from_slice(&second);
        text[20..23].copy_from_slice(&digits::three(nanosecond / 1_000_000));
        text[23..26].copy_from_slice(&digits::three(nanosecond / 1_000));
        text[26..29].copy_from_slice(&digits::three(nanosecond));
        out.extend_from_slice(&text);
    }

    fn split(&mut self, moment: Timestamp) -> (Second, u32) {
        let (second, nanosecond) = split(moment);
        let text = match self.kept {
            Some((kept, text)) if kept == second => text,
            _ => {
                let text = format_second(self.zone.to_offset(moment), moment);
                self.kept = Some((second, text));
                text
            }
        };
        (text, nanosecond)
    }
}

/// Whole seconds, rounded down, and the nanoseconds above them.
fn split(moment: Timestamp) -> (i64, u32) {
    let (second, nanosecond) = (moment.as_second(), moment.subsec_nanosecond());
    match u32::try_from(nanosecond) {
        Ok(nanosecond) => (second, nanosecond),
        // Before 1970 both are negative.
        Err(_) => (second - 1, (nanosecond + 1_000_000_000).unsigned_abs()),
    }
}

fn format_second(offset: Offset, moment: Timestamp) -> Second {
    let at = offset.to_datetime(moment);
    let mut text = *b"0000-00-00T00:00:00";
    // RFC 3339 knows the years 0 to 9999; jiff ends with 9999.
    let year = at.year().max(0).unsigned_abs();
    let mut put = |place: usize, number: u8| {
        text[place..place + 2].copy_from_slice(&digits::two(number));
    };
    put(0, (year / 100) as u8);
    put(2, (year % 100) as u8);
    put(5, at.month().unsigned_abs());
    put(8, at.day().unsigned_abs());
    put(11, at.hour().unsigned_abs());
    put(14, at.minute().unsigned_abs());
    put(17, at.second().unsigned_abs());
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    fn text(moment: &str) -> String {
        let mut out = Vec::new();
        Clock::new(TimeZone::UTC).stamp(&mut out, moment.parse().unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stamps_are_rfc_3339_with_nine_digits() {
        for moment in [
            "2026-11-22T12:03:11.482000000Z",
            "1970-01-01T00:00:00.000000001Z",
            "1969-12-31T23:59:59.999999999Z",
            "2024-02-29T23:59:59.000000000Z",
        ] {
            assert_eq!(text(moment), moment);
        }
    }

    #[test]
    fn time_of_day_is_that_of_the_zone_and_follows_its_changes() {
        let mut clock = Clock::new(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let mut at = |moment: &str| {
            let mut out = Vec::new();
            clock.time_of_day(&mut out, moment.parse().unwrap());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at("2026-10-25T00:59:59.999Z"), "02:59:59.999");
        assert_eq!(at("2026-10-25T00:59:59.001Z"), "02:59:59.001");
        assert_eq!(at("2026-10-25T01:00:00Z"), "02:00:00.000");
    }
}
