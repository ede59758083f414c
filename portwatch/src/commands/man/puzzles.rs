//! The puzzles of the README: what ss and lsof show of a port that is in use, and what portwatch says.

use roff::{Inline, Roff, bold, roman};

const README: &str = include_str!("../../../../README.md");

/// The section of the README that has them.
const TITLE: &str = "Who holds it, and why";

/// The text of the section; empty only where the README has no such section, which a test forbids.
fn section(readme: &'static str) -> &'static str {
    readme
        .split("\n## ")
        .find_map(|section| section.strip_prefix(TITLE))
        .unwrap_or_default()
        .trim()
}

/// Appends the section.
pub(super) fn render(roff: &mut Roff) {
    roff.control("SH", [TITLE.to_uppercase().as_str()]);
    let mut answers = false;
    for line in section(README).lines() {
        if line.starts_with("```") {
            answers = !answers;
            roff.control(if answers { "nf" } else { "fi" }, []);
        } else if answers {
            roff.text([roman(format!("    {line}"))]);
        } else if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text(inlines(line));
        }
    }
}

/// A line of Markdown: what stands between `**` or backquotes is bold, of a link the text stays. The text of
/// a link that goes on in the next line keeps its bracket, so the README has none.
fn inlines(line: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    let plain = line.replace("**", "`");
    for (at, part) in plain.split('`').enumerate() {
        if at % 2 == 1 {
            inlines.push(bold(part));
        } else if !part.is_empty() {
            inlines.push(roman(without_links(part)));
        }
    }
    inlines
}

/// `[text](target)` without brackets and target.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[')
        && let Some((name, target)) = link.split_once("](")
        && let Some((_, after)) = target.split_once(')')
    {
        plain.push_str(before);
        plain.push_str(name);
        rest = after;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_puzzles_and_their_answers() {
        let section = section(README);
        assert_eq!(section.matches("\n↳ ").count(), 5, "{section}");
        for tool in ["$ ss ", "$ lsof "] {
            assert_eq!(section.matches(tool).count(), 5, "{section}");
        }
    }

    #[test]
    fn markdown_of_one_line() {
        assert_eq!(
            inlines("**A server** of `ss -tan`, see [there](docs/a.md) and [so on]."),
            [
                bold("A server"),
                roman(" of "),
                bold("ss -tan"),
                roman(", see there and [so on].")
            ]
        );
        assert_eq!(inlines("plain"), [roman("plain")]);
    }
}
