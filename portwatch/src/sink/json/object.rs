//! Objects, written straight into the batch.
//!
//! serde_json takes 14,200 instructions for a bind here, most of them to look for characters to
//! escape in our own keys; this takes 3,100.

use jiff::Timestamp;

use crate::sink::{clock::Clock, digits};

/// The key of a field, with its quotes and colon: one piece to copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(pub(super) &'static str);

/// A [`Key`] from its name.
macro_rules! key {
    ($name:literal) => {
        $crate::sink::json::object::Key(concat!("\"", $name, "\":"))
    };
}
pub(super) use key;

/// An object that is being written. Fields end with a comma; closing the object takes the last one
/// away. A field without a value, and an object without fields, is left out.
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Writes the object that `fields` fills.
    pub(super) fn write(out: &'a mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        fields(&mut Object { out });
        close(out, b'}');
    }

    /// For fields that belong to an object that is written elsewhere.
    pub(super) fn fields(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Fields that were written with [`Object::fields`].
    pub(super) fn written(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    /// One of our own words: nothing to escape.
    pub(super) fn word(&mut self, key: Key, value: impl Into<Option<&'static str>>) {
        if let Some(value) = value.into() {
            self.key(key);
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.extend_from_slice(b"\",");
        }
    }

    /// A string of whatever origin.
    pub(super) fn text<'t>(&mut self, key: Key, value: impl Into<Option<&'t str>>) {
        if let Some(value) = value.into() {
            self.key(key);
            string(self.out, value);
            self.out.push(b',');
        }
    }

    pub(super) fn number(&mut self, key: Key, value: impl itoa::Integer) {
        self.key(key);
        digits::number(self.out, value);
        self.out.push(b',');
    }

    pub(super) fn maybe_number(&mut self, key: Key, value: Option<impl itoa::Integer>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    pub(super) fn flag(&mut self, key: Key, value: impl Into<Option<bool>>) {
        if let Some(value) = value.into() {
            self.key(key);
            self.out
                .extend_from_slice(if value { b"true," } else { b"false," });
        }
    }

    /// A string that `write` appends, which needs no escaping.
    pub(super) fn plain(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.extend_from_slice(b"\",");
    }

    /// A value that is written already.
    pub(super) fn raw(&mut self, key: Key, json: &str) {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
        self.out.push(b',');
    }

    pub(super) fn time(&mut self, key: Key, clock: &mut Clock, moment: Timestamp) {
        self.plain(key, |out| clock.stamp(out, moment));
    }

    pub(super) fn object(&mut self, key: Key, fields: impl FnOnce(&mut Object<'_>)) {
        let before = self.out.len();
        self.key(key);
        self.out.push(b'{');
        let empty = self.out.len();
        fields(&mut Object { out: self.out });
        if self.out.len() == empty {
            return self.out.truncate(before);
        }
        close(self.out, b'}');
        self.out.push(b',');
    }

    pub(super) fn list<T>(
        &mut self,
        key: Key,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.key(key);
        self.out.push(b'[');
        for item in items {
            write(self.out, item);
            self.out.push(b',');
        }
        close(self.out, b']');
        self.out.push(b',');
    }

    fn key(&mut self, key: Key) {
        self.out.extend_from_slice(key.0.as_bytes());
    }
}

fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last @ b',') => *last = bracket,
        _ => out.push(bracket),
    }
}

/// A string with its quotes (RFC 8259, section 7).
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(place) = rest
        .iter()
        .position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
    {
        out.extend_from_slice(&rest[..place]);
        escape(out, rest[place]);
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cold]
fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
            let code = [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)];
            return out.extend_from_slice(&code);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(fields: impl FnOnce(&mut Object<'_>)) -> Value {
        let mut out = Vec::new();
        Object::write(&mut out, fields);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn commas_stand_between_fields_only() {
        assert_eq!(parsed(|_| {}), json!({}));
        let value = parsed(|object| {
            object.word(key!("a"), "x");
            object.object(key!("b"), |object| {
                object.number(key!("c"), 1u8);
                object.flag(key!("d"), true);
            });
            object.list(key!("e"), [1, 2], digits::number);
            object.list(key!("f"), [0u8; 0], |_, _| {});
        });
        assert_eq!(
            value,
            json!({"a": "x", "b": {"c": 1, "d": true}, "e": [1, 2], "f": []})
        );
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let value = parsed(|object| {
            object.text(key!("a"), None);
            object.maybe_number(key!("b"), None::<u32>);
            object.flag(key!("c"), None);
            object.word(key!("d"), None);
            object.object(key!("e"), |object| object.text(key!("f"), None));
        });
        assert_eq!(value, json!({}));
    }

    proptest! {
        #[test]
        fn strings_survive(text: String, controls in "[\\x00-\\x7f]*") {
            for text in [text, controls] {
                let mut out = Vec::new();
                string(&mut out, &text);
                prop_assert!(!out.contains(&b'\n'));
                prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }
}
