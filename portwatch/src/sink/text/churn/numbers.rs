//! Figures as they are written.

use std::time::Duration;

use crate::{churn::histogram::Percentiles, conflict::words::phrase::thousands};

pub(super) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// `450`, `4.5`: events per second.
pub(super) fn rate(count: u64, interval: Duration) -> String {
    let seconds = interval.as_secs_f64();
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    let rate = count as f64 / seconds;
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        thousands(rate.round() as u64)
    }
}

pub(super) fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), thousands)
}

pub(super) fn percentiles(times: &Percentiles) -> String {
    let Percentiles { p50, p90, p99 } = times;
    format!(
        "p50 {}, p90 {}, p99 {}",
        short(*p50),
        short(*p90),
        short(*p99)
    )
}

/// `850 ns`, `12 µs`, `3 ms`, `60 s`
fn short(time: Duration) -> String {
    const UNITS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
    let seconds = time.as_secs_f64();
    let (size, unit) = UNITS
        .into_iter()
        .find(|(size, _)| seconds >= *size)
        .unwrap_or((1e-9, "ns"));
    let number = seconds / size;
    if number < 9.95 {
        format!("{number:.1} {unit}")
    } else {
        format!("{number:.0} {unit}")
    }
}
