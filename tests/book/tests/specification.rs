//! Every promise of SPECIFICATION.md names a test, and every test that it names is there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use book::Page;
use book::read;
use book::root;

const SPECIFICATION: &str = "SPECIFICATION.md";

fn specification() -> Page {
    Page { path: SPECIFICATION.to_owned(), text: read(SPECIFICATION) }
}

/// `path.rs::name`
fn is_test(span: &str) -> bool {
    span.contains(".rs::")
}

#[test]
fn the_tests_that_it_names_are_there() {
    let specification = specification();
    let mut seen = 0;
    for (line, span) in specification.spans().into_iter().filter(|(_, span)| is_test(span)) {
        let (path, name) = span.split_once("::").unwrap();
        assert!(root().join(path).is_file(), "line {line}: there is no {path}");
        let text = read(path);
        let at =
            text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("line {line}: {path} has no {name}"));
        // The attribute stands before it, perhaps with others.
        let before: Vec<_> = text[..at].lines().rev().take(4).collect();
        assert!(before.iter().any(|l| l.trim() == "#[test]"), "line {line}: {name} of {path} is no test");
        seen += 1;
    }
    assert!(seen > 20, "only {seen} tests are named");
}

/// A row of a table below this heading is a promise.
#[test]
fn every_promise_has_a_test() {
    let specification = specification();
    let promises = specification.section("## Promises").expect("there are no promises");
    let rows = promises.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| ---"));
    let mut seen = 0;
    for row in rows.filter(|row| !row.starts_with("| promise |")) {
        assert!(row.split('`').skip(1).step_by(2).any(is_test), "no test: {row}");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} promises were found");
}
