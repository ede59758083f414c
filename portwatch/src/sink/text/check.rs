//! A bind() that was asked about, in a line or two: the answer with its reason, and what to do about it.

use crate::{
    errno,
    event::{Checked, Endpoint, Explanation, Outlook, Owner},
    sink::{digits, escape::Escape},
};

/// The lines.
#[must_use]
pub fn lines(checked: &Checked) -> Vec<u8> {
    let Checked {
        transport,
        family: _, // seen in the address
        local,
        facts: _, // names of what was typed
        interface,
        socket: _, // as it was typed
        outlook,
        explanation,
        sought: _,
        rivals,
        missing: _,
    } = checked;
    let mut out = Vec::new();
    out.extend_from_slice(transport.as_str().as_bytes());
    out.push(b' ');
    // Any port is asked for as 0.
    let asked = Endpoint {
        port: local.port.or(Some(0)),
        ..*local
    };
    digits::endpoint(&mut out, &asked);
    let mut text = Escape::new(&mut out, usize::MAX);
    if let Some(device) = interface {
        text.push_all(&[" on ", device]);
    }
    let is_unknown = matches!(outlook, Outlook::Unknown(_));
    match outlook {
        Outlook::Free if local.port.is_none() => text.push(": a port is free"),
        Outlook::Free => text.push(" is free"),
        Outlook::Refused(errno) => {
            let name = errno::name(*errno).unwrap_or("refused");
            text.push_all(&[" is not free (", name, ")"]);
        }
        Outlook::Unknown(_) => text.push(": cannot tell"),
    }
    if let Some(explanation) = explanation {
        text.push_all(&[": ", &explanation.message]);
        out.push(b'\n');
        if let Some(hint) = &explanation.hint {
            Escape::new(&mut out, usize::MAX).push(hint);
            out.push(b'\n');
        }
    } else {
        out.push(b'\n');
    }
    if let Some(explanation) = explanation.as_ref().filter(|_| is_unknown) {
        let Explanation {
            verdict, owners, ..
        } = explanation;
        let total = usize::try_from(verdict.total).unwrap_or(usize::MAX);
        if total > 0 {
            out.extend_from_slice(b"May be in the way: ");
            Escape::new(&mut out, usize::MAX).push(&names(owners.first(), total));
            out.extend_from_slice(b".\n");
        }
    }
    if let Some(rival) = rivals.first() {
        out.extend_from_slice(b"Bound by ");
        Escape::new(&mut out, usize::MAX).push(&names(Some(&rival.owner), rivals.len()));
        out.extend_from_slice(
            b" too, which does not listen yet: only one of them can, the other's listen() fails.\n",
        );
    }
    out
}

/// Who has the first of so many sockets, and how many more there are.
fn names(first: Option<&Owner>, count: usize) -> String {
    let first = first.and_then(|owner| owner.processes.first());
    let first = first.map_or_else(
        || "a socket that no process is known to have".to_owned(),
        |one| {
            let name = one.name().unwrap_or("a process");
            format!("{name} (pid {})", one.task.pid)
        },
    );
    match count {
        0 | 1 => first,
        2 => format!("{first} and 1 other socket"),
        more => format!("{first} and {} other sockets", more - 1),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sample;

    #[test]
    fn answers_for_people() {
        let text: Vec<u8> = sample::checked().iter().flat_map(lines).collect();
        let text = String::from_utf8(text).unwrap();
        assert!(text.chars().all(|one| one == '\n' || !one.is_control()));
        insta::assert_snapshot!(text);
    }
}
