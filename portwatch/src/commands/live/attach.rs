//! From the best way into the kernel to the next one, until one works.

use crate::{
    errno,
    event::Backend,
    facts::Gathered,
    failure::Failure,
    load::LoadError,
    plan::{self, Attach, Facts, Plan, PlanError},
    selection::Selection,
};

use super::Notes;

/// Makes a plan and has it carried out. Where the kernel refuses a program at the last step, at load
/// or at attach, the next best plan, saying so; unless one way in was asked for.
pub(super) fn best<T>(
    gathered: &mut Gathered,
    selection: &Selection,
    wanted: Option<Backend>,
    say: &Notes,
    carry_out: impl FnMut(&Gathered, &Plan) -> Result<T, LoadError>,
) -> Result<(Plan, T), Failure> {
    let plan = |facts: &Facts, wish| plan::plan(facts, selection, wish);
    best_of(gathered, wanted, say, plan, carry_out)
}

/// The same with any way of planning.
pub(in crate::commands) fn best_of<T>(
    gathered: &mut Gathered,
    wanted: Option<Backend>,
    say: &Notes,
    make: impl Fn(&Facts, Attach) -> Result<Plan, PlanError>,
    mut carry_out: impl FnMut(&Gathered, &Plan) -> Result<T, LoadError>,
) -> Result<(Plan, T), Failure> {
    let wish = wanted.map_or(Attach::Auto, Attach::Only);
    loop {
        let mut plan = make(&gathered.facts, wish)
            .map_err(|error| Failure::no_way_in(error, &gathered.facts))?;
        plan.config.diagnostics = u32::from(say.is_whole());
        match carry_out(gathered, &plan) {
            Ok(done) => {
                for (backend, reason) in &plan.stepped_down {
                    say.detail(|| format!("not {}: {reason}", backend.as_str()));
                }
                return Ok((plan, done));
            }
            // The programs of older kernels do the same at a higher price.
            Err(error @ LoadError::Verifier { .. }) if gathered.facts.cast.is_some() => {
                let reason = refusal(error, say);
                say.note(&format!(
                    "{}: {reason}; trying the programs for older kernels",
                    plan.backend.as_str()
                ));
                gathered.facts.cast = None;
            }
            Err(error) if wish == Attach::Auto && error.is_about_a_program() => {
                let reason = refusal(error, say);
                say.note(&format!(
                    "{}: {reason}; trying the next way in",
                    plan.backend.as_str()
                ));
                gathered.facts.refuse(plan.backend, reason);
            }
            Err(error) => return Err(Failure::from_load(error, say.is_whole())),
        }
    }
}

/// Why the kernel has refused a program, in one line; with what the verifier said before it, for those
/// who want to see everything.
fn refusal(error: LoadError, say: &Notes) -> String {
    if let LoadError::Verifier { log, .. } = &error
        && say.is_whole()
    {
        say.detail(|| log.trim().to_owned());
    }
    errno::words(&format_args!("{:#}", anyhow::Error::from(error)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{collections::BTreeMap, io};

    use aya::programs::ProgramError;

    use super::*;
    use crate::{
        event::Op,
        plan::{
            generation::{Cast, Generation},
            kernels::{Kernel, facts},
        },
    };

    fn gathered() -> Gathered {
        Gathered {
            facts: facts(Kernel::V6_12),
            ids: BTreeMap::new(),
        }
    }

    fn selection() -> Selection {
        Selection {
            events: Op::ALL.to_vec(),
            ..Selection::default()
        }
    }

    fn quiet() -> Notes {
        Notes {
            quiet: true,
            verbosity: 0,
        }
    }

    fn refused(verb: &'static str) -> LoadError {
        LoadError::Program {
            verb,
            program: "bind4_tracing",
            way: "fexit",
            target: "inet_bind",
            source: Box::new(ProgramError::IOError(io::Error::from_raw_os_error(
                libc::EBUSY,
            ))),
        }
    }

    fn turned_away() -> LoadError {
        LoadError::Verifier {
            program: "bind4_tracing",
            way: "fexit",
            target: "inet_bind",
            log: String::new(),
            source: io::Error::from_raw_os_error(libc::EACCES),
        }
    }

    #[test]
    fn a_refusal_at_attach_steps_down_with_its_reason_as_one_at_load_does() {
        for verb in ["load", "attach"] {
            let mut tried = Vec::new();
            let (plan, done) = best(&mut gathered(), &selection(), None, &quiet(), |_, plan| {
                tried.push(plan.backend);
                match plan.backend {
                    Backend::Tracing => Err(refused(verb)),
                    _ => Ok("attached"),
                }
            })
            .unwrap();
            assert_eq!(done, "attached");
            assert_eq!(tried, [Backend::Tracing, Backend::Kprobe]);
            assert_eq!(plan.backend, Backend::Kprobe);
            let (backend, reason) = &plan.stepped_down[0];
            assert_eq!(*backend, Backend::Tracing);
            assert!(
                reason.starts_with(&format!(
                    "cannot {verb} the hook \"bind4_tracing\" (fexit inet_bind): "
                )) && reason.ends_with("busy"),
                "{reason}"
            );
        }
    }

    #[test]
    fn the_verifier_is_shown_the_programs_for_older_kernels_before_another_way_in() {
        for wanted in [None, Some(Backend::Tracing)] {
            let mut gathered = gathered();
            gathered.facts.cast = Some(Cast {
                function: 1,
                word: 2,
            });
            let mut tried = Vec::new();
            let (plan, ()) = best(&mut gathered, &selection(), wanted, &quiet(), |_, plan| {
                let generation = plan.attachments[0].generation;
                tried.push((plan.backend, generation));
                match generation {
                    Generation::Casting => Err(turned_away()),
                    _ => Ok(()),
                }
            })
            .unwrap();
            let expected = [Generation::Casting, Generation::Looped];
            assert_eq!(tried, expected.map(|one| (Backend::Tracing, one)));
            assert_eq!(plan.stepped_down, []);
        }
    }

    #[test]
    fn when_every_way_in_is_refused_each_is_tried_once() {
        let mut tried = Vec::new();
        let failure = best(&mut gathered(), &selection(), None, &quiet(), |_, plan| {
            tried.push(plan.backend);
            Err::<(), _>(refused("attach"))
        })
        .unwrap_err();
        assert_eq!(tried, plan::PREFERENCE);
        assert_eq!(failure.code(), 3);
    }

    #[test]
    fn a_way_in_that_was_asked_for_is_tried_alone() {
        let mut tried = Vec::new();
        let wanted = Some(Backend::Tracing);
        best(
            &mut gathered(),
            &selection(),
            wanted,
            &quiet(),
            |_, plan| {
                tried.push(plan.backend);
                Err::<(), _>(refused("attach"))
            },
        )
        .unwrap_err();
        assert_eq!(tried, [Backend::Tracing]);
    }

    #[test]
    fn what_no_way_in_can_help_is_not_tried_again() {
        let mut count = 0;
        best(&mut gathered(), &selection(), None, &quiet(), |_, _| {
            count += 1;
            Err::<(), _>(LoadError::Lacks("EVENTS"))
        })
        .unwrap_err();
        assert_eq!(count, 1);
    }
}
