//! From the kernel's clock to the calendar.
//!
//! Events carry CLOCK_BOOTTIME. NTP slews it together with CLOCK_REALTIME and both run on through
//! suspend, so the distance between them changes only when somebody sets the clock or a leap second
//! is inserted: [`StepWatch`] tells of both without a periodic wake-up.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::OnceLock,
};

use jiff::Timestamp;
use nix::{
    sys::{
        time::{TimeSpec, TimeValLike},
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::event::Time;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Turns CLOCK_BOOTTIME as the kernel's programs see it into UTC.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// UTC minus CLOCK_BOOTTIME, ns.
    offset: i64,
    /// What this process' time namespace adds to CLOCK_BOOTTIME (time_namespaces(7)), ns. The
    /// kernel's programs see the clock without it.
    namespace: i64,
}

impl Clock {
    /// Takes the distance between the clocks.
    ///
    /// # Errors
    ///
    /// A clock that cannot be read, which no supported kernel lacks.
    pub fn new() -> io::Result<Self> {
        let mut clock = Self {
            offset: 0,
            namespace: own_boottime_offset(),
        };
        clock.resample()?;
        Ok(clock)
    }

    /// Takes the distance again, after a clock step.
    ///
    /// # Errors
    ///
    /// As for [`Clock::new`].
    pub fn resample(&mut self) -> io::Result<()> {
        // The reading that was interrupted the least is the most exact.
        let mut best = sample()?;
        for _ in 0..3 {
            let next = sample()?;
            if next.width < best.width {
                best = next;
            }
        }
        self.offset = best.offset.saturating_add(self.namespace);
        Ok(())
    }

    /// UTC of a moment on CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn utc(&self, boot: u64) -> Timestamp {
        let nanos = i64::try_from(boot)
            .unwrap_or(i64::MAX)
            .saturating_add(self.offset);
        let fraction = i32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
        // 64 bits of nanoseconds end in 2262, far inside what a timestamp holds.
        Timestamp::new(nanos.div_euclid(NANOS_PER_SECOND), fraction).unwrap_or_default()
    }

    /// Both clocks at a moment on CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn time(&self, boot: u64) -> Time {
        Time {
            boot,
            utc: self.utc(boot),
        }
    }

    /// Both clocks now.
    ///
    /// # Errors
    ///
    /// As for [`Clock::new`].
    pub fn now(&self) -> io::Result<Time> {
        let boot = read(ClockId::CLOCK_BOOTTIME)?.saturating_sub(self.namespace);
        Ok(self.time(u64::try_from(boot).unwrap_or_default()))
    }
}

/// One reading of both clocks.
struct Sample {
    /// CLOCK_REALTIME minus CLOCK_BOOTTIME, ns; wrong by half of `width` at most.
    offset: i64,
    /// Time that the reading took, ns.
    width: i64,
}

fn sample() -> io::Result<Sample> {
    let before = read(ClockId::CLOCK_BOOTTIME)?;
    let real = read(ClockId::CLOCK_REALTIME)?;
    let width = read(ClockId::CLOCK_BOOTTIME)?.saturating_sub(before);
    Ok(Sample {
        offset: real - before - width / 2,
        width,
    })
}

fn read(clock: ClockId) -> io::Result<i64> {
    Ok(clock_gettime(clock)?.num_nanoseconds())
}

/// What this process' time namespace adds to CLOCK_BOOTTIME (time_namespaces(7)), ns. No process can
/// leave its own once it runs on several threads, so that it stays what it is.
#[must_use]
pub fn own_boottime_offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| boottime_offset(&text))
    })
}

/// The offset of CLOCK_BOOTTIME in `/proc/PID/timens_offsets`, ns; 0 where there is none.
fn boottime_offset(text: &str) -> i64 {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        // 7 is CLOCK_BOOTTIME; the kernel prints the name and takes either.
        words
            .next()
            .filter(|name| *name == "boottime" || *name == "7")?;
        let seconds: i64 = words.next()?.parse().ok()?;
        let nanos: i64 = words.next()?.parse().ok()?;
        seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
    };
    text.lines().find_map(parse).unwrap_or(0)
}

