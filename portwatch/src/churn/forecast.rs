//! What a tuple needs in the steady state, and when it runs out, by Little's law: ports in use = rate ×
//! time each is held.
//!
//! A connection holds its port while it is open, and after that for [`TIME_WAIT`] if its side closed first.
//! How long it is open is the number of open ones over the rate; that is right as soon as the first have
//! closed, where the mean of ports given back would leave out all that still wait.

use std::time::Duration;

/// TCP_TIMEWAIT_LEN (include/net/tcp.h)
pub const TIME_WAIT: Duration = Duration::from_secs(60);

/// After which a connection in TIME_WAIT may be taken over (net/ipv4/tcp_ipv4.c, `tcp_twsk_unique`).
pub const REUSE_AFTER: Duration = Duration::from_secs(1);

/// What is known of a pool of ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Ports that there are.
    pub available: u32,
    /// Ports held, those in TIME_WAIT too.
    pub used: u64,
    /// Of `used` those in TIME_WAIT.
    pub waiting: u64,
    /// Ports taken in the interval.
    pub taken: u64,
    /// Ports given back in the interval.
    pub given: u64,
    /// Connections that entered TIME_WAIT in the interval.
    pub waited: u64,
    /// Length of the interval.
    pub interval: Duration,
    /// How long a connection keeps its port in TIME_WAIT, [`waits`].
    pub waits: Duration,
}

/// What will become of it at the present rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Ports taken per second.
    pub rate: f64,
    /// Ports that are in use once as many are given back as are taken.
    pub needed: f64,
    /// Ports that there are.
    pub available: u32,
    /// The rate from which on ports run out, per second; none where there is nothing that would grow with the
    /// rate.
    pub fails_at: Option<f64>,
    /// How long until then, where more is needed than there is, and use grows.
    pub runs_out: Option<Duration>,
}

impl Forecast {
    /// Whether ports will run out, or have.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.needed > f64::from(self.available)
    }
}

/// How long TIME_WAIT keeps a port from others. `reuses`: another connection may take it over.
#[must_use]
pub const fn waits(reuses: bool) -> Duration {
    if reuses { REUSE_AFTER } else { TIME_WAIT }
}

/// The forecast; `None` where nothing is taken.
#[must_use]
pub fn forecast(pool: &Pool) -> Option<Forecast> {
    let seconds = pool.interval.as_secs_f64();
    if pool.taken == 0 || seconds <= 0.0 {
        return None;
    }
    let rate = pool.taken as f64 / seconds;
    let open = pool.used.saturating_sub(pool.waiting) as f64;
    let parked = pool.waited as f64 / seconds;
    let needed = open + parked * pool.waits.as_secs_f64();
    // Ports that are open now and will be: a rate of 0 needs none.
    let fails_at = (needed > 0.0).then(|| rate * f64::from(pool.available) / needed);
    let growth = (pool.taken as f64 - pool.given as f64) / seconds;
    let left = f64::from(pool.available) - pool.used as f64;
    let runs_out = (needed > f64::from(pool.available) && left > 0.0 && growth > 0.0)
        .then(|| Duration::try_from_secs_f64(left / growth).ok())
        .flatten();
    Some(Forecast {
        rate,
        needed,
        available: pool.available,
        fails_at,
        runs_out,
    })
}

#[cfg(test)]
mod tests;
