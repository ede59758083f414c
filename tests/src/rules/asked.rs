//! `portwatch check` against the running kernel: before each bind() of a random case it is asked what would
//! come of it, by the way that the command goes: sock_diag, `/proc`, and the sockets themselves. Nothing of
//! what the case has done is told to it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use portwatch::{
    commands::check::ask::{Answer, Question, ask},
    conflict::rules::Claim,
    event::{Doubt, Errno, Outlook, TcpState, Transport},
};

use super::{
    case::{Case, Device, Spec, Step},
    compare::shown,
    generate,
    kernel::Kernel,
    make::{Ground, VETH},
    predict::{Model, Outcome},
};

/// Of so many questions beside other sockets, at most so many may go without an answer: a check that never
/// knows would never be wrong.
const MOST_UNKNOWN_PERCENT: u64 = 20;

/// What came of the questions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// All of them.
    asked: u64,
    /// With other sockets on the port.
    beside: u64,
    free: u64,
    refused: u64,
    unknown: BTreeMap<Doubt, u64>,
    /// What went otherwise than it was told, in words.
    pub(super) wrong: Vec<String>,
}

impl Tally {
    /// For people.
    pub(super) fn line(&self) -> String {
        let Self {
            asked,
            beside,
            free,
            refused,
            unknown,
            wrong,
        } = self;
        let doubts: Vec<String> = unknown
            .iter()
            .map(|(doubt, count)| format!("{} {count}", doubt.as_str()))
            .collect();
        format!(
            "{asked} questions, {beside} beside other sockets: {free} free, {refused} refused, {} unknown ({}), {} wrong",
            unknown.values().sum::<u64>(),
            doubts.join(", "),
            wrong.len()
        )
    }

    /// Whether too much is unknown, or nothing was put to the test.
    pub(super) fn is_too_vague(&self) -> bool {
        let unknown: u64 = self.unknown.values().sum();
        unknown * 100 > self.beside * MOST_UNKNOWN_PERCENT || self.free == 0 || self.refused == 0
    }

    fn count(&mut self, answer: &Answer) {
        self.asked += 1;
        let others = answer.survey.as_ref().map_or(0, |seen| seen.rows.len());
        self.beside += u64::from(others > 0);
        match answer.outlook {
            Outlook::Free => self.free += 1,
            Outlook::Refused(_) => self.refused += 1,
            Outlook::Unknown(doubt) => *self.unknown.entry(doubt).or_default() += 1,
        }
    }
}

/// Asks so many questions; cases from `seed` on.
pub(super) fn random(seed: u64, questions: u64, enough: usize) -> Result<Tally> {
    let kernel = Kernel::running()?;
    let mut ground = Ground::new()?;
    let mut tally = Tally::default();
    let mut at = 0;
    while tally.asked < questions && tally.wrong.len() < enough {
        let seed = seed.wrapping_add(at);
        let case = generate::case(seed);
        one(&case, kernel, &mut ground, &mut tally)
            .with_context(|| format!("seed {seed}: {}", shown(&case)))?;
        at += 1;
    }
    Ok(tally)
}

/// One case. The model only tells which steps make sense; what it thinks of a bind() is not asked.
fn one(case: &Case, kernel: Kernel, ground: &mut Ground, tally: &mut Tally) -> Result<()> {
    let mut model = Model::new(kernel, case.udp);
    let mut site = ground.site(case.udp)?;
    for (at, step) in case.steps.iter().enumerate() {
        if model.step(step) == Outcome::LeftOut {
            continue;
        }
        let answer = match step {
            Step::Bind(_, spec) => Some(ask(&question(*spec, case.udp, site.port())?)?),
            _ => None,
        };
        let happened = site.step(step)?;
        let Some(answer) = answer else {
            continue;
        };
        tally.count(&answer);
        if !agree(answer.outlook, happened) {
            let seen = answer.survey.map(|seen| seen.rows).unwrap_or_default();
            let sockets: Vec<_> = seen.iter().map(|row| &row.socket).collect();
            tally.wrong.push(format!(
                "{}\n    step {at}: check says {:?}, the kernel {happened:?}; seen: {sockets:?}",
                shown(case),
                answer.outlook
            ));
            return Ok(());
        }
    }
    Ok(())
}

fn agree(outlook: Outlook, happened: Outcome) -> bool {
    match outlook {
        Outlook::Free => happened == Outcome::Done,
        Outlook::Refused(Errno(errno)) => {
            happened == Outcome::Refused && errno == libc::EADDRINUSE.unsigned_abs()
        }
        Outlook::Unknown(_) => true,
    }
}

fn question(spec: Spec, udp: bool, port: u16) -> Result<Question> {
    let Spec {
        address,
        v6only,
        reuseaddr,
        reuseport,
        uid,
        device,
    } = spec;
    let device = device.map(|device| match device {
        Device::Lo => "lo",
        Device::Veth => VETH,
    });
    Ok(Question {
        claim: Claim {
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            address,
            v6only,
            device: device.map(if_nametoindex).transpose()?,
            reuseaddr,
            reuseport,
            uid,
            state: TcpState::Closed,
        },
        device: device.map(str::to_owned),
        port,
        may_bind_low: Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_held_to_what_happens() {
        let refused = |errno: i32| Outlook::Refused(Errno(errno.unsigned_abs()));
        for (outlook, happened, expected) in [
            (Outlook::Free, Outcome::Done, true),
            (Outlook::Free, Outcome::Refused, false),
            (refused(libc::EADDRINUSE), Outcome::Refused, true),
            (refused(libc::EADDRINUSE), Outcome::Done, false),
            (refused(libc::EADDRNOTAVAIL), Outcome::Refused, false),
            (Outlook::Unknown(Doubt::Group), Outcome::Refused, true),
        ] {
            assert_eq!(agree(outlook, happened), expected, "{outlook:?}");
        }
    }

    #[test]
    fn who_never_knows_is_too_vague() {
        let tally = |unknown, free, refused| Tally {
            asked: 100,
            beside: 60,
            free,
            refused,
            unknown: [(Doubt::Options, unknown)].into(),
            wrong: Vec::new(),
        };
        assert!(!tally(12, 68, 20).is_too_vague());
        assert!(tally(13, 67, 20).is_too_vague());
        assert!(tally(0, 100, 0).is_too_vague());
        assert!(tally(0, 0, 100).is_too_vague());
    }
}
