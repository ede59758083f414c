//! Percentiles of a histogram with two buckets for each power of two.

use std::time::Duration;

use portwatch_ebpf::abi::churn::{BUCKETS, LEAST_BITS};

/// Times that so many of a hundred do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// The middle.
    pub p50: Duration,
    /// Of nine in ten.
    pub p90: Duration,
    /// Of 99 in a hundred.
    pub p99: Duration,
}

/// Those of a histogram; `None` of an empty one. A time is told as the middle of its bucket on a logarithmic
/// scale, which is off by a fifth at most.
#[must_use]
pub fn percentiles(histogram: &[u64; BUCKETS]) -> Option<Percentiles> {
    let total: u64 = histogram.iter().sum();
    if total == 0 {
        return None;
    }
    let at = |percent: u64| {
        let rank = (total * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = histogram.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(middle(bucket.unwrap_or(BUCKETS - 1)))
    };
    Some(Percentiles {
        p50: at(50),
        p90: at(90),
        p99: at(99),
    })
}

/// The lower end of a bucket, ns.
fn low(bucket: usize) -> f64 {
    let base = 2f64.powi(i32::try_from(bucket / 2).unwrap_or(i32::MAX) + LEAST_BITS.cast_signed());
    if bucket.is_multiple_of(2) {
        base
    } else {
        base * 1.5
    }
}

/// The geometric middle of a bucket, ns.
fn middle(bucket: usize) -> u64 {
    (low(bucket) * low(bucket + 1)).sqrt().round() as u64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use portwatch_ebpf::abi::churn::bucket;
    use proptest::prelude::*;

    use super::*;

    fn of(times: &[u64]) -> Option<Percentiles> {
        let mut histogram = [0; BUCKETS];
        for &time in times {
            histogram[bucket(time)] += 1;
        }
        percentiles(&histogram)
    }

    #[test]
    fn of_nothing_there_are_none() {
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_hundred_times() {
        let times: Vec<u64> = (1..=100).map(|n| n * 1_000_000).collect();
        let Percentiles { p50, p90, p99 } = of(&times).unwrap();
        for (found, right) in [(p50, 50.0), (p90, 90.0), (p99, 99.0)] {
            let ratio = found.as_secs_f64() * 1000.0 / right;
            assert!((0.75..1.34).contains(&ratio), "{found:?}, {right}");
        }
    }

    proptest! {
        #[test]
        fn one_time_is_told_within_a_quarter(time in 2_000u64..1 << 41) {
            let Percentiles { p50, p90, p99 } = of(&[time]).unwrap();
            prop_assert!(p50 == p90 && p90 == p99);
            let ratio = p50.as_nanos() as f64 / time as f64;
            prop_assert!((0.79..1.26).contains(&ratio), "{time}: {ratio}");
        }

        #[test]
        fn any_time_has_a_bucket(time: u64) {
            prop_assert!(bucket(time) < BUCKETS);
        }
    }
}
