#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Connections at a steady rate, each open for a while and then in TIME_WAIT, counted in milliseconds.
struct Simulation {
    /// Milliseconds between two.
    every: u64,
    open: u64,
    parked: u64,
    available: u64,
    now: u64,
    /// When each that is open closes, and each that waits is done.
    closing: VecDeque<u64>,
    ending: VecDeque<u64>,
    taken: u64,
    given: u64,
    waited: u64,
    failed: u64,
}

impl Simulation {
    fn new(every: u64, open: u64, parked: u64, available: u64) -> Self {
        Self {
            every,
            open,
            parked,
            available,
            now: 0,
            closing: VecDeque::new(),
            ending: VecDeque::new(),
            taken: 0,
            given: 0,
            waited: 0,
            failed: 0,
        }
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            while self.closing.front().is_some_and(|&at| at <= self.now) {
                self.closing.pop_front();
                if self.parked == 0 {
                    self.given += 1;
                } else {
                    self.waited += 1;
                    self.ending.push_back(self.now + self.parked);
                }
            }
            while self.ending.front().is_some_and(|&at| at <= self.now) {
                self.ending.pop_front();
                self.given += 1;
            }
            if self.now.is_multiple_of(self.every) {
                if self.used() < self.available {
                    self.taken += 1;
                    self.closing.push_back(self.now + self.open);
                } else {
                    self.failed += 1;
                }
            }
            self.now += 1;
        }
    }

    fn used(&self) -> u64 {
        (self.closing.len() + self.ending.len()) as u64
    }

    /// What portwatch would know after the next ten seconds.
    fn watched(&mut self) -> Pool {
        const INTERVAL: u64 = 10_000;
        let before = (self.taken, self.given, self.waited);
        self.run(self.now + INTERVAL);
        Pool {
            available: self.available.try_into().unwrap(),
            used: self.used(),
            waiting: self.ending.len() as u64,
            taken: self.taken - before.0,
            given: self.given - before.1,
            waited: self.waited - before.2,
            interval: Duration::from_millis(INTERVAL),
            waits: waits(false),
        }
    }
}

#[test]
fn the_example_of_the_manual() {
    let forecast = forecast(&Pool {
        available: 28_232,
        used: 9_000,
        waiting: 9_000,
        taken: 4_500,
        given: 0,
        waited: 4_500,
        interval: Duration::from_secs(10),
        waits: waits(false),
    })
    .unwrap();
    assert_eq!(forecast.needed.round(), 27_000.0);
    assert_eq!(forecast.fails_at.unwrap().ceil(), 471.0);
    assert!(!forecast.fails());
    assert_eq!(forecast.runs_out, None);
}

#[test]
fn when_it_runs_out() {
    // 100 a second for a minute need 6,000 of 1,000.
    let mut simulation = Simulation::new(10, 1, 60_000, 1_000);
    let pool = simulation.watched();
    assert_eq!(simulation.failed, 0);
    let runs_out = forecast(&Pool {
        available: 1_001,
        ..pool
    })
    .unwrap()
    .runs_out;
    assert_eq!(runs_out.unwrap().as_millis(), 10);
    let mut simulation = Simulation::new(20, 1, 60_000, 1_000);
    let forecast = forecast(&simulation.watched()).unwrap();
    let at = simulation.now + u64::try_from(forecast.runs_out.unwrap().as_millis()).unwrap();
    simulation.run(at - 20);
    assert_eq!(simulation.failed, 0);
    simulation.run(at + 40);
    assert!(simulation.failed > 0);
}

#[test]
fn what_is_taken_over_after_a_second_needs_no_minute() {
    let pool = Pool {
        available: 28_232,
        used: 27_000,
        waiting: 27_000,
        taken: 4_500,
        given: 4_500,
        waited: 4_500,
        interval: Duration::from_secs(10),
        waits: waits(true),
    };
    let forecast = forecast(&pool).unwrap();
    assert_eq!(forecast.needed.round(), 450.0);
    assert!(forecast.fails_at.unwrap() > 28_000.0);
}

#[test]
fn of_nothing_there_is_no_forecast() {
    let mut simulation = Simulation::new(10, 1, 60_000, 1_000);
    let pool = simulation.watched();
    assert_eq!(forecast(&Pool { taken: 0, ..pool }), None);
    assert_eq!(
        forecast(&Pool {
            interval: Duration::ZERO,
            ..pool
        }),
        None
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Long before the steady state it is told what that will be.
    #[test]
    fn the_steady_state_is_foretold(every in 1u64..50, open in 1u64..2_000, parked in any::<bool>()) {
        let parked = if parked { 60_000 } else { 0 };
        let mut simulation = Simulation::new(every, open, parked, u64::from(u32::MAX));
        // In the first interval some have not closed yet.
        simulation.run(2_000);
        let forecast = forecast(&simulation.watched()).unwrap();
        simulation.run(70_000);
        let used = simulation.used() as f64;
        // Of a rate that does not divide the interval one more or less is counted, which is six a minute.
        let slack = 8.0;
        prop_assert!((forecast.needed - used).abs() <= slack, "{} {used}", forecast.needed);
    }

    /// Below the rate that is named there are ports for all, above it not.
    #[test]
    fn the_rate_at_which_it_fails_is_right(every in 2u64..40, open in 1u64..500) {
        let mut simulation = Simulation::new(every, open, 60_000, u64::from(u32::MAX));
        simulation.run(70_000);
        let needed = simulation.used();
        // As if there were a third less, and a third more.
        for (available, fails) in [(needed * 2 / 3, true), (needed * 4 / 3, false)] {
            let pool = simulation.watched();
            let pool = Pool { available: available.try_into().unwrap(), ..pool };
            let forecast = forecast(&pool).unwrap();
            prop_assert_eq!(forecast.fails(), fails);
            prop_assert_eq!(forecast.fails_at.unwrap() < forecast.rate, fails);
            let mut narrow = Simulation::new(every, open, 60_000, available);
            narrow.run(130_000);
            prop_assert_eq!(narrow.failed > 0, fails);
        }
    }
}
