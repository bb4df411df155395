//! The transcripts that the book shows: each file of `docs/transcripts` holds commands and what they print. The commands
//! of a file are run again, one after the other, and what they print now must be what the file has, but for what differs
//! from run to run: times, PIDs, ids, counts of tasks, the kernel.
//!
//! `cargo xtask transcripts` writes the files anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use e2e::fresh;
use e2e::load;

/// Set: what the commands print is left here, in a file of the same name, and not compared.
const WRITE: &str = "SCX_UPGRADE_TRANSCRIPTS";

/// Who types a line, by the prompt.
const ROOT: &str = "# ";
const NOBODY: &str = "$ ";

macro_rules! transcripts {
    ($($test:ident: [$($file:literal),*],)*) => {
        $(#[test]
        fn $test() {
            check(&[$(($file, include_str!(concat!("../../../docs/transcripts/", $file, ".txt")))),*]);
        })*
    };
}

// The transcripts of one test are of one host.
transcripts! {
    transcripts_of_a_life: ["life"],
    transcripts_of_operating: ["operate"],
    transcripts_of_a_gallery: ["gallery"],
    transcripts_of_one_host: ["rules", "refusals", "own", "porting", "snapshot", "reattach"],
}

/// What is bad about a policy shows only where there is something to do.
const UNDER_LOAD: &str = "gallery";
/// How many of a test's transcripts are replayed where the environment asks for a quarter of all rounds, as it does on
/// older kernels: there the verifier takes ten times as long for each policy, emulated.
const FEW: usize = 2;

/// Run the commands of transcripts, and compare or leave what they print.
fn check(transcripts: &[(&str, &str)]) {
    fresh();
    // What earlier tests did is none of what a transcript shows.
    let _ = std::fs::remove_dir_all("/var/lib/scx-upgrade");
    let quarter = std::env::var("SCX_UPGRADE_ROUNDS").is_ok_and(|rounds| rounds == "quarter");
    let few = if quarter { FEW } else { transcripts.len() };
    let mut wrong = Vec::new();
    for (name, committed) in transcripts.iter().take(few) {
        let load = (*name == UNDER_LOAD).then(|| load(24));
        let now = replay(committed);
        assert!(!now.is_empty(), "the transcript {name} has no commands");
        if let Some(load) = load {
            load.stop().unwrap();
        }
        match std::env::var_os(WRITE) {
            Some(folder) => std::fs::write(Path::new(&folder).join(format!("{name}.txt")), now).unwrap(),
            None => wrong.extend(difference(name, committed, &now)),
        }
    }
    fresh();
    assert!(
        wrong.is_empty(),
        "{}\nIf that is meant, `cargo xtask transcripts` writes them anew.",
        wrong.join("\n")
    );
}

/// What differs, if anything does.
fn difference(name: &str, then: &str, now: &str) -> Option<String> {
    let (then, now) = (normalise(then), normalise(now));
    if then == now {
        return None;
    }
    let at = then.iter().zip(&now).position(|(a, b)| a != b).unwrap_or(then.len().min(now.len()));
    let (was, is) = (then.get(at), now.get(at));
    Some(format!(
        "the transcript {name} differs at\n  {was:?}\nwhich is now\n  {is:?}\nAll of it now:\n{}",
        now.join("\n")
    ))
}

/// The transcript of its commands, as they are now.
fn replay(committed: &str) -> String {
    let (mut out, mut code) = (String::new(), 0);
    for line in committed.lines() {
        let Some((prompt, command)) = line.split_at_checked(2).filter(|(p, _)| [ROOT, NOBODY].contains(p))
        else {
            continue;
        };
        out += &format!("{line}\n");
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["echo", "$?"] => out += &format!("{code}\n"),
            ["sleep", seconds] => std::thread::sleep(Duration::from_secs(seconds.parse().unwrap())),
            ["cat", file] => out += &std::fs::read_to_string(file).unwrap(),
            [program, ref args @ ..] => {
                let (printed, status) = run(program, args, prompt == NOBODY);
                out += &printed;
                code = status;
            }
            [] => panic!("a prompt without a command"),
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

/// Run a program of `/bin`, from there; what it prints to either stream, in order, and its exit code.
fn run(program: &str, args: &[&str], as_nobody: bool) -> (String, i32) {
    let (mut read, write) = std::io::pipe().unwrap();
    let mut command = Command::new(Path::new("/bin").join(program));
    command
        .args(args)
        .current_dir("/bin")
        .stdin(Stdio::null())
        .stderr(write.try_clone().unwrap())
        .stdout(write);
    if as_nobody {
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
    // It holds our ends of the pipe.
    drop(command);
    let mut printed = String::new();
    read.read_to_string(&mut printed).unwrap();
    (printed, child.wait().unwrap().code().unwrap_or(-1))
}

/// The lines, with a word in place of each thing that differs from run to run.
fn normalise(text: &str) -> Vec<String> {
    // Whether tasks wait on a queue just then is chance, and so is what the kernel counts of events.
    let chance = |l: &&str| l.starts_with("  handed over ") || l.contains("  SCX_EV_");
    text.lines().filter(|l| !chance(l)).map(normalise_line).collect()
}

fn normalise_line(line: &str) -> String {
    if line.starts_with("kernel  ") && line.split_whitespace().nth(1).is_some_and(|w| w.starts_with(is_digit))
    {
        return "kernel VERSION".to_owned();
    }
    if line.starts_with("made  ") {
        return "made WHEN".to_owned();
    }
    // Of the build, or of the kernel; or as wide as what is chance.
    for varies in ["sha256  ", "build id  ", "ok       kernel  "] {
        if line.starts_with(varies) {
            return varies.to_owned();
        }
    }
    if line.starts_with("  count  ") {
        return line
            .split_whitespace()
            .take(3)
            .map(|w| if w.starts_with(is_digit) { "N" } else { w })
            .collect();
    }
    if let Some((before, _)) = line.split_once(", process ").or_else(|| line.split_once(", no process")) {
        // A policy that is superseded ends within a second.
        return format!("{before}, PROCESS");
    }
    // A value of state: a row of a snapshot. What ops brought up to date before the sweep came. The host's version.
    let all = ["  sweep ", " waiting, ", " host version "].iter().any(|w| line.contains(w))
        || line.ends_with(" waiting")
        || is_row(line);
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(is_digit) {
        let before = &rest[..at];
        let length =
            rest[at..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len() - at);
        let (token, after) = rest[at..].split_at(length);
        out += before;
        let in_a_name = out.ends_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let unit = [" ns", " us", " ms", " s"].into_iter().find(|unit| {
            after
                .strip_prefix(unit)
                .is_some_and(|next| !next.starts_with(|c: char| c.is_ascii_alphanumeric()))
        });
        rest = after;
        match unit {
            _ if in_a_name => out += token,
            Some(unit) => {
                out += "TIME";
                rest = &after[unit.len()..];
            }
            None if token.starts_with("0x") => out += "HEX",
            None if token.matches('.').count() > 1 => out += token,
            None if all || token.len() > 1 => out.push('N'),
            None => out += token,
        }
    }
    out + rest
}

/// A record of a snapshot: its key and its values.
fn is_row(line: &str) -> bool {
    let values = line.strip_prefix("  ").and_then(|l| l.rsplit_once(": "));
    values
        .is_some_and(|(_, v)| !v.is_empty() && v.chars().all(|c| c.is_ascii_hexdigit() || ", -".contains(c)))
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}
