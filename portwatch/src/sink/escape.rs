//! Text of strangers, made harmless for a terminal.
//!
//! Names, paths and arguments of processes hold whatever their authors like: escape sequences that
//! rewrite the screen, newlines that fake a line of ours, marks that reverse the reading direction.
//! What has such an effect is shown by its code instead.

use unicode_width::UnicodeWidthChar as _;

/// Appends strings to a line, up to a number of columns.
///
/// What does not fit is cut off and `…` put in its place, within that number.
#[derive(Debug)]
pub struct Escape<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
    used: usize,
    /// Where `…` would still fit: bytes and columns.
    cut: (usize, usize),
    full: bool,
}

impl<'a> Escape<'a> {
    /// At most `room` columns behind what `out` holds.
    pub fn new(out: &'a mut Vec<u8>, room: usize) -> Self {
        let cut = (out.len(), 0);
        Self {
            out,
            room,
            used: 0,
            cut,
            full: false,
        }
    }

    /// Columns used so far.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.used
    }

    /// Appends a string.
    pub fn push(&mut self, text: &str) {
        let plain = plain(text);
        self.ascii(&text.as_bytes()[..plain]);
        if plain < text.len() {
            self.mixed(&text[plain..]);
        }
    }

    #[cold]
    fn mixed(&mut self, mut rest: &str) {
        while !self.full && !rest.is_empty() {
            let (ascii, other) = rest.split_at(plain(rest));
            self.ascii(ascii.as_bytes());
            let mut characters = other.chars();
            if let Some(character) = characters.next() {
                self.character(character);
            }
            rest = characters.as_str();
        }
    }

    /// Appends several strings.
    pub fn push_all(&mut self, texts: &[&str]) {
        for text in texts {
            self.push(text);
        }
    }

    /// Printable ASCII: a column each.
    fn ascii(&mut self, bytes: &[u8]) {
        if self.full {
            return;
        }
        // The last column is for `…` as long as it is not certain that nothing follows.
        let before_last = self.room.saturating_sub(1);
        let fitting = self.room.saturating_sub(self.used).min(bytes.len());
        let start = (self.out.len(), self.used);
        self.out.extend_from_slice(&bytes[..fitting]);
        self.used += fitting;
        if start.1 <= before_last {
            let kept = self.used.min(before_last);
            self.cut = (start.0 + (kept - start.1), kept);
        }
        if fitting < bytes.len() {
            self.ellipsis();
        }
    }

    fn character(&mut self, character: char) {
        let mut buffer = [0; 4];
        if !is_harmful(character) {
            let width = character.width().unwrap_or(0);
            return self.unit(character.encode_utf8(&mut buffer).as_bytes(), width);
        }
        match character {
            '\n' => self.unit(b"\\n", 2),
            '\r' => self.unit(b"\\r", 2),
            '\t' => self.unit(b"\\t", 2),
            _ => {
                let mut shown = [0; 10];
                let shown = code(character, &mut shown);
                self.unit(shown, shown.len());
            }
        }
    }

    /// Something that is shown whole or not at all.
    fn unit(&mut self, bytes: &[u8], width: usize) {
        if self.full {
            return;
        }
        if self.used + width > self.room {
            return self.ellipsis();
        }
        self.out.extend_from_slice(bytes);
        self.used += width;
        if self.used < self.room {
            self.cut = (self.out.len(), self.used);
        }
    }

    fn ellipsis(&mut self) {
        self.full = true;
        self.out.truncate(self.cut.0);
        self.used = self.cut.1;
        if self.used < self.room {
            self.out.extend_from_slice("…".as_bytes());
            self.used += 1;
        }
    }
}

/// A string for a line of its own, however long.
#[must_use]
pub fn harmless(text: &str) -> String {
    if is_plain(text) || !text.chars().any(is_harmful) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    Escape::new(&mut out, usize::MAX).push(text);
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a string is printable ASCII: as many columns as bytes, none of them harmful.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    plain(text) == text.len()
}

/// How many bytes at the start are printable ASCII.
fn plain(text: &str) -> usize {
    let is_plain = |byte: u8| byte.wrapping_sub(b' ') <= b'~' - b' ';
    // Looked at without a branch, so that the compiler takes a block at once.
    let (blocks, _) = text.as_bytes().as_chunks::<16>();
    let whole = blocks
        .iter()
        .take_while(|block| block.iter().fold(true, |all, &byte| all & is_plain(byte)))
        .count();
    let start = whole * 16;
    let rest = &text.as_bytes()[start..];
    let more = rest.iter().position(|&byte| !is_plain(byte));
    start + more.unwrap_or(rest.len())
}

