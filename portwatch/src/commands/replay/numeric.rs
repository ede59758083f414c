//! `-n`: what was recorded with names is shown without. No I/O.

use std::sync::Arc;

use crate::event::{Explanation, Item, Occupant, Owner, PortFacts, Process, Sighting};

/// Takes the names of services and users out of an item.
pub(super) fn without_names(item: &mut Item) {
    let Item::Event(sighting) = item else {
        return;
    };
    let Sighting {
        process,
        local,
        peer,
        explanation,
        warning,
        ..
    } = &mut **sighting;
    of_process(process);
    of_ports([local, peer]);
    if let Some(explanation) = explanation {
        of_explanation(Arc::make_mut(explanation));
    }
    if let Some(warning) = warning {
        of_occupants(&mut warning.processes);
    }
}

fn of_explanation(explanation: &mut Explanation) {
    let Explanation {
        verdict: _,
        owners,
        findings,
        message: _, // in words that were chosen then
        hint: _,
    } = explanation;
    for owner in owners {
        let Owner {
            processes,
            creator,
            closer,
            local,
            peer,
            ..
        } = owner;
        of_ports([local, peer]);
        of_occupants(processes);
        of_occupants(creator.as_mut().map(|creator| &mut creator.occupant));
        of_occupants(closer.as_mut().map(|closer| &mut closer.occupant));
    }
    of_occupants(findings.gone.as_mut().map(|gone| &mut gone.occupant));
    if let Some(exhausted) = &mut findings.exhausted {
        of_occupants(
            exhausted
                .top
                .iter_mut()
                .map(|consumer| &mut consumer.occupant),
        );
    }
}

fn of_ports(sides: [&mut PortFacts; 2]) {
    for side in sides {
        side.service = None;
    }
}

fn of_occupants<'a>(occupants: impl IntoIterator<Item = &'a mut Occupant>) {
    for occupant in occupants {
        of_process(&mut occupant.process);
    }
}

fn of_process(process: &mut Arc<Process>) {
    if process.user_name.is_some() {
        Arc::make_mut(process).user_name = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::{
        sample,
        sink::{Sink as _, json::Json},
    };

    #[test]
    fn no_name_of_a_service_or_user_is_left() {
        let mut out = Vec::new();
        let mut sink = Json::new(&mut out, true);
        for mut item in sample::stream() {
            without_names(&mut item);
            sink.item(&item).unwrap();
        }
        sink.flush().unwrap();
        drop(sink);
        let lines = String::from_utf8(out).unwrap();
        assert!(lines.contains("\"user\":{\"id\":"));
        assert!(!lines.contains("\"service\"") && !lines.contains("\"user\":{\"id\":0,\"name\""));
        assert!(!lines.contains("alice") && !lines.contains("http-alt"));
    }
}
