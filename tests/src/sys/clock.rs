//! CLOCK_BOOTTIME, the clock of `time_boot`; and CLOCK_REALTIME, which may be set.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::check;

/// Now, ns.
pub(crate) fn boot_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; the clock exists since 2.6.39, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Sets the clock of the machine: for one that is ours, a test VM.
pub(crate) fn set(to: impl FnOnce(SystemTime) -> SystemTime) -> Result<()> {
    let time = to(SystemTime::now()).duration_since(UNIX_EPOCH)?;
    let time = libc::timespec {
        tv_sec: time.as_secs().try_into()?,
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: a valid timespec.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) })
        .context("cannot set the clock")?;
    Ok(())
}
