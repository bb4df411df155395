//! Every error that a user can meet is in the chapter on troubleshooting, in the words in which it is said.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;

use book::Page;
use book::WRITE;
use book::errors::exit_codes;
use book::errors::messages;
use book::read;
use book::write;

const CHAPTER: &str = "docs/troubleshooting.md";
const ERRORS: &str = "engine/src/error.rs";
const EXITS: &str = "engine/src/exit.rs";

fn chapter() -> Page {
    Page { path: CHAPTER.to_owned(), text: read(CHAPTER) }
}

/// The quotes of a text, each on one line.
fn quotes(text: &str) -> Vec<String> {
    let mut quotes = vec![String::new()];
    for line in text.lines() {
        match (line.strip_prefix("> "), quotes.last_mut()) {
            (Some(line), Some(last)) if last.is_empty() => last.push_str(line),
            (Some(line), Some(last)) => *last += &format!(" {line}"),
            (None, Some(last)) if !last.is_empty() => quotes.push(String::new()),
            _ => {}
        }
    }
    quotes.retain(|quote| !quote.is_empty());
    quotes
}

#[test]
fn every_error_of_the_sdk_is_explained() {
    let chapter = chapter();
    let (source, mut wrong) = (read(ERRORS), String::new());
    let codes = exit_codes(&source, &read(EXITS));
    let messages = messages(&source);
    assert!(messages.len() > 30, "only {} errors were found", messages.len());
    for (variant, message) in &messages {
        let heading = format!("### `{variant}`");
        let Some(section) = chapter.section(&heading) else {
            writeln!(wrong, "there is no section {heading}").unwrap();
            continue;
        };
        let code = codes.get(variant).copied().unwrap_or(1);
        if !section.contains(&format!("Exit code {code}.")) {
            writeln!(wrong, "{heading} does not say: Exit code {code}.").unwrap();
        }
        if !message.is_empty() && quotes(section).first() != Some(message) {
            writeln!(wrong, "{heading} quotes\n  {:?}\nand the message is\n  {message}", quotes(section))
                .unwrap();
        }
        if section
            .lines()
            .filter(|l| !l.starts_with('>') && !l.starts_with("Exit code"))
            .collect::<String>()
            .len()
            < 40
        {
            writeln!(wrong, "{heading} does not say what to do").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_error_is_explained_that_there_is_not() {
    let chapter = chapter();
    let known: Vec<_> =
        messages(&read(ERRORS)).into_iter().map(|(variant, _)| format!("### `{variant}`")).collect();
    for line in chapter.text.lines().filter(|line| line.starts_with("### `")) {
        assert!(known.iter().any(|heading| heading == line), "{line}: there is no such error");
    }
}

/// What the command line says by itself, not through the SDK.
#[test]
fn what_the_command_line_says_is_said_there() {
    let own = ["launch", "trust", "verbs/doctor", "verbs/plan", "verbs/status", "verbs/take_over"]
        .map(|name| format!("cli/src/{name}.rs"));
    let sources: String = own
        .iter()
        .map(String::as_str)
        .chain(["engine/src/observe/history.rs"])
        .map(read)
        .collect::<Vec<_>>()
        .concat()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let chapter = chapter();
    let section = chapter.section("## From the command line itself").expect("there is no such section");
    let quotes = quotes(section);
    assert!(quotes.len() > 3);
    for quote in quotes {
        for part in quote.split('…') {
            assert!(sources.contains(part.trim()), "the command line does not say: {part}");
        }
    }
}

/// Tables of the messages of the layers below, between two comments, made from the sources.
#[test]
fn messages_about_state_are_those_of_the_sources() {
    let chapter = chapter();
    let mut text = chapter.text.clone();
    let mut tables = 0;
    for (begin, _) in chapter.text.rmatch_indices("<!-- messages: ") {
        let line = chapter.text[begin..].lines().next().unwrap();
        let path =
            line.strip_prefix("<!-- messages: ").unwrap().strip_suffix(" -->").expect("a comment that ends");
        let from = begin + line.len();
        let to = from + chapter.text[from..].find("<!-- end -->").expect("a table that ends");
        text.replace_range(from..to, &table(&read(path)));
        tables += 1;
    }
    assert!(tables >= 3);
    if std::env::var_os(WRITE).is_some() {
        write(CHAPTER, &text);
    } else {
        assert!(text == chapter.text, "the tables of {CHAPTER} are old: {WRITE}=1 writes them anew");
    }
}

/// A message says what is wrong, then what to do.
fn table(source: &str) -> String {
    let mut table = "\n\n| message | what to do |\n| --- | --- |\n".to_owned();
    for (_, message) in
        messages(source).iter().filter(|(_, message)| message.chars().any(|c| c.is_alphabetic()))
    {
        let message = message.replace("….…: ", "*field*: ");
        let (what, todo) = message.split_once("; ").unwrap_or((&message, ""));
        writeln!(table, "| {} | {} |", what.replace('|', "\\|"), todo.replace('|', "\\|")).unwrap();
    }
    table + "\n"
}
