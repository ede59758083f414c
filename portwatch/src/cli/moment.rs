//! Moments as people type them.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// A moment that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// With its time zone.
    At(Timestamp),
    /// As clocks on the wall show it.
    Local(DateTime),
    /// So long ago.
    Ago(Duration),
}

impl Moment {
    /// The moment.
    #[must_use]
    pub fn resolve(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        match self {
            Self::At(moment) => *moment,
            // An hour that a clock shows twice is the first; one that it skips is the one after it.
            Self::Local(local) => zone
                .to_ambiguous_timestamp(*local)
                .compatible()
                .unwrap_or(now),
            Self::Ago(time) => now.checked_sub(*time).unwrap_or(Timestamp::MIN),
        }
    }
}

/// `2026-11-28`, `2026-11-28 03:00`, `2026-11-28T03:00:00Z`, `36h`, `2d`.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if let Ok(moment) = text.parse() {
        return Ok(Moment::At(moment));
    }
    if let Ok(local) = text.parse() {
        return Ok(Moment::Local(local));
    }
    super::parse::age(text).map(Moment::Ago).map_err(|_| {
        format!(
            "{text:?} is not a time: write it like 2026-11-28, \"2026-11-28 03:00\", \
             2026-11-28T03:00:00Z, or 36h for so long ago"
        )
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn moments() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        for (text, expected) in [
            ("2026-11-28", "2026-11-27T23:00:00Z"),
            ("2026-11-28 03:00", "2026-11-28T02:00:00Z"),
            ("2026-11-28T03:00:05.5", "2026-11-28T02:00:05.5Z"),
            ("2026-11-28T03:00:00Z", "2026-11-28T03:00:00Z"),
            ("36h", "2026-11-28T00:00:00Z"),
            ("2d", "2026-11-27T12:00:00Z"),
        ] {
            let moment = parse(text).unwrap().resolve(now, &zone);
            assert_eq!(moment.to_string(), expected, "{text}");
        }
        for text in ["", "yesterday", "25:00", "-1h", "2026-13-01"] {
            assert!(
                parse(text).is_err_and(|words| words.contains("36h")),
                "{text}"
            );
        }
    }
}
