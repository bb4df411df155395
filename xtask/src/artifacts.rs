//! Cargo's messages about what it built.

use std::path::PathBuf;

use serde::Deserialize;

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The name of the binary, test or library it comes from.
    pub name: String,
    /// What it comes from.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
}

/// What a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A binary.
    Binary,
    /// An integration test: a file in `tests/`.
    IntegrationTest,
    /// Something else, such as the tests inside a library or a binary.
    Other,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The program that a line of `--message-format=json` tells of, if it tells of one.
pub fn parse(line: &str) -> Option<Artifact> {
    let message: Message = serde_json::from_str(line).ok()?;
    let (target, path) = (message.target?, message.executable?);
    if message.reason != "compiler-artifact" {
        return None;
    }
    let is_test = message.profile.is_some_and(|profile| profile.test);
    let kind = match (target.kind.first().map(String::as_str), is_test) {
        (Some("bin"), false) => Kind::Binary,
        (Some("test"), true) => Kind::IntegrationTest,
        _ => Kind::Other,
    };
    Some(Artifact { name: target.name, kind, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"x","target":{{"kind":["{kind}"],"name":"swap"}},
               "profile":{{"opt_level":"3","test":{test}}},"executable":{executable},"fresh":true}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn programs_are_told_apart() {
        let kind = |kind, test| parse(&line(kind, test, r#""/t/swap-1f""#)).unwrap().kind;
        assert_eq!(kind("bin", false), Kind::Binary);
        assert_eq!(kind("bin", true), Kind::Other);
        assert_eq!(kind("test", true), Kind::IntegrationTest);
        assert_eq!(kind("lib", true), Kind::Other);
    }

    #[test]
    fn other_messages_are_passed_over() {
        for text in
            [&line("lib", false, "null"), r#"{"reason":"build-finished","success":true}"#, "not JSON", ""]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
