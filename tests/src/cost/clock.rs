//! Clocks, in nanoseconds; instructions under `-icount shift=0`.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

fn read(clock: ClockId) -> Result<u64> {
    let now = clock.now().context("cannot read a clock")?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

/// The machine's clock: CLOCK_MONOTONIC.
pub(super) fn machine() -> Result<u64> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// What this process has run, with the children it has waited for (those to the microsecond).
pub(super) fn own() -> Result<u64> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot ask for resource usage")?;
    let children: i64 = [children.user_time(), children.system_time()]
        .iter()
        .map(|time| (time.tv_sec() * 1_000_000 + time.tv_usec()) * 1000)
        .sum();
    Ok(read(ClockId::CLOCK_PROCESS_CPUTIME_ID)? + children.cast_unsigned())
}

/// What all threads of another process have run, those that have ended too.
pub(super) fn of(pid: u32) -> Result<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))
        .with_context(|| format!("process {pid} is gone"))?;
    read(clock)
}

/// Sleeps.
pub(super) fn pause(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds));
}

/// Which part of its time a process has spent in the kernel, from 0 to 1; as exact as the ticks by which
/// the kernel tells the two apart (proc_pid_stat(5), utime and stime).
pub(super) fn in_kernel(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let times: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, kernel] = times[..] else {
        bail!("no times in {stat}");
    };
    Ok(kernel / (user + kernel).max(1.0))
}
