//! The messages of an error type, read from its source: `thiserror` leaves nothing to ask at run time.

use std::collections::BTreeMap;

/// What stands in a message for what differs from case to case.
pub const BLANK: &str = "…";

/// Variants and their messages. A variant that is transparent has an empty one.
pub fn messages(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find("#[error(") {
        rest = &rest[at + "#[error(".len()..];
        let message = if rest.starts_with("transparent") {
            String::new()
        } else {
            let begin = rest.find('"').expect("an #[error] without a literal") + 1;
            let (text, after) = literal(&rest[begin..]);
            rest = after;
            text
        };
        found.push((variant(rest), message));
    }
    found
}

/// The name that comes next behind attributes and comments.
fn variant(after: &str) -> String {
    let is_one = |line: &&str| {
        line.starts_with("    ") && line.trim_start().starts_with(|c: char| c.is_ascii_uppercase())
    };
    let line = after.lines().skip(1).find(is_one).expect("an #[error] of nothing");
    line.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric()).collect()
}

/// A string literal behind its opening quote, with [`BLANK`]s for what is put in; and what follows it.
fn literal(text: &str) -> (String, &str) {
    let (mut out, mut chars) = (String::new(), text.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &text[at + 1..]),
            '\\' => match chars.next() {
                // The line goes on, without what it is indented by.
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n')) => out.push(' '),
                Some((_, other)) => out.push(other),
                None => break,
            },
            '{' => {
                while chars.next().is_some_and(|(_, c)| c != '}') {}
                out += BLANK;
            }
            _ => out.push(c),
        }
    }
    panic!("a literal that does not end");
}

/// The exit code of each variant that `Error::exit` names; all others have 1. `exits`: the source of `Exit`, which has the numbers.
pub fn exit_codes(source: &str, exits: &str) -> BTreeMap<String, u8> {
    let body = source.split_once("pub fn exit(").expect("there is no exit()").1;
    let body = body.split_once("match self {").expect("exit() has no match").1;
    let body = body.split_once("_ => Exit::Failed").expect("exit() has no rest").0;
    let number = |name: &str| {
        let (_, after) = exits.split_once(&format!("\n    {name} = ")).expect("an exit without a number");
        after.split_once(',').and_then(|(number, _)| number.parse().ok()).expect("an exit without a number")
    };
    let mut codes = BTreeMap::new();
    let mut patterns = "";
    for (i, part) in body.split("=>").enumerate() {
        if i > 0 {
            let exit = part.trim_start().strip_prefix("Exit::").expect("an arm without an exit");
            let code = number(exit.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default());
            let names = patterns.split("Error::").skip(1);
            codes
                .extend(names.map(|n| (n.chars().take_while(|c| c.is_ascii_alphanumeric()).collect(), code)));
        }
        patterns = part;
    }
    codes
}
