//! What is looked up about a refusal in which no other socket is in the way.

use std::sync::Arc;

use super::{
    Enricher, addresses,
    answers::Asker,
    policy,
    usage::{self, Question},
};
use crate::conflict::{departure, words};
use crate::event::{
    Bearer, Consumer, Event, Exhausted, Explanation, Findings, Kind, Process, Scope, Verdict,
};

/// Who uses up a range.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    used: u32,
    time_wait: u32,
    bound: u32,
    top: Vec<Consumer>,
    /// Of each socket it is known who has it.
    whole: bool,
}

impl Enricher {
    /// Everything that is to be said of it, unless it was refused by policy.
    pub(super) fn findings(&mut self, event: &Event, verdict: &Verdict) -> Findings {
        let mut findings = Findings::default();
        match verdict.kind {
            Kind::Exhausted => findings.exhausted = Some(self.exhausted(event)),
            Kind::NotLocal => {
                findings.interfaces = self.bearers(event);
                findings.device = self.device(event);
            }
            Kind::Gone => {
                findings.gone =
                    departure::just_closed_by(event).map(|closer| self.departure(closer));
            }
            _ => {}
        }
        findings
    }

    /// A refusal by policy, explained. It is kept with its words for a second: these tell of nothing but what
    /// the question tells apart.
    pub(super) fn by_policy(
        &mut self,
        event: &Event,
        process: &Process,
        verdict: &Verdict,
    ) -> Arc<Explanation> {
        let explain = |policy| {
            let findings = Findings {
                policy: Some(policy),
                ..Findings::default()
            };
            let verdict = verdict.clone();
            Arc::new(words::explain(
                event,
                process,
                verdict,
                Vec::new(),
                findings,
            ))
        };
        let question = policy::Question::of(event, process, self.options.backend);
        let kept = Self::asker(event)
            .zip(question)
            .and_then(|(asker, question)| {
                // A cgroup is the same in every namespace.
                self.policies.get(
                    asker,
                    question,
                    |_| true,
                    |question| explain(question.answer(process.cgroup.as_deref())),
                )
            });
        kept.unwrap_or_else(|| explain(policy::unasked(event)))
    }

    /// Who asks, for an event.
    pub(super) fn asker(event: &Event) -> Option<Asker> {
        Some(Asker {
            netns: event.socket.netns?,
            pid: event.task.pid,
            now: event.time_boot,
        })
    }

    /// The interfaces that have the address asked for.
    fn bearers(&mut self, event: &Event) -> Option<Vec<Bearer>> {
        let Self {
            bearers,
            namespaces,
            ..
        } = self;
        let asker = Self::asker(event)?;
        let is_same = |pid| namespaces.is_same(asker.netns, pid, &event.task);
        bearers
            .get(asker, event.local.address?, is_same, |&address| {
                let ask = move || addresses::bearers(address).ok();
                namespaces.inside(asker.netns, &event.task, ask)?
            })
            .flatten()
    }

    /// Name of the device that the refused socket is bound to.
    fn device(&mut self, event: &Event) -> Option<String> {
        let device = event.socket.device.filter(|&device| device != 0)?;
        let place = self.namespaces.place(
            event.socket.netns?,
            &event.task,
            Some(device),
            event.time_boot,
        );
        place.interface.map(|name| (*name).to_owned())
    }

    fn exhausted(&mut self, event: &Event) -> Exhausted {
        let of_namespace = self.limits(event);
        let whole = of_namespace.range.clone();
        let limits = of_namespace.of_socket(event.own_range.as_ref());
        let mut exhausted = Exhausted {
            // The kernel takes no notice of ends outside of the namespace's range.
            range_of_socket: limits.range != whole,
            reserved: limits.reserved_in_range(),
            range: limits.range,
            scope: Some(usage::scope(event)),
            ..Exhausted::default()
        };
        if let Some(question) = Question::of(event, &exhausted, limits.reserved)
            && let Some(usage) = self.usage(question, event)
        {
            let Usage {
                used,
                time_wait,
                bound,
                top,
                whole,
            } = usage;
            exhausted.bound = Some(bound).filter(|_| exhausted.scope == Some(Scope::Tuple));
            exhausted.used = Some(used);
            exhausted.time_wait = Some(time_wait);
            exhausted.top = top;
            exhausted.top_is_whole = whole;
        }
        exhausted
    }

    /// Who uses up the ports; `None` where that cannot be known, or there is no time to find it out.
    fn usage(&mut self, question: Question, event: &Event) -> Option<Usage> {
        let Self {
            usages,
            namespaces,
            owners,
            processes,
            clock,
            ..
        } = self;
        let asker = Self::asker(event)?;
        let is_same = |pid| namespaces.is_same(asker.netns, pid, &event.task);
        usages
            .get(asker, question, is_same, |question| {
                let question = question.clone();
                let count =
                    namespaces.inside(asker.netns, &event.task, move || question.ask())??;
                let most = owners.most(&count, processes, clock);
                let (top, whole) = most.unwrap_or_default();
                Some(Usage {
                    used: count.used(),
                    time_wait: count.waiting(),
                    bound: count.bound(),
                    top,
                    whole,
                })
            })
            .flatten()
    }
}
