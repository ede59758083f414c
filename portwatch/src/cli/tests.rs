#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;
use crate::{
    event::{Backend, Family, Op, Transport},
    store::keep::Keep,
};

/// A system with one user and one network namespace.
struct Known;

impl Names for Known {
    fn user(&self, name: &str) -> Result<u32, String> {
        match name {
            "alice" => Ok(1000),
            _ => Err("there is no such user".to_owned()),
        }
    }

    fn netns(&self, path: &Path) -> Result<u32, String> {
        match path.to_str() {
            Some("/run/netns/blue") => Ok(4_026_532_000),
            _ => Err("cannot open it".to_owned()),
        }
    }

    fn page_size(&self) -> u64 {
        4096
    }
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("portwatch").chain(line.split_whitespace()))
}

fn trace(line: &str) -> TraceOptions {
    try_trace(line).unwrap()
}

fn try_trace(line: &str) -> Result<TraceOptions, UsageError> {
    let Cli {
        verb: Verb::Trace(args),
        output,
    } = parse(&format!("trace {line}")).unwrap()
    else {
        panic!("not trace");
    };
    args.resolve(output, &Known)
}

/// A recorder keeps what it was asked for, and all of that is shown.
#[test]
fn replay_shows_every_kind_of_event_unless_told_otherwise() {
    let events = |line: &str| {
        let Cli {
            verb: Verb::Replay(args),
            output,
        } = parse(&format!("replay night.pwdb {line}")).unwrap()
        else {
            panic!("not replay");
        };
        args.resolve(output, &Known).unwrap().selection.events
    };
    assert_eq!(events(""), Op::ALL);
    assert_eq!(events("-e accept"), [Op::Accept]);
}

