//! Parts of lines, for a store that keeps the rest in columns: a reader of either needs to know one
//! form only. Processes are told by a number that the store gives them.

use jiff::tz::TimeZone;

use super::{conflict, line, object::Object, process::People};
use crate::{
    event::{Explanation, Item, Occupant, Warning},
    sink::clock::Clock,
};

/// An object with `conflict`; `sought`: whether the owners of the port were looked at.
pub(crate) fn explanation(
    explanation: &Explanation,
    sought: bool,
    number: &mut dyn FnMut(&Occupant) -> i64,
) -> String {
    written(number, |line, people| {
        conflict::write(line, explanation, sought, people);
    })
}

/// An object with `warning`.
pub(crate) fn warning(warning: &Warning, number: &mut dyn FnMut(&Occupant) -> i64) -> String {
    written(number, |line, people| line::warning(line, warning, people))
}

/// What a line says beyond its head, of items that are no events.
pub(crate) fn note(item: &Item) -> Option<String> {
    let mut out = Vec::new();
    Object::write(&mut out, |line| match item {
        Item::Start(start) => line::start(line, start),
        Item::Lost(lost) => line::lost(line, lost),
        Item::End(end) => line::end(line, end),
        Item::Event(_) => {}
    });
    (!matches!(item, Item::Event(_))).then(|| text(&out))
}

fn written(
    number: &mut dyn FnMut(&Occupant) -> i64,
    write: impl FnOnce(&mut Object<'_>, &mut People<'_>),
) -> String {
    let mut out = Vec::new();
    let mut people = People {
        args: true,
        clock: &mut Clock::new(TimeZone::UTC),
        number: Some(number),
    };
    Object::write(&mut out, |line| write(line, &mut people));
    text(&out)
}

/// What these modules write is UTF-8: strings and ASCII.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
