//! Every link leads somewhere, the contents name every page, and files that are named are there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

use book::Page;
use book::chapters;
use book::pages;
use book::read;
use book::root;

/// What a link from `page` leads to: a path from the root, and an anchor.
fn resolve(page: &Page, target: &str) -> (String, Option<String>) {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(p, a)| (p, Some(a.to_owned())));
    if path.is_empty() {
        return (page.path.clone(), anchor);
    }
    let mut parts: Vec<&str> = page.path.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    (parts.join("/"), anchor)
}

fn is_elsewhere(target: &str) -> bool {
    target.starts_with("https://")
}

#[test]
fn every_link_and_anchor_resolves() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in &pages {
        for (line, target) in page.links() {
            if is_elsewhere(&target) {
                continue;
            }
            seen += 1;
            let (path, anchor) = resolve(page, &target);
            let there = root().join(&path).exists();
            let anchored = anchor.as_ref().is_none_or(|anchor| {
                pages.iter().any(|other| other.path == path && other.anchors().contains(anchor))
            });
            if !there || !anchored {
                wrong.push(format!("{}:{line}: {target}", page.path));
            }
        }
    }
    assert!(seen > 30, "only {seen} links were found");
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

/// The book is built from its folder alone: a link out of it would be dead there.
#[test]
fn links_of_the_book_stay_in_it() {
    let leads_out = |page: &Page, target: &str| !resolve(page, target).0.starts_with("docs/");
    for page in chapters() {
        for (line, target) in page.links().into_iter().filter(|(_, target)| !is_elsewhere(target)) {
            assert!(!leads_out(&page, &target), "{}:{line}: {target} leads out of the book", page.path);
        }
    }
}

#[test]
fn the_contents_name_every_page_once() {
    let pages = chapters();
    let contents = pages.iter().find(|page| page.path == "docs/SUMMARY.md").expect("there is no SUMMARY.md");
    let named: Vec<_> = contents.links().iter().map(|(_, target)| resolve(contents, target).0).collect();
    let there: BTreeSet<_> = pages.iter().map(|p| p.path.clone()).filter(|p| *p != contents.path).collect();
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), there);
    assert_eq!(named.len(), there.len(), "a page is named twice: {named:?}");
}

/// `engine/src/transition/swap.rs` in the prose is a file, or a folder, of the repository.
#[test]
fn files_that_are_named_are_there() {
    let folders: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("{}/", entry.file_name().to_string_lossy()))
        .filter(|name| name != "target/" && !name.starts_with('.'))
        .collect();
    let mut seen = 0;
    for page in pages() {
        for (line, span) in page.spans() {
            let path = span.split("::").next().unwrap_or_default();
            let is_path = folders.iter().any(|folder| path.starts_with(folder))
                && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path {
                seen += 1;
                assert!(root().join(path).exists(), "{}:{line}: there is no {path}", page.path);
            }
        }
    }
    assert!(seen > 10, "only {seen} names of files were found");
}

/// A picture or a transcript that no page shows is left over.
#[test]
fn every_picture_and_transcript_is_shown() {
    let text: String = chapters().into_iter().map(|page| page.text).collect();
    for folder in ["docs/images", "docs/bench", "docs/transcripts"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let path = Path::new(folder).join(&name);
            // What the plots are drawn from.
            if path.ends_with("bench/bench.json") {
                continue;
            }
            let inside = path.strip_prefix("docs").unwrap().display();
            let shown = [format!("from: {}", path.display()), format!("]({inside})")];
            assert!(shown.iter().any(|s| text.contains(s)), "no page shows {}", path.display());
        }
    }
}

/// Each transcript is replayed by the lab's suite: one that is not would not be checked.
#[test]
fn every_transcript_is_replayed() {
    let suite = read("tests/e2e/tests/transcripts.rs");
    for entry in std::fs::read_dir(root().join("docs/transcripts")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".txt").expect("a transcript is a .txt");
        assert!(suite.contains(&format!("\"{stem}\"")), "no test replays {name}");
    }
}
