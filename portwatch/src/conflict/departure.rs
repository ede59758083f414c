//! Who gave a port back: which of the kernel programs' notes of closed sockets fit what was in the way.

use std::time::Duration;

use crate::event::{Closer, Event, Holder};

/// TCP_TIMEWAIT_LEN (include/net/tcp.h).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// How long before the call a socket was closed at most that was in its way and is gone: closing takes
/// less, but a thread may be preempted on its way.
const JUST_BEFORE: Duration = Duration::from_millis(10);

/// Who left a connection in TIME_WAIT that was in the way at `now`, and ends at `expires`, if that is known;
/// both CLOCK_BOOTTIME, ns.
///
/// A note is about whatever had these ends last, and its connection may have been shut down before it was
/// closed: then the note is that of an earlier connection, whose own TIME_WAIT had to pass in between. From
/// close() to TIME_WAIT the kernel waits for the peer as long as that (`tcp_fin_timeout`).
#[must_use]
pub fn left_by(holder: &Holder, now: u64, expires: Option<u64>) -> Option<&Closer> {
    let entered = expires.map_or(now, |expires| expires.saturating_sub(nanos(TIME_WAIT)));
    let closer = holder.closer.as_ref()?;
    (closer.time_boot <= now && closer.time_boot > entered.saturating_sub(nanos(TIME_WAIT)))
        .then_some(closer)
}

/// Who closed a listening or bound socket on the port while the call was on its way.
#[must_use]
pub fn just_closed_by(event: &Event) -> Option<&Closer> {
    let began = event
        .time_boot
        .saturating_sub(event.duration.unwrap_or_default());
    let closer = event.conflict.as_ref()?.last.as_ref()?;
    (closer.time_boot >= began.saturating_sub(nanos(JUST_BEFORE))).then_some(closer)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Kind, Task},
        sample::conflict::held,
    };

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_earlier_connection_with_the_same_ends_left_nothing() {
        let now = 1_000 * SECOND;
        let at = |seconds: u64, remaining: Option<u64>| {
            let holder = held(Kind::TimeWait, "127.0.0.1:80")
                .holder(|holder| {
                    holder.closer = Some(Closer {
                        task: Task::default(),
                        time_boot: now - seconds * SECOND,
                    });
                })
                .culprit
                .holder;
            left_by(&holder, now, remaining.map(|left| now + left * SECOND)).is_some()
        };
        // It has entered TIME_WAIT 14 s ago.
        assert!(at(14, Some(46)));
        // Its peer took its time.
        assert!(at(70, Some(46)));
        assert!(!at(75, Some(46)), "an earlier one");
        assert!(at(59, None));
        assert!(!at(60, None));
        let later = held(Kind::TimeWait, "127.0.0.1:80").holder(|holder| {
            holder.closer = Some(Closer {
                task: Task::default(),
                time_boot: now + 1,
            });
        });
        assert_eq!(left_by(&later.culprit.holder, now, None), None);
    }
}
