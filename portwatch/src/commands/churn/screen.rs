//! Where figures go: a terminal that is drawn anew in place, plain lines, or JSON.

use std::{
    fs::File,
    io::{self, Write as _},
};

use jiff::tz::TimeZone;

use crate::{
    churn::{figures::Figures, model::By},
    cli::ChurnOptions,
    sink::{self, Format, json, text},
};

/// An output.
pub(super) struct Screen {
    out: File,
    format: Format,
    by: By,
    zone: TimeZone,
    quiet: bool,
    /// Lines of the terminal that are drawn; `None` where it is none.
    drawn: Option<usize>,
    count: u64,
}

impl Screen {
    pub(super) fn new(out: File, options: &ChurnOptions) -> Self {
        let in_place = options.output.format == Format::Text
            && sink::width(&out).is_some()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            drawn: in_place.then_some(0),
            out,
            format: options.output.format,
            by: options.by,
            zone: TimeZone::system(),
            quiet: options.output.quiet,
            count: 0,
        }
    }

    /// Shows an interval.
    pub(super) fn show(&mut self, figures: &Figures) -> io::Result<()> {
        self.count += 1;
        if self.format == Format::Json {
            return self.out.write_all(&json::churn::line(figures, self.count));
        }
        let size = sink::size(&self.out);
        let look = text::churn::Look {
            width: size.map(|(width, _)| width),
            height: size
                .map(|(_, height)| height)
                .filter(|_| self.drawn.is_some()),
        };
        let lines = text::churn::lines(figures, title(self.by), &self.zone, look);
        let bytes = match &mut self.drawn {
            Some(drawn) => {
                let bytes = redraw(&lines, *drawn);
                *drawn = lines.len();
                bytes
            }
            None => plain(&lines, self.count > 1 && !self.quiet),
        };
        // In one write: a screen is never seen half drawn.
        self.out.write_all(&bytes)
    }

    /// Whether what it shows is to stay as it is at the end: a part of an interval would replace a whole one.
    pub(super) fn is_drawn(&self) -> bool {
        self.drawn.is_some_and(|lines| lines > 0)
    }

    /// Leaves what was drawn last, with the cursor below it.
    pub(super) fn leave(&mut self) {
        // Every drawing ends with a line of its own: the cursor is there.
        let _ = self.out.flush();
    }
}

/// Lines over those that were drawn before: the cursor goes up to the first, and each is ended by erasing what
/// is right of it (ECMA-48, CUU, EL, ED).
fn redraw(lines: &[String], drawn: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if drawn > 0 {
        out.extend_from_slice(format!("\x1b[{drawn}A\r").as_bytes());
    }
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\x1b[K\r\n");
    }
    out.extend_from_slice(b"\x1b[J");
    out
}

fn plain(lines: &[String], apart: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if apart {
        out.push(b'\n');
    }
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out
}

const fn title(by: By) -> &'static str {
    match by {
        By::Process => "BY PROCESS",
        By::Destination => "BY DESTINATION",
        By::Source => "BY SOURCE",
        By::Netns => "BY NETWORK NAMESPACE",
        By::Container => "BY CONTAINER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_again_covers_what_was_there() {
        let lines = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(redraw(&lines(&["a"]), 0), b"a\x1b[K\r\n\x1b[J");
        assert_eq!(
            redraw(&lines(&["b", ""]), 3),
            b"\x1b[3A\rb\x1b[K\r\n\x1b[K\r\n\x1b[J"
        );
        assert_eq!(plain(&lines(&["a", "b"]), true), b"\na\nb\n");
    }
}
