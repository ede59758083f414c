//! A range of ports that was asked about: what overlaps, who is there, and what to do about it.

use std::fmt::Write as _;

use super::listing::{self, Column, Look};
use crate::event::{CheckedRange, RESERVED_PORTS, Time, port_list};

/// Sockets that are shown.
const SHOWN: usize = 20;

const COLUMNS: &[Column] = &[
    Column::Transport,
    Column::State,
    Column::Count,
    Column::Local,
    Column::Peer,
    Column::Options,
    Column::Pid,
    Column::Up,
    Column::Container,
    Column::Unit,
    Column::Command,
];

/// How they are to look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal.
    pub width: Option<usize>,
    /// Use colours.
    pub color: bool,
    /// With a header and how many there are.
    pub header: bool,
}

/// The lines; `now`: the moment of the look.
#[must_use]
pub fn lines(checked: &CheckedRange, now: Time, style: Style) -> Vec<u8> {
    let Style {
        width,
        color,
        header,
    } = style;
    let CheckedRange {
        range,
        ephemeral,
        reserved: _, // in the line to type
        sockets,
        netns: _, // as it was typed
        elsewhere,
        may_hide,
    } = checked;
    let asked = port_list(std::slice::from_ref(range));
    let automatic = port_list(std::slice::from_ref(ephemeral));
    let given_out = checked.given_out();
    let there = if *elsewhere {
        ", in that network namespace"
    } else {
        ""
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = if given_out.is_empty() {
        writeln!(
            text,
            "{asked}: the kernel gives none of these ports to clients (its range is {automatic})"
        )
    } else {
        writeln!(
            text,
            "{asked}: the kernel gives {} to clients (its range is {automatic})\nto keep it from that{there}:\n  sysctl -w {RESERVED_PORTS}={}",
            port_list(&given_out),
            port_list(&checked.remedy())
        )
    };
    let _ = match sockets.len() {
        0 if *may_hide => writeln!(text, "no socket that can be seen is on them now"),
        0 => writeln!(text, "no socket is on them now"),
        _ if !header => Ok(()),
        1 => writeln!(text, "1 socket is on them now:"),
        count => writeln!(text, "{count} sockets are on them now:"),
    };
    let mut out = text.into_bytes();
    let shown = sockets.get(..SHOWN).unwrap_or(sockets);
    if !shown.is_empty() {
        let look = Look {
            width,
            color,
            header,
            args: true,
            now,
            columns: COLUMNS,
        };
        out.extend(listing::lines(shown, look));
    }
    let more = sockets.len() - shown.len();
    if more > 0 {
        out.extend_from_slice(format!("and {more} more\n").as_bytes());
    }
    if *may_hide {
        out.extend_from_slice(b"sockets that are bound and do not listen may be missing\n");
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sample;

    const STYLE: Style = Style {
        width: Some(100),
        color: false,
        header: true,
    };

    #[test]
    fn no_header_without_one() {
        let style = Style {
            header: false,
            ..STYLE
        };
        for one in &sample::ranges() {
            let text = String::from_utf8(lines(one, sample::time(), style)).unwrap();
            assert!(!text.contains("PROTO") && !text.contains("now:"), "{text}");
        }
    }

    #[test]
    fn answers_for_people() {
        let ranges = sample::ranges();
        let text = ranges
            .iter()
            .flat_map(|one| lines(one, sample::time(), STYLE));
        insta::assert_snapshot!(String::from_utf8(text.collect()).unwrap());
    }
}
