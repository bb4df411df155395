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

/// A row of a table below this heading, that is not the table's head, as its cells.
fn rows<'a>(page: &'a Page, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.section(heading).unwrap_or_else(|| panic!("there is no {heading}"));
    let rows = section.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| ---"));
    rows.skip(1).map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn every_promise_has_a_test() {
    let specification = specification();
    let promises = rows(&specification, "## Promises");
    let never = rows(&specification, "## What is never lost, and what may be");
    assert!(promises.len() > 30 && never.len() > 4, "{} and {} promises", promises.len(), never.len());
    for row in [promises, never].concat() {
        let tests: Vec<_> = row.last().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() && tests.iter().all(|test| is_test(test)), "no test: {row:?}");
    }
}

/// A figure that no test enforces is one that the file it is quoted from has.
#[test]
fn figures_are_those_of_the_files_that_have_them() {
    let specification = specification();
    let mut seen = 0;
    for row in rows(&specification, "## Measured, not enforced") {
        let [what, figures, from] = row[..] else { panic!("{row:?} has not three cells") };
        let file = match from.split(';').next() {
            Some("docs/cost.md") => "docs/cost.md",
            Some("docs/benchmarks.md") => "docs/benchmarks.md",
            _ => continue,
        };
        let text = read(file);
        for figure in figures.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|f| !f.is_empty()) {
            assert!(text.contains(figure), "{what}: {file} does not have {figure}");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} figures were found");
}
