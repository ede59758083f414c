//! Sockets that were looked up, in columns: as wide as what stands in them, the last one cut to the
//! terminal. A socket of several processes takes a line for each.
//!
//! On a terminal, cells that would repeat those above them stay empty, and columns without a value are
//! left out. Elsewhere every line has every column, so that programs which go by columns find them.

mod column;
mod entry;

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr as _;

pub use column::Column;
use column::Line;

use super::{Paint, command::command};
use crate::{
    event::{Listing, Occupant, Time},
    sink::escape::Escape,
};

/// How it is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the terminal; `None` is no terminal.
    pub width: Option<usize>,
    /// Use colours.
    pub color: bool,
    /// With titles above the columns.
    pub header: bool,
    /// With the arguments of processes.
    pub args: bool,
    /// The moment of the look.
    pub now: Time,
    /// What is shown; [`Column::Command`] comes last.
    pub columns: &'static [Column],
}

/// Between two columns.
const GAP: usize = 2;
/// What stands where nothing does.
const NOTHING: &str = "-";
/// What stands for an owner that could not be seen.
const UNSEEN: &str = "?";
/// What the last column is to get, if that takes leaving out others.
const GOOD_COMMAND: usize = 20;
/// What it gets at least.
const MIN_COMMAND: usize = 8;

/// The cells of a line but the last, and who that is of.
struct Row<'a> {
    cells: Vec<Cow<'a, str>>,
    occupant: Option<&'a Occupant>,
    /// An owner could not be seen.
    unseen: bool,
}

/// The lines.
#[must_use]
pub fn lines(listings: &[Listing], look: Look) -> Vec<u8> {
    let columns: Vec<Column> = look
        .columns
        .iter()
        .copied()
        .filter(|&column| column != Column::Command)
        .collect();
    let entries = entry::entries(listings);
    let rows: Vec<Row<'_>> = entries
        .iter()
        .flat_map(|entry| rows(entry, &columns, look))
        .collect();
    let mut shown: Vec<Shown> = columns
        .iter()
        .enumerate()
        .filter_map(|(place, &column)| shown(place, column, &rows, look))
        .collect();
    if let Some(width) = look.width {
        fit(&mut shown, width);
    }
    let before: usize = shown.iter().map(|one| one.width + GAP).sum();
    let room = look.width.map_or(usize::MAX, |width| {
        width.saturating_sub(before).max(MIN_COMMAND)
    });
    let paint = Paint::new(look.color);
    let mut out = Vec::new();
    if look.header {
        for one in &shown {
            pad(&mut out, one.column.title(), one.width);
        }
        out.extend_from_slice(Column::Command.title().as_bytes());
        out.push(b'\n');
    }
    for row in &rows {
        for one in &shown {
            let cell = row.cells.get(one.place).map_or("", |cell| cell);
            pad(&mut out, cell, one.width);
        }
        match row.occupant {
            Some(Occupant { task, process }) => {
                let mut cut = Escape::new(&mut out, room);
                command(&mut cut, task, process, None, look.args);
            }
            None if row.unseen => {
                for part in [&paint.warning, UNSEEN, &paint.end] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            None => out.extend_from_slice(NOTHING.as_bytes()),
        }
        out.push(b'\n');
    }
    out
}

/// A column that is shown.
struct Shown {
    column: Column,
    /// In the cells of a row.
    place: usize,
    width: usize,
}

/// How wide a column is; `None` where there is nothing to show in it, on a terminal.
fn shown(place: usize, column: Column, rows: &[Row<'_>], look: Look) -> Option<Shown> {
    let cells = rows.iter().filter_map(|row| row.cells.get(place));
    let width = cells.map(|cell| width(cell)).max().unwrap_or_default();
    if width == 0 && look.width.is_some() {
        return None;
    }
    let title = if look.header { column.title() } else { "" };
    Some(Shown {
        column,
        place,
        width: width.max(title.len()),
    })
}

/// Leaves out columns, those that matter least first, until the command has room.
fn fit(shown: &mut Vec<Shown>, width: usize) {
    for column in column::DISPENSABLE {
        let before: usize = shown.iter().map(|one| one.width + GAP).sum();
        if before + GOOD_COMMAND <= width {
            return;
        }
        shown.retain(|one| one.column != column);
    }
}

/// The lines of an entry: one for each process, at least one.
fn rows<'a>(entry: &entry::Entry<'a>, columns: &[Column], look: Look) -> Vec<Row<'a>> {
    let count = entry.occupants.len().max(1);
    let row = |at: usize| {
        let line = Line {
            listing: entry.listing,
            count: entry.count,
            occupant: entry.occupants.get(at).copied(),
            is_first: at == 0,
            unseen: entry.unseen,
            now: look.now,
        };
        let cell = |&column: &Column| {
            let repeats = at > 0 && !column.is_of_process();
            match (look.width, column.cell(&line)) {
                (Some(_), _) if repeats => Cow::Borrowed(""),
                (None, cell) if cell.is_empty() => Cow::Borrowed(NOTHING),
                (_, cell) => cell,
            }
        };
        Row {
            cells: columns.iter().map(cell).collect(),
            occupant: line.occupant,
            unseen: line.unseen,
        }
    };
    (0..count).map(row).collect()
}

fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.width()
    }
}

fn pad(out: &mut Vec<u8>, text: &str, width: usize) {
    out.extend_from_slice(text.as_bytes());
    let missing = width.saturating_sub(self::width(text)) + GAP;
    out.resize(out.len() + missing, b' ');
}

#[cfg(test)]
mod tests;
