//! The template: what it makes of each kind is in `examples/generated`, where it is built, checked by clippy, run and swapped
//! in with everything else. `SCX_UPGRADE_WRITE_BOOK=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

const FILES: [&str; 6] =
    ["Cargo.toml", "build.rs", "src/main.rs", "src/bpf/policy.bpf.c", "README.md", ".gitignore"];
const KINDS: [&str; 3] = ["fair", "llc", "cgroup"];

/// What `cargo generate` makes of a file: the same engine, with the same variables.
fn render(text: &str, kind: &str, sdk: &str) -> String {
    let parser = liquid::ParserBuilder::with_stdlib().build().unwrap();
    let (name, module) = (format!("generated-{kind}"), format!("generated_{kind}"));
    let variables = liquid::object!({
        "project-name": name,
        "crate_name": module,
        "kind": kind,
        "sdk": sdk,
    });
    parser.parse(text).unwrap().render(&variables).unwrap()
}

#[test]
fn every_variant_is_what_the_template_makes() {
    for kind in KINDS {
        for file in FILES {
            let text = render(&book::read(&format!("examples/template/{file}")), kind, "../../..");
            let path = format!("examples/generated/{kind}/{file}");
            let found = std::fs::read_to_string(book::root().join(&path)).unwrap_or_default();
            if found != text && std::env::var_os(book::WRITE).is_some() {
                let folder = book::root().join(&path);
                std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
                book::write(&path, &text);
            } else {
                assert_eq!(
                    found,
                    text,
                    "{path} is not what the template makes: {}=1 writes it anew",
                    book::WRITE
                );
            }
        }
    }
}

#[test]
fn the_template_has_no_other_files() {
    let mut found = Vec::new();
    let mut folders = vec![book::root().join("examples/template")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    let root = book::root().join("examples/template");
    let mut found: Vec<_> = found.iter().map(|p| p.strip_prefix(&root).unwrap().to_owned()).collect();
    found.sort();
    let mut known: Vec<_> = FILES.iter().map(|f| Path::new(f).to_owned()).collect();
    known.push("cargo-generate.toml".into());
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn the_template_asks_for_the_kinds_that_are_there() {
    let text = book::read("examples/template/cargo-generate.toml");
    let choices = KINDS.map(|kind| format!("\"{kind}\"")).join(", ");
    assert!(text.contains(&format!("choices = [{choices}]")));
}

#[test]
fn a_policy_from_the_template_is_short() {
    for kind in KINDS {
        let lines = |file: &str| book::read(&format!("examples/generated/{kind}/{file}")).lines().count();
        assert!(lines("src/main.rs") <= 60, "{kind}: {} lines of Rust", lines("src/main.rs"));
        assert!(
            lines("src/bpf/policy.bpf.c") <= 80,
            "{kind}: {} lines of BPF",
            lines("src/bpf/policy.bpf.c")
        );
    }
}

#[test]
fn a_git_repository_can_be_named_too() {
    let text = render(&book::read("examples/template/Cargo.toml"), "fair", "https://example.org/scx-upgrade");
    assert!(text.contains("scx-upgrade-sdk = { git = \"https://example.org/scx-upgrade\" }"), "{text}");
}
