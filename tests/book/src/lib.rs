//! What the tests of the book share: the pages, their headings, links and blocks of code, and the project's sources as
//! text.
//!
//! A block of code in a page has a line before it that says where it is from:
//!
//! ```text
//! <!-- from: examples/porting/policy/src/bpf/steady.bpf.c#task -->
//! ```
//!
//! The path is from the repository's root. Behind `#` stands a region of the file, between the lines that have
//! `ANCHOR: task` and `ANCHOR_END: task` (as mdBook names them); without it the whole file is meant. So a page reads the
//! same everywhere, also where nothing builds the book, and what it shows is what is compiled, or what was printed.
//! `<!-- sketch -->` marks the few blocks that are no code of anything.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod errors;

use std::path::Path;
use std::path::PathBuf;

/// Set: blocks that differ from what they are from are written anew instead of being complained about.
pub const WRITE: &str = "SCX_UPGRADE_WRITE_BOOK";

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    let whole = root().join(path);
    std::fs::read_to_string(&whole).unwrap_or_else(|e| panic!("cannot read {}: {e}", whole.display()))
}

/// Write a file of the repository anew. It is put in place whole: another test may read it at the moment.
pub fn write(path: &str, text: &str) {
    let whole = root().join(path);
    let beside = whole.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, &whole).unwrap();
}

/// A Markdown file.
#[derive(Debug)]
pub struct Page {
    /// Its path from the root.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// A block of code.
#[derive(Debug)]
pub struct Block {
    /// What the fence says it is: `c`, `console`.
    pub language: String,
    /// The directive before it, without the brackets: `from: PATH`, `sketch`.
    pub directive: Option<String>,
    /// Its lines.
    pub body: String,
    /// Bytes of the body in the page.
    pub range: std::ops::Range<usize>,
    /// The line of its fence, from 1.
    pub line: usize,
}

/// All Markdown files of the repository, the book's and others.
pub fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(found.len() > 5, "only {} Markdown files were found", found.len());
    found.into_iter().map(|path| Page { text: read(&path), path }).collect()
}

/// The book's own pages.
pub fn chapters() -> Vec<Page> {
    pages().into_iter().filter(|page| page.path.starts_with("docs/")).collect()
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Not what is built, nor what is hidden.
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else if name.ends_with(".md") {
            found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

impl Page {
    /// The lines outside of blocks of code, with their numbers.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(i, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((i + 1, line))
        })
    }

    /// What `#...` in a link to this page may be.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let Some(heading) = line.strip_prefix('#').map(|l| l.trim_start_matches('#')) else { continue };
            if let Some(heading) = heading.strip_prefix(' ') {
                let slug = slug(heading);
                let before = anchors.iter().filter(|a| **a == slug).count();
                anchors.push(if before == 0 { slug } else { format!("{slug}-{before}") });
            }
        }
        anchors
    }

    /// The targets of links and pictures, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (line, text) in self.prose() {
            let text = without_code(text);
            for (at, _) in text.match_indices("](") {
                let target = &text[at + 2..];
                let end = target.find(')').unwrap_or(target.len());
                links.push((line, target[..end].to_owned()));
            }
        }
        links
    }

    /// What stands in `code` marks in the prose, with its line.
    pub fn spans(&self) -> Vec<(usize, &str)> {
        let mut spans = Vec::new();
        for (line, text) in self.prose() {
            spans.extend(text.split('`').skip(1).step_by(2).map(|span| (line, span)));
        }
        spans
    }

    /// The blocks of code.
    pub fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut at, mut directive) = (Vec::new(), 0, None);
        let mut open: Option<Block> = None;
        for (i, line) in self.text.split_inclusive('\n').enumerate() {
            let fence = line.trim_end().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    let begin = at + line.len();
                    open = Some(Block {
                        language: language.to_owned(),
                        directive: directive.take(),
                        body: String::new(),
                        range: begin..begin,
                        line: i + 1,
                    });
                }
                (Some(block), Some(_)) => {
                    block.range.end = at;
                    blocks.extend(open.take());
                }
                (Some(block), None) => block.body += line,
                (None, None) => {
                    let comment = line.trim().strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->"));
                    if comment.is_some() || !line.trim().is_empty() {
                        directive = comment.map(str::to_owned);
                    }
                }
            }
            at += line.len();
        }
        assert!(open.is_none(), "{}: a block of code does not end", self.path);
        blocks
    }

    /// The text below a heading that is exactly this, down to the next one of the same level or above.
    pub fn section(&self, heading: &str) -> Option<&str> {
        let level = heading.chars().take_while(|c| *c == '#').count();
        let begin = self.text.find(&format!("\n{heading}\n"))? + heading.len() + 2;
        let rest = &self.text[begin..];
        let ends = (1..=level).filter_map(|l| rest.find(&format!("\n{} ", "#".repeat(l))));
        Some(&rest[..ends.min().unwrap_or(rest.len())])
    }
}

/// A line without what is in `code` marks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// What a `from:` directive means: a file, or a region of it, without the lines that mark regions and without what all
/// lines are indented by. A region of a transcript is a command with what it printed: `life.txt#scx-upgrade status`, and
/// `(2)` behind it for the second time that it is given.
///
/// # Errors
/// There is no such file or region.
pub fn source(what: &str) -> Result<String, String> {
    let (path, region) = what.split_once('#').map_or((what, None), |(path, region)| (path, Some(region)));
    let text = std::fs::read_to_string(root().join(path)).map_err(|e| format!("{path}: {e}"))?;
    match region {
        Some(command) if path.ends_with(".txt") => commands(&text, command),
        _ => lines(&text, region),
    }
    .ok_or_else(|| format!("{path} has no region {}", region.unwrap_or_default()))
}

fn lines(text: &str, region: Option<&str>) -> Option<String> {
    let mut lines = Vec::new();
    let (mut inside, mut ended) = (region.is_none(), region.is_none());
    for line in text.lines() {
        let name = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.split(['*', ' ']).next());
        if let Some(name) = name("ANCHOR: ") {
            inside |= name == region;
        } else if let Some(name) = name("ANCHOR_END: ") {
            if name == region {
                (inside, ended) = (false, true);
            }
        } else if inside {
            lines.push(line);
        }
    }
    let indents = lines.iter().filter(|l| !l.is_empty()).map(|l| l.len() - l.trim_start().len());
    let indent = indents.min().unwrap_or(0);
    ended.then(|| lines.iter().map(|l| format!("{}\n", l.get(indent..).unwrap_or_default())).collect())
}

fn commands(text: &str, command: &str) -> Option<String> {
    let (command, time) = match command.strip_suffix(')').and_then(|c| c.rsplit_once(" (")) {
        Some((command, time)) => (command, time.parse().ok()?),
        None => (command, 1),
    };
    let typed =
        |line: &str| ["# ", "$ "].iter().find_map(|prompt| line.strip_prefix(prompt).map(str::to_owned));
    let (mut out, mut seen, mut inside) = (String::new(), 0, false);
    for line in text.lines() {
        if let Some(typed) = typed(line) {
            seen += usize::from(typed == command);
            // What is asked about a command belongs to it.
            inside = seen == time && (typed == command || (inside && typed == "echo $?"));
        }
        if inside {
            out += &format!("{line}\n");
        }
    }
    (!out.is_empty()).then_some(out)
}