/// Whether a character does something to a terminal or to the reader beyond being seen: controls
/// (C0, DEL, C1), line and paragraph separators, bidirectional and other invisible format
/// characters (Unicode's categories Cc, Zl, Zp, and of Cf what is shown as nothing).
#[must_use]
pub const fn is_harmful(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `\x1b`, or `\u{202e}` above 0xff.
fn code(character: char, shown: &mut [u8; 10]) -> &[u8] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = u32::from(character);
    let digit = |place: u32| HEX[(number >> (4 * place) & 0xf) as usize];
    if number <= 0xff {
        shown[..4].copy_from_slice(&[b'\\', b'x', digit(1), digit(0)]);
        return &shown[..4];
    }
    shown[..3].copy_from_slice(b"\\u{");
    let mut length = 3;
    let digits = (32 - number.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        shown[length] = digit(place);
        length += 1;
    }
    shown[length] = b'}';
    &shown[..=length]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;

    fn escaped(texts: &[&str], room: usize) -> (String, usize) {
        let mut out = b"> ".to_vec();
        let mut escape = Escape::new(&mut out, room);
        escape.push_all(texts);
        let used = escape.columns();
        let out = String::from_utf8(out).unwrap();
        (out.strip_prefix("> ").unwrap().to_owned(), used)
    }

    #[test]
    fn harmful_characters_are_shown_by_their_code() {
        for (text, expected) in [
            ("plain text", "plain text"),
            ("\x1b[2J\x1b]0;x\x07", "\\x1b[2J\\x1b]0;x\\x07"),
            ("a\nb\rc\td\0e", "a\\nb\\rc\\td\\x00e"),
            ("\u{7f}\u{9b}1m", "\\x7f\\x9b1m"),
            ("\u{202e}gpj.exe\u{2069}", "\\u{202e}gpj.exe\\u{2069}"),
            (
                "a\u{2028}b\u{feff}\u{e0041}",
                "a\\u{2028}b\\u{feff}\\u{e0041}",
            ),
            ("naïve 日本 \u{fffd}", "naïve 日本 \u{fffd}"),
            ("\"quoted\" \\", "\"quoted\" \\"),
        ] {
            let (shown, used) = escaped(&[text], usize::MAX);
            assert_eq!(shown, expected);
            assert_eq!(harmless(text), expected);
            assert_eq!(used, shown.width());
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_within_the_room() {
        for (texts, room, expected) in [
            (&["node", " ", "server.js"][..], 14, "node server.js"),
            (&["node", " ", "server.js"], 13, "node server.…"),
            (&["node", " ", "server.js"], 5, "node…"),
            (&["node", " ", "server.js"], 4, "nod…"),
            (&["node"], 4, "node"),
            (&["node"], 1, "…"),
            (&["node"], 0, ""),
            (&["日本語"], 6, "日本語"),
            (&["日本語"], 5, "日本…"),
            (&["日本語"], 4, "日…"),
            (&["a\x1b"], 4, "a…"),
            (&["a\x1b"], 5, "a\\x1b"),
            (&["abcd\n"], 5, "abcd…"),
        ] {
            assert_eq!(escaped(texts, room).0, expected, "{texts:?} {room}");
        }
    }

    proptest! {
        #[test]
        fn plain_text_ends_at_the_first_other_byte(start in "[ -~]{0,40}", other in "[^ -~]", rest in ".{0,20}") {
            prop_assert_eq!(plain(&start), start.len());
            prop_assert!(is_plain(&start));
            let text = format!("{start}{other}{rest}");
            prop_assert_eq!(plain(&text), start.len());
            prop_assert!(!is_plain(&text));
        }

        #[test]
        fn nothing_harmful_passes_and_nothing_is_too_wide(
            texts in prop::collection::vec("\\PC{0,8}|[ -~]{0,12}|.{0,8}|[\\x00-\\xa0\u{2000}-\u{2070}]{0,8}", 0..5),
            room in 0usize..24,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (shown, used) = escaped(&texts, room);
            prop_assert!(used <= room);
            prop_assert!(!shown.chars().any(is_harmful));
            let whole = escaped(&texts, usize::MAX);
            prop_assert!(whole.1 > room || whole.0 == shown, "{:?} became {:?}", whole.0, shown);
        }
    }
}