/// Tells when the clock was set: a timer that never goes off but is cancelled by a step
/// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
#[derive(Debug)]
pub struct StepWatch(AsyncFd<Timer>);

/// A timer as tokio wants a descriptor.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl StepWatch {
    /// Starts to watch. Call it before [`Clock::new`], so that no step falls between the two, and
    /// inside a tokio runtime with I/O.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to make the timer, or the runtime's to watch it.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(
            TimerClock::CLOCK_REALTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        arm(&timer)?;
        // SAFETY: the timer owns its descriptor, which stays open and the same as long as it lives.
        let watched = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until the clock was set, then watches for the next time. May be dropped and called
    /// again: no step is missed.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to read or set the timer.
    pub async fn stepped(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            // nix' own `wait` takes the one answer wanted here, ECANCELED, for an expiry.
            let read =
                ready.try_io(|timer| Ok(nix::unistd::read(&timer.get_ref().0, &mut [0; 8])?));
            match read {
                Err(_would_block) => {}
                Ok(Ok(_)) => arm(&self.0.get_ref().0)?,
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ECANCELED) => {
                    arm(&self.0.get_ref().0)?;
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn arm(timer: &TimerFd) -> io::Result<()> {
    // The largest time there is; the kernel takes it for "never".
    timer.set(
        Expiration::OneShot(TimeSpec::new(libc::c_long::MAX, 0)),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn now_is_now() {
        let clock = Clock::new().unwrap();
        let here = clock.now().unwrap().utc;
        let there = Timestamp::now();
        let distance = there.duration_since(here).abs().as_millis();
        assert!(distance < 1000, "{here} {there}");
    }

    #[test]
    fn a_later_moment_is_later_by_as_much() {
        let clock = Clock {
            offset: 1_700_000_000_000_000_007,
            namespace: 0,
        };
        let time = clock.time(1_999_999_999);
        assert_eq!(time.boot, 1_999_999_999);
        assert_eq!(time.utc.to_string(), "2023-11-14T22:13:22.000000006Z");
    }

    #[test]
    fn a_time_before_1970_is_a_time() {
        let clock = Clock {
            offset: -1_500_000_000,
            namespace: 0,
        };
        assert_eq!(clock.utc(0).to_string(), "1969-12-31T23:59:58.5Z");
    }

    #[test]
    fn offsets_of_time_namespaces() {
        for (text, offset) in [
            (
                "monotonic           0         0\nboottime            0         0\n",
                0,
            ),
            (
                "monotonic  5 0\nboottime  86400  250000000\n",
                86_400_250_000_000,
            ),
            ("boottime  -5 0\n", -5_000_000_000),
            ("7 1 0\n", 1_000_000_000),
            ("", 0),
            ("boottime x y", 0),
            ("boottime 9223372036854775807 0", 0),
        ] {
            assert_eq!(boottime_offset(text), offset, "{text:?}");
        }
    }

    #[test]
    fn without_a_step_the_watch_stays_silent() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watch = StepWatch::new().unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(50), watch.stepped()).await;
            assert!(waited.is_err(), "{waited:?}");
        });
    }

    proptest! {
        #[test]
        fn any_moment_has_a_time(boot: u64, offset: i64) {
            let clock = Clock { offset, namespace: 0 };
            let expected = (i128::from(boot).min(i128::from(i64::MAX)) + i128::from(offset))
                .min(i128::from(i64::MAX));
            prop_assert_eq!(clock.utc(boot).as_nanosecond(), expected);
        }

        #[test]
        fn any_text_is_survived(text in "(boottime|7)? ?.*") {
            boottime_offset(&text);
        }
    }
}
