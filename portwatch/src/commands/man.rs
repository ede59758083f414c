//! `portwatch man`: one page for the program and all its verbs, from the same text as `--help`.

mod puzzles;

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::cli::{
    Cli,
    help::{self, Section},
};

/// Writes the manual page, as roff, to `out`.
///
/// # Errors
///
/// When `out` cannot be written to.
pub fn run(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&page()?)?;
    out.flush()
}

fn page() -> io::Result<Vec<u8>> {
    let mut root = Cli::command();
    // Gives the verbs their full names and the options that all verbs take.
    root.build();
    let mut page = Vec::new();

    let man = Man::new(own_options(&root))
        .title("PORTWATCH")
        .manual("portwatch");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for verb in root
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        self::verb(verb, &mut page)?;
    }
    let mut roff = Roff::new();
    puzzles::render(&mut roff);
    roff.to_writer(&mut page)?;
    sections("SH", help::PORTWATCH, &mut page)?;
    Ok(page)
}

/// One verb: a section whose parts, options included, are subsections of it.
fn verb(verb: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let name = format!("portwatch {}", verb.get_name());
    let command = verb
        .clone()
        .mut_args(|argument| {
            // These stand at the top of the page.
            let hide = argument.is_global_set()
                || ["help", "version"].contains(&argument.get_id().as_str());
            argument.hide(hide)
        })
        .bin_name(name.clone());
    let man = Man::new(command);

    let mut roff = Roff::new();
    roff.control("SH", [name.to_uppercase().as_str()]);
    roff.to_writer(page)?;

    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    for line in parts.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b".SH ") {
            Some(title) => {
                page.extend_from_slice(b".SS ");
                page.extend_from_slice(title);
            }
            None => page.extend_from_slice(line),
        }
    }
    let own = match verb.get_name() {
        "trace" => help::TRACE,
        "list" => help::LIST,
        "who" => help::WHO,
        "check" => help::CHECK,
        "check-range" => help::CHECK_RANGE,
        "record" => help::RECORD,
        "replay" => help::REPLAY,
        "report" => help::REPORT,
        _ => &[],
    };
    if !own.is_empty() {
        sections("SS", own, page)?;
    }
    Ok(())
}

/// The options of every verb, without those of the verbs.
fn own_options(root: &Command) -> Command {
    root.clone().disable_help_subcommand(true)
}

fn sections(level: &str, sections: &[Section], page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for Section { title, body } in sections {
        roff.control(level, [*title]);
        let mut kept = false;
        for line in body.lines() {
            match (line.strip_prefix("  "), kept) {
                (Some(_), false) => {
                    roff.control("PP", []);
                    roff.control("nf", []);
                    kept = true;
                }
                (None, true) => {
                    roff.control("fi", []);
                    kept = false;
                }
                (Some(_), true) | (None, false) => {}
            }
            match line.strip_prefix("  ") {
                Some(line) => roff.text([bold_or_roman(line)]),
                None if line.is_empty() => roff.control("PP", []),
                None => roff.text([roman(line)]),
            };
        }
        if kept {
            roff.control("fi", []);
        }
    }
    roff.to_writer(page)
}

/// Commands to type are bold.
fn bold_or_roman(line: &str) -> roff::Inline {
    if line.starts_with("portwatch") {
        bold(format!("    {line}"))
    } else {
        roman(format!("    {line}"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    #[test]
    fn the_page() {
        let mut page = Vec::new();
        run(&mut page).unwrap();
        insta::assert_snapshot!(String::from_utf8(page).unwrap());
    }
}
