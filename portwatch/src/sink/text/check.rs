//! A bind() that was asked about, in a line or two: the answer with its reason, and what to do about it.

use crate::{
    errno,
    event::{Checked, Endpoint, Listing, Outlook},
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
    if !rivals.is_empty() {
        let (before, after) = match outlook {
            Outlook::Unknown(_) => ("May be in the way: ", ".\n"),
            Outlook::Free | Outlook::Refused(_) => (
                "Bound by ",
                " too, which does not listen yet: only one of them can, the other's listen() fails.\n",
            ),
        };
        out.extend_from_slice(before.as_bytes());
        Escape::new(&mut out, usize::MAX).push(&names(rivals));
        out.extend_from_slice(after.as_bytes());
    }
    out
}

/// Who has the first of them, and how many more there are.
fn names(rivals: &[Listing]) -> String {
    let first = rivals
        .first()
        .and_then(|rival| rival.owner.processes.first());
    let first = first.map_or_else(
        || "another socket".to_owned(),
        |one| {
            let name = one.name().unwrap_or("a process");
            format!("{name} (pid {})", one.task.pid)
        },
    );
    match rivals.len() {
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
