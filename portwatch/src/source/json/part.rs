//! Parts of a JSON object by name: what is absent is `None`, what is of another type is wrong.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{LazyLock, Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;

use crate::event::Word;

/// Why a line is none of ours.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} is not what portwatch prints there")]
pub struct Wrong {
    /// The field.
    pub what: String,
}

/// A value, if there is one, and its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    value: Option<&'a Value>,
    name: &'a str,
}

impl<'a> Part<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            name: "the line",
        }
    }

    /// The field of a name; absent where this is no object.
    pub(super) fn at(self, name: &'a str) -> Self {
        Self {
            value: self.value.and_then(|value| value.get(name)),
            name,
        }
    }

    pub(super) const fn is_there(self) -> bool {
        self.value.is_some()
    }

    pub(super) fn wrong(self) -> Wrong {
        Wrong {
            what: self.name.to_owned(),
        }
    }

    /// The value, read; `None` where it is absent.
    fn read<T>(self, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>, Wrong> {
        self.value
            .map(|value| read(value).ok_or_else(|| self.wrong()))
            .transpose()
    }

    pub(super) fn text(self) -> Result<Option<&'a str>, Wrong> {
        self.read(Value::as_str)
    }

    pub(super) fn string(self) -> Result<Option<String>, Wrong> {
        Ok(self.text()?.map(str::to_owned))
    }

    pub(super) fn flag(self) -> Result<Option<bool>, Wrong> {
        self.read(Value::as_bool)
    }

    pub(super) fn number<T: TryFrom<u64>>(self) -> Result<Option<T>, Wrong> {
        self.read(|value| T::try_from(value.as_u64()?).ok())
    }

    pub(super) fn word<T: Word>(self) -> Result<Option<T>, Wrong> {
        self.read(|value| T::of_word(value.as_str()?))
    }

    pub(super) fn time(self) -> Result<Option<Timestamp>, Wrong> {
        self.read(|value| value.as_str()?.parse().ok())
    }

    pub(super) fn address(self) -> Result<Option<IpAddr>, Wrong> {
        self.read(|value| value.as_str()?.parse().ok())
    }

    pub(super) fn hex(self) -> Result<Option<u64>, Wrong> {
        self.read(|value| u64::from_str_radix(value.as_str()?, 16).ok())
    }

    /// The items of a list, which have its name.
    pub(super) fn list(self) -> Result<Option<impl Iterator<Item = Part<'a>>>, Wrong> {
        let items = self.read(Value::as_array)?;
        Ok(items.map(|items| {
            items.iter().map(move |item| Part {
                value: Some(item),
                name: self.name,
            })
        }))
    }

    pub(super) fn strings(self) -> Result<Option<Vec<String>>, Wrong> {
        self.list()?
            .map(|items| {
                items
                    .map(|item| item.string()?.ok_or_else(|| item.wrong()))
                    .collect()
            })
            .transpose()
    }

    /// One of portwatch's own words.
    pub(super) fn own_word(self) -> Result<Option<&'static str>, Wrong> {
        self.read(|value| own_word(value.as_str()?))
    }

    /// What must be there.
    pub(super) fn must<T>(self, read: Result<Option<T>, Wrong>) -> Result<T, Wrong> {
        read?.ok_or_else(|| self.wrong())
    }
}

/// Words of ours that are told apart; there are some dozens.
const WORDS: usize = 1024;
/// The longest is a path of the schema.
const LONGEST: usize = 64;

/// One of portwatch's own words, of this version or another one. They are few and live for ever; what
/// is long, or one too many, is none of them.
pub(crate) fn own_word(text: &str) -> Option<&'static str> {
    static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = known.get(text) {
        return Some(word);
    }
    if known.len() >= WORDS || text.len() > LONGEST {
        return None;
    }
    let word: &'static str = Box::leak(text.into());
    known.insert(word);
    Some(word)
}
