//! The line under an event that says what did not fit into it, and what stood in the way.

use std::io::Write as _;

use super::layout::EVENT;
use crate::{
    event::{Conflict, Holder, TcpState},
    sink::digits,
};

/// Appends a separator, unless it would be the first thing.
pub(super) fn separate(note: &mut Vec<u8>, separator: &str) {
    if !note.is_empty() {
        note.extend_from_slice(separator.as_bytes());
    }
}

/// Appends what is known of the sockets in the way: the first, and how many more.
pub(super) fn holders(note: &mut Vec<u8>, conflict: &Conflict) {
    let Conflict {
        holders,
        total,
        truncated,
    } = conflict;
    let Some(first) = holders.first() else {
        return;
    };
    separate(note, ", ");
    note.extend_from_slice(b"held by ");
    holder(note, first);
    let seen = u32::try_from(holders.len()).unwrap_or(u32::MAX);
    let more = seen.max(*total) - 1;
    // Writing to a Vec cannot fail, here and below.
    let _ = match (more, truncated) {
        (0, false) => Ok(()),
        (0, true) => write!(note, " (maybe more)"),
        (_, false) => write!(note, " (+{more} more)"),
        (_, true) => write!(note, " (+{more} or more)"),
    };
}

fn holder(note: &mut Vec<u8>, holder: &Holder) {
    let Holder {
        transport: _, // the one that was asked for
        family: _,    // the address shows it
        state,
        local,
        peer,
        socket,
        chose_port: _,
        accepted: _,
        of_kernel: _,
        references: _,
        taker: _,
    } = holder;
    digits::endpoint(note, local);
    if let Some(peer) = peer {
        note.extend_from_slice(" → ".as_bytes());
        digits::endpoint(note, peer);
    }
    note.push(b' ');
    note.extend_from_slice(
        match state {
            TcpState::Listen => "listening",
            TcpState::Closed | TcpState::BoundInactive => "bound",
            other => other.as_str(),
        }
        .as_bytes(),
    );
    if let Some(uid) = socket.uid {
        let _ = write!(note, ", uid {uid}");
    }
    if let Some(inode) = socket.inode {
        let _ = write!(note, ", inode {inode}");
    }
}

/// Prints a note under its event, marked by an arrow, wrapped at the width of the terminal.
pub(super) fn print(out: &mut Vec<u8>, note: &[u8], width: Option<usize>) {
    const INDENT: usize = EVENT + 2;
    out.resize(out.len() + EVENT, b' ');
    out.extend_from_slice("↳".as_bytes());
    let mut column = INDENT - 1;
    for word in String::from_utf8_lossy(note).split(' ') {
        // Addresses, numbers and our own words: a column for each character.
        let length = word.chars().count();
        if column > INDENT && width.is_some_and(|width| column + 1 + length > width) {
            out.push(b'\n');
            out.resize(out.len() + INDENT - 1, b' ');
            column = INDENT - 1;
        }
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
        column += 1 + length;
    }
    out.push(b'\n');
}
