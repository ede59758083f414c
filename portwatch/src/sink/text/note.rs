//! The line under an event that says what did not fit into it, and why a call was refused.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Paint, layout::EVENT};
use crate::{
    event::{Explanation, Warning},
    sink::escape::{Escape, is_plain},
};

/// Appends a separator, unless it would be the first thing.
pub(super) fn separate(note: &mut Vec<u8>, separator: &str) {
    if !note.is_empty() {
        note.extend_from_slice(separator.as_bytes());
    }
}

/// Appends what happened and what to do about it.
pub(super) fn explanation(note: &mut Vec<u8>, explanation: &Explanation) {
    let mut escape = Escape::new(note, usize::MAX);
    escape.push(&explanation.message);
    if let Some(hint) = &explanation.hint {
        escape.push_all(&[". ", hint]);
    }
}

/// The word that a warning begins with.
const WARNING: &str = "warning:";

/// Appends what is dangerous and what to do about it.
pub(super) fn warning(note: &mut Vec<u8>, warning: &Warning) {
    let mut escape = Escape::new(note, usize::MAX);
    escape.push_all(&[WARNING, " ", &warning.message]);
    if let Some(hint) = &warning.hint {
        escape.push_all(&[". ", hint]);
    }
}

/// A word that stands out where it appears first, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accent<'a> {
    word: &'a str,
    paint: &'a str,
}

impl<'a> Accent<'a> {
    /// The name of a holder.
    pub(super) fn name(word: &'a str, paint: &'a Paint) -> Self {
        Self {
            word,
            paint: &paint.name,
        }
    }

    /// The word that a warning begins with.
    pub(super) fn warning(paint: &'a Paint) -> Self {
        Self {
            word: WARNING,
            paint: &paint.warning,
        }
    }
}

/// Who has the first socket in the way, by the name that stands in the message.
pub(super) fn holder(explanation: &Explanation) -> Option<&str> {
    let owner = explanation.owners.first()?;
    let creator = owner.creator.as_ref().map(|creator| &creator.occupant);
    owner.processes.first().or(creator)?.name()
}

/// Prints a note under its event, marked by an arrow, wrapped at the width of the terminal.
pub(super) fn print(
    out: &mut Vec<u8>,
    note: &[u8],
    width: Option<usize>,
    accent: Option<Accent<'_>>,
    paint: &Paint,
) {
    out.resize(out.len() + EVENT, b' ');
    out.extend_from_slice("↳".as_bytes());
    // Bytes that are no text would be a mistake of ours, and to look for them one by one takes long.
    let note = str::from_utf8(note).map_or_else(|_| String::from_utf8_lossy(note), Cow::Borrowed);
    if width.is_none() && paint.is_none() {
        out.push(b' ');
        out.extend_from_slice(note.as_bytes());
        out.push(b'\n');
        return;
    }
    let mut lines = Lines {
        out,
        column: INDENT - 1,
        // Narrower, nothing could be read.
        width: width.map_or(usize::MAX, |width| width.max(2 * INDENT)),
    };
    let mut accent = accent;
    for word in note.split(' ') {
        let rest = accent.and_then(|accent| match word.strip_prefix(accent.word)? {
            rest @ ("" | "'s") => Some((accent, rest)),
            _ => None,
        });
        let columns = columns(word);
        lines.before(columns);
        match rest {
            None => lines.word(word, columns),
            Some((found, rest)) => {
                accent = None;
                lines.out.extend_from_slice(found.paint.as_bytes());
                lines.word(found.word, columns.saturating_sub(rest.len()));
                lines.out.extend_from_slice(paint.end.as_bytes());
                lines.word(rest, rest.len());
            }
        }
    }
    out.push(b'\n');
}

/// Columns that a word takes.
fn columns(word: &str) -> usize {
    if is_plain(word) {
        word.len()
    } else {
        word.width()
    }
}

const INDENT: usize = EVENT + 2;

/// Text that is being wrapped, and the column it has reached.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    column: usize,
    width: usize,
}

impl Lines<'_> {
    /// A space, or a new line where a word of so many columns would not fit.
    fn before(&mut self, columns: usize) {
        if self.column > INDENT && self.column + 1 + columns > self.width {
            self.wrap();
        } else {
            self.out.push(b' ');
            self.column += 1;
        }
    }

    /// Appends a word of so many columns.
    fn word(&mut self, word: &str, columns: usize) {
        if self.column + columns <= self.width {
            self.out.extend_from_slice(word.as_bytes());
            self.column += columns;
            return;
        }
        // Longer than a line: names may be.
        for character in word.chars() {
            let columns = character.width().unwrap_or(0);
            if self.column + columns > self.width {
                self.wrap();
            }
            let mut bytes = [0; 4];
            self.out
                .extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
            self.column += columns;
        }
    }

    fn wrap(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + INDENT, b' ');
        self.column = INDENT;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use proptest::prelude::*;

    use super::*;

    fn printed(note: &[u8], word: &str, paint: &Paint) -> String {
        let mut out = Vec::new();
        let accent = Some(Accent::name(word, paint));
        print(&mut out, note, None, accent, paint);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn without_colours_a_note_is_the_same(
            words in proptest::collection::vec("[a-zé日\u{301}]{0,4}('s)?|nginx('s)?", 0..8),
            bytes in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut note = words.join(" ").into_bytes();
            // What a stranger wrote has been escaped.
            note.extend(bytes.into_iter().filter(|&byte| byte != b'\x1b'));
            let paint = Paint::new(true);
            let painted = printed(&note, "nginx", &paint);
            let bare = painted.replace(&paint.name, "").replace(&paint.end, "");
            prop_assert_eq!(printed(&note, "nginx", &Paint::default()), bare);
        }
    }
}
