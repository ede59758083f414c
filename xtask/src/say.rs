//! What xtask tells the person who waits: one line a step, on stderr.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// One line of news.
pub(crate) fn say(text: impl Display) {
    eprintln!("xtask: {text}");
}

/// A step that takes a while: announced when it starts, timed when it ends.
pub(crate) struct Step {
    what: String,
    since: Instant,
}

impl Step {
    /// Announces `what` ("building bpf-linker").
    pub(crate) fn begin(what: impl Into<String>) -> Step {
        let what = what.into();
        say(format_args!("{what} …"));
        Step {
            what,
            since: Instant::now(),
        }
    }

    /// Says that the step is done and how long it took.
    pub(crate) fn done(self) {
        say(format_args!(
            "{}: done in {}",
            self.what,
            duration(self.since.elapsed())
        ));
    }
}

/// A duration as people say it: `0.4 s`, `73 s`, `3 min 20 s`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A size as people say it: `870 kB`, `36 MB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", (bytes + 500_000) / 1_000_000),
    }
}

/// `1 package`, `2 packages`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(duration(Duration::from_millis(420)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(73)), "73 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn sizes_read_naturally() {
        assert_eq!(size(1), "1 kB");
        assert_eq!(size(869_500), "870 kB");
        assert_eq!(size(36_010_332), "36 MB");
    }
}
