//! Sockets that were looked up, in columns: as wide as what stands in them, the last one cut to the
//! terminal. A socket of several processes takes a line for each.
//!
//! On a terminal, cells that would repeat those above them stay empty, and columns without a value are
//! left out. Elsewhere every line has every column, so that programs which go by columns find them.

mod column;
mod entry;

use std::io::{self, Write};

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

/// Whom the last cell of a line is of.
struct Row<'a> {
    occupant: Option<&'a Occupant>,
    /// An owner could not be seen.
    unseen: bool,
}

/// The cells of all lines but the last of each: one text, since there may be very many.
struct Cells {
    /// In a line.
    columns: usize,
    text: String,
    cells: Vec<Cell>,
    /// Of the widest cell of each column.
    widths: Vec<usize>,
}

/// Where a cell ends in the text, and how wide it is.
struct Cell {
    end: u32,
    width: u32,
}

impl Cells {
    /// With room for the cells of so many lines.
    fn new(columns: usize, lines: usize) -> Self {
        Self {
            columns,
            text: String::new(),
            cells: Vec::with_capacity(columns * lines),
            widths: vec![0; columns],
        }
    }

    /// The next cell, from left to right and from line to line.
    fn push(&mut self, text: &str) {
        let width = width(text);
        self.text.push_str(text);
        // A listing of 4 GB is beyond what is held of sockets.
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        if let Some(widest) = self.widths.get_mut(self.cells.len() % self.columns) {
            *widest = width.max(*widest);
        }
        let width = u32::try_from(width).unwrap_or(u32::MAX);
        self.cells.push(Cell { end, width });
    }

    /// Text and width.
    fn get(&self, row: usize, column: usize) -> (&str, usize) {
        let at = row * self.columns + column;
        let start = at
            .checked_sub(1)
            .and_then(|before| self.cells.get(before))
            .map_or(0, |cell| cell.end as usize);
        let cell = self.cells.get(at);
        let text = cell.and_then(|cell| self.text.get(start..cell.end as usize));
        (
            text.unwrap_or_default(),
            cell.map_or(0, |cell| cell.width as usize),
        )
    }
}

/// The lines.
#[must_use]
pub fn lines(listings: &[Listing], look: Look) -> Vec<u8> {
    let mut out = Vec::new();
    // Memory takes all of it.
    let _ = write(listings, look, &mut out);
    out
}

/// Writes the lines one by one, so that whoever reads them need not wait for the last.
///
/// # Errors
/// Those of `out`.
pub fn write(listings: &[Listing], look: Look, out: &mut impl Write) -> io::Result<()> {
    let columns: Vec<Column> = look
        .columns
        .iter()
        .copied()
        .filter(|&column| column != Column::Command)
        .collect();
    let entries = entry::entries(listings);
    let mut cells = Cells::new(columns.len(), entries.len());
    let mut rows = Vec::with_capacity(entries.len());
    for entry in &entries {
        lines_of(entry, &columns, look, &mut cells, &mut rows);
    }
    let mut shown: Vec<Shown> = columns
        .iter()
        .zip(&cells.widths)
        .enumerate()
        .filter_map(|(place, (&column, &width))| shown(place, column, width, look))
        .collect();
    if let Some(width) = look.width {
        fit(&mut shown, width);
    }
    let before: usize = shown.iter().map(|one| one.width + GAP).sum();
    let room = look.width.map_or(usize::MAX, |width| {
        width.saturating_sub(before).max(MIN_COMMAND)
    });
    let paint = Paint::new(look.color);
    let mut line = Vec::new();
    if look.header {
        for one in &shown {
            let title = one.column.title();
            pad(&mut line, (title, title.len()), one.width);
        }
        line.extend_from_slice(Column::Command.title().as_bytes());
        line.push(b'\n');
        out.write_all(&line)?;
    }
    for (at, row) in rows.iter().enumerate() {
        line.clear();
        for one in &shown {
            pad(&mut line, cells.get(at, one.place), one.width);
        }
        match row.occupant {
            Some(Occupant { task, process }) => {
                let mut cut = Escape::new(&mut line, room);
                command(&mut cut, task, process, None, look.args);
            }
            None if row.unseen => {
                for part in [&paint.warning, UNSEEN, &paint.end] {
                    line.extend_from_slice(part.as_bytes());
                }
            }
            None => line.extend_from_slice(NOTHING.as_bytes()),
        }
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// A column that is shown.
struct Shown {
    column: Column,
    /// In the cells of a row.
    place: usize,
    width: usize,
}

/// A column whose widest cell is so wide; `None` where there is nothing to show in it, on a terminal.
fn shown(place: usize, column: Column, width: usize, look: Look) -> Option<Shown> {
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
fn lines_of<'a>(
    entry: &entry::Entry<'a>,
    columns: &[Column],
    look: Look,
    cells: &mut Cells,
    rows: &mut Vec<Row<'a>>,
) {
    for at in 0..entry.occupants.len().max(1) {
        let line = Line {
            listing: entry.listing,
            count: entry.count,
            occupant: entry.occupants.get(at).copied(),
            is_first: at == 0,
            unseen: entry.unseen,
            now: look.now,
        };
        for column in columns {
            let repeats = at > 0 && !column.is_of_process();
            match (look.width, column.cell(&line)) {
                (Some(_), _) if repeats => cells.push(""),
                (None, cell) if cell.is_empty() => cells.push(NOTHING),
                (_, cell) => cells.push(&cell),
            }
        }
        rows.push(Row {
            occupant: line.occupant,
            unseen: line.unseen,
        });
    }
}

fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.width()
    }
}

/// A text and its width, filled up to this one.
fn pad(out: &mut Vec<u8>, (text, own): (&str, usize), width: usize) {
    out.extend_from_slice(text.as_bytes());
    let missing = width.saturating_sub(own) + GAP;
    out.resize(out.len() + missing, b' ');
}

#[cfg(test)]
mod tests;