fn refusal(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    assert!(error.use_stderr(), "{line}");
    error.to_string()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn nothing_typed_traces_the_default_events_of_everything() {
    let options = trace("");
    assert_eq!(
        options.selection,
        crate::selection::Selection {
            events: Op::USUAL.to_vec(),
            brief: true,
            ..Default::default()
        }
    );
    assert!(!trace("-o json").selection.brief, "JSON has every field");
    assert_eq!(options.backend, None);
    assert_eq!(options.buffer, 8 << 20);
    assert_eq!((options.duration, options.count), (None, None));
    assert!(options.args);
    assert_eq!(options.command, None);
    assert_eq!(
        options.output,
        OutputOptions {
            format: Format::Text,
            destination: Destination::Stdout,
            numeric: false,
            color: ColorChoice::Auto,
            quiet: false,
            verbosity: 0,
        }
    );
    assert!(options.notes.is_empty());
}

#[test]
fn filters_repeat() {
    let options = trace(
        "--port 80 --port 8000-8100,443 --peer-port 5432 --pid 1 --pid 2 --comm nginx \
         --comm victoria-metrics --uid 33 --uid alice --netns 4026531840 --netns blue \
         --cgroup /sys/fs/cgroup/a.slice/ --cgroup b/c --cgroup 0::/d --cgroup / \
         --container 0a1b -t -u -4 -6 -e bind -e listen,connect --failed --conflicts",
    );
    let selection = options.selection;
    assert_eq!(selection.ports, [80..=80, 8000..=8100, 443..=443]);
    assert_eq!(selection.peer_ports, [5432..=5432]);
    assert_eq!(selection.pids, [1, 2]);
    assert_eq!(selection.comms, ["nginx", "victoria-metric"]);
    assert_eq!(selection.uids, [33, 1000]);
    assert_eq!(selection.netns, [4_026_531_840, 4_026_532_000]);
    assert_eq!(selection.cgroups, ["/a.slice", "/b/c", "/d", "/"]);
    assert_eq!(selection.containers, ["0a1b"]);
    assert_eq!(selection.transports, [Transport::Tcp, Transport::Udp]);
    assert_eq!(selection.families, [Family::Ipv4, Family::Ipv6]);
    assert_eq!(selection.events, [Op::Bind, Op::Listen, Op::Connect]);
    assert!(selection.failed && selection.conflicts && !selection.descendants);
}

#[test]
fn ends_and_kernel_options() {
    let options = trace("--duration 1h30m -c 5 --attach raw_tp --buffer 256K --no-args");
    assert_eq!(options.duration, Some(Duration::from_secs(5400)));
    assert_eq!(options.count, Some(5));
    assert_eq!(options.backend, Some(Backend::RawTp));
    assert_eq!(options.buffer, 256 << 10);
    assert!(!options.args);
    assert!(options.notes.is_empty());
}

#[test]
fn a_buffer_is_rounded_up_and_that_is_said() {
    let options = trace("--buffer 300K");
    assert_eq!(options.buffer, 512 << 10);
    assert_eq!(
        options.notes,
        ["--buffer 307200 is rounded up to 524288 bytes"]
    );
    assert_eq!(trace("--buffer 1").buffer, 4096);
    assert_eq!(trace("--buffer 2G").buffer, 1 << 31);
}

#[test]
fn output_options_stand_before_or_after_the_verb() {
    for line in [
        "-o json -w out.jsonl -n --color never -vv trace",
        "trace -o json -w out.jsonl -n --color never -v -v",
    ] {
        let output = parse(line).unwrap().output.resolve(Destination::Stdout);
        assert_eq!(output.format, Format::Json);
        assert_eq!(output.destination, Destination::File("out.jsonl".into()));
        assert!(output.numeric);
        assert_eq!(output.color, ColorChoice::Never);
        assert_eq!(output.verbosity, 2);
    }
}

fn record(line: &str) -> RecordOptions {
    try_record(line).unwrap()
}

fn try_record(line: &str) -> Result<RecordOptions, UsageError> {
    let Cli {
        verb: Verb::Record(args),
        output,
    } = parse(&format!("record {line}")).unwrap()
    else {
        panic!("not record");
    };
    args.resolve(output, &Known)
}

#[test]
fn a_recording_has_its_file_its_bounds_and_every_field() {
    let options = record("");
    assert_eq!(options.keep, Keep::Failures);
    assert_eq!((options.bounds.size, options.bounds.age), (1 << 30, None));
    assert_eq!(options.file, None);
    assert!(!options.trace.selection.brief, "though text is the default");

    let options =
        record("-w a.pwdb --keep conflicts --max-size 64M --max-age 7d --port 80 -q -c 5");
    assert_eq!(options.keep, Keep::Conflicts);
    assert_eq!(options.bounds.size, 64 << 20);
    assert_eq!(options.bounds.age, Some(Duration::from_secs(7 * 86400)));
    assert_eq!(options.file.as_deref(), Some(Path::new("a.pwdb")));
    assert_eq!(options.trace.selection.ports, [80..=80]);
    assert!(options.trace.output.quiet);
    assert_eq!(options.trace.count, Some(5));
    for line in ["-w -", "-o json"] {
        let error = try_record(line).unwrap_err();
        assert!(
            error.to_string().contains("a recording is a file"),
            "{error}"
        );
    }
}

#[test]
fn replay_takes_the_filters_of_trace() {
    let Cli {
        verb: Verb::Replay(args),
        output,
    } = parse("replay a.pwdb --port 80 --uid alice --failed -c 3 --no-args -o json").unwrap()
    else {
        panic!("not replay");
    };
    let replay = args.resolve(output, &Known).unwrap();
    let every = Op::ALL.map(Op::as_str).join(",");
    let trace = trace(&format!(
        "--port 80 --uid alice --failed -o json -e {every}"
    ));
    assert_eq!(replay.selection, trace.selection);
    assert_eq!((replay.count, replay.args), (Some(3), false));
    assert_eq!(replay.output.destination, Destination::Stdout);
}

#[test]
fn a_command_keeps_its_stdout_and_options() {
    let options = trace("--failed -- nc -l -p 80");
    assert_eq!(options.command.unwrap(), ["nc", "-l", "-p", "80"]);
    assert!(options.selection.descendants);
    assert_eq!(options.output.destination, Destination::Stderr);

    let destination = |line| trace(line).output.destination;
    assert_eq!(destination("-w f -- true"), Destination::File("f".into()));
    assert_eq!(destination("-w - -- true"), Destination::Stdout);
}

#[test]
fn wrong_usage_is_refused_in_words() {
    for (line, part) in [
        ("trace --port 0", "port 0 only asks the kernel"),
        (
            "trace --port 65536",
            "65536 is too large: ports are 1 to 65535",
        ),
        ("trace --port 90-80", "did you mean 80-90?"),
        ("trace --peer-port http", "\"http\" is not a port number"),
        (
            "trace -e bind,closed",
            "[possible values: bind, listen, connect, autobind, accept, release]",
        ),
        (
            "trace --attach uprobe",
            "[possible values: auto, tracing, kprobe, raw_tp]",
        ),
        ("trace --pid 0", "\"0\" is not a process id, 1 to 4194304"),
        ("trace --pid sshd", "--comm takes a name"),
        ("trace --pid 4194305", "is not a process id"),
        ("trace --duration soon", "10s, 2m or 1h30m"),
        ("trace --buffer 0", "cannot be empty"),
        ("trace -c 0", "\"0\" is not a number, 1 or more"),
        ("trace -c x", "is not a number"),
        ("trace -o xml", "[possible values: text, json]"),
        ("trace -q -v", "cannot be used with"),
        ("record --max-size 1M", "a recording needs 4M at least"),
        ("record --max-age 0d", "nothing would be kept"),
        (
            "record --keep some",
            "[possible values: conflicts, failures, all]",
        ),
        ("replay", "required arguments were not provided"),
        ("report a.pwdb --since someday", "or 36h for so long ago"),
        ("report a.pwdb --top 0", "is not a number"),
        ("trace nc -l", "unexpected argument 'nc'"),
        ("trace --comm", "a value is required"),
        ("frobnicate", "unrecognized subcommand"),
        (
            "completions tcsh",
            "[possible values: bash, elvish, fish, powershell, zsh]",
        ),
    ] {
        let refusal = refusal(line);
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
}

#[test]
fn unknown_names_are_wrong_usage() {
    let error = try_trace("--uid bob").unwrap_err().into_clap("trace");
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("Usage: portwatch trace "),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("invalid value 'bob' for '--uid <USER>': there is no such user")
    );
    let error = try_trace("--netns green").unwrap_err();
    assert_eq!(error.value, "green", "as it was typed");
    let error = try_trace("--netns /run/netns/red").unwrap_err();
    assert_eq!(error.value, "/run/netns/red");
}

#[test]
fn nothing_typed_at_all_prints_help_as_wrong_usage() {
    let error = Cli::try_parse_from(["portwatch"]).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    assert_eq!(error.exit_code(), 2);
    assert!(error.use_stderr());
}

fn read(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(
        std::iter::once("portwatch")
            .chain(line.split_whitespace())
            .map(OsString::from),
    )
}

#[test]
fn two_dashes_announce_a_command() {
    for line in ["trace --", "trace --failed -q --"] {
        let error = read(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        let text = error.to_string();
        assert!(
            text.contains("a COMMAND is required after '--'")
                && text.contains("Usage: portwatch trace "),
            "{text}"
        );
    }
    for line in ["trace", "trace -- true", "trace -- cmd --", "man"] {
        assert!(read(line).is_ok(), "{line}");
    }
    assert_eq!(read("trace --port 0").unwrap_err().exit_code(), 2);
}

fn help(arguments: &[&str]) -> String {
    let error = Cli::command()
        .term_width(80)
        .try_get_matches_from(std::iter::once(&"portwatch").chain(arguments))
        .unwrap_err();
    assert_eq!(error.exit_code(), 0);
    error.to_string()
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("short", help(&["-h"]));
    insta::assert_snapshot!("long", help(&["--help"]));
    insta::assert_snapshot!("trace_short", help(&["trace", "-h"]));
    insta::assert_snapshot!("trace_long", help(&["trace", "--help"]));
    insta::assert_snapshot!("doctor_long", help(&["doctor", "--help"]));
    insta::assert_snapshot!("record_long", help(&["record", "--help"]));
    insta::assert_snapshot!("replay_long", help(&["replay", "--help"]));
    insta::assert_snapshot!("report_long", help(&["report", "--help"]));
}

#[test]
fn a_port_in_the_place_of_a_verb_asks_who_has_it() {
    let read = |line: &str| {
        let words = std::iter::once("portwatch").chain(line.split_whitespace());
        Cli::read(words.map(OsString::from))
    };
    for (line, port) in [
        ("443", 443),
        (":443", 443),
        ("-o json 443", 443),
        ("127.0.0.1:8080 --pids", 8080),
        ("-w 443 443", 443),
        ("--numeric udp/53", 53),
    ] {
        let Verb::Who(args) = read(line).unwrap().verb else {
            panic!("{line}: not who");
        };
        assert_eq!(args.target.port, target::Port::Number(port), "{line}");
    }
    assert!(matches!(read("who https").unwrap().verb, Verb::Who(_)));
    for (line, part) in [
        ("70000", "too large"),
        ("tracee", "unrecognized subcommand"),
        ("8080 9090", "unexpected argument"),
        ("who", "<PORT>"),
        ("who 80 --pids -o json", "cannot be used with"),
    ] {
        let error = read(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
}

#[test]
fn options_of_every_verb_with_a_value_are_known() {
    let command = Cli::command();
    for option in command.get_arguments() {
        let takes_value = option.get_action().takes_values();
        let long = option.get_long().map(|long| format!("--{long}"));
        let short = option.get_short().map(|short| format!("-{short}"));
        for name in long.into_iter().chain(short) {
            assert_eq!(takes_value, VALUED.contains(&name.as_str()), "{name}");
        }
    }
}

fn list(line: &str) -> Result<list::ListOptions, UsageError> {
    let Cli {
        verb: Verb::List(args),
        output,
    } = parse(&format!("list {line}")).unwrap()
    else {
        panic!("not list");
    };
    args.resolve(output, &Known)
}

#[test]
fn list_takes_the_habits_of_ss() {
    use crate::sockets::scope::{Netns, Reach, Scope};
    let options = list("").unwrap();
    let occupied = Scope {
        reach: Reach::Bound,
        ..Scope::default()
    };
    assert_eq!((&options.scope, options.header), (&occupied, true));
    let options = list("-tulnp").unwrap();
    assert!(options.output.numeric);
    assert_eq!(
        options.scope,
        Scope {
            transports: vec![Transport::Tcp, Transport::Udp],
            reach: Reach::Listening,
            ..Scope::default()
        }
    );
    let options = list("-Ha6 -N blue -N 7 -N /run/netns/blue").unwrap();
    let netns = |inode, path: Option<&str>| Netns {
        inode,
        path: path.map(Into::into),
    };
    assert!(!options.header);
    assert_eq!(
        options.scope,
        Scope {
            families: vec![Family::Ipv6],
            netns: vec![
                netns(4_026_532_000, Some("/run/netns/blue")),
                netns(7, None),
                netns(4_026_532_000, Some("/run/netns/blue")),
            ],
            reach: Reach::All,
            ..Scope::default()
        }
    );
    // As with ss, the last one counts.
    assert_eq!(list("-la").unwrap().scope.reach, Reach::All);
    assert_eq!(list("-al").unwrap().scope.reach, Reach::Listening);
    let error = list("-N red").unwrap_err().into_clap("list");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("'red' for '--netns <NETNS>'"), "{text}");
    assert!(text.contains("Usage: portwatch list"), "{text}");
}
