//! The figures in the README and in the book.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::{RESULT, plot, result, result::Bench, table};

/// What a page shows between its marks.
type Shown = fn(&Bench) -> String;
/// The pages that show figures, from the workspace's folder.
const PAGES: [(&str, Shown); 3] = [
    ("README.md", table::summary),
    ("docs/benchmarks.md", table::render),
    ("SPECIFICATION.md", table::specification),
];
/// The folder of the book that has the plots, and what they are drawn from.
const FOLDER: &str = "docs/bench";
/// What the tables stand between.
const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// Writes tables, plots and the figures themselves.
///
/// # Errors
/// When a page has no place for the table, or cannot be written.
pub fn write(bench: &Bench, root: &Path) -> Result<()> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    result::write(bench, &folder.join(RESULT))?;
    for (file, text) in files(bench, root)? {
        let file = root.join(file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Each file that shows the figures, from the workspace's folder, as it must be.
fn files(bench: &Bench, root: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (page, shown) in PAGES {
        let text = fs::read_to_string(root.join(page)).with_context(|| format!("cannot read {page}"))?;
        let text = between(&text, &shown(bench)).with_context(|| page.to_owned())?;
        files.push((page.to_owned(), text));
    }
    files.extend(plot::all(bench)?.into_iter().map(|plot| (format!("{FOLDER}/{}", plot.name), plot.svg)));
    Ok(files)
}

/// The page with this between its marks.
fn between(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("has no {}", BEGIN.trim_end()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("has no {END} behind the other mark"))?;
    ensure!(!after.contains(BEGIN), "has two places for the table");
    Ok([before, BEGIN, table, END, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}\nafter\n");
        assert_eq!(between(&page, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}\nafter\n"));
        for page in ["none", BEGIN, END, &format!("{END}{BEGIN}"), &format!("{BEGIN}{END}{BEGIN}{END}")] {
            assert!(between(page, "").is_err(), "{page}");
        }
    }

    /// What README and book show is what was measured last.
    #[test]
    fn pages_and_plots_are_those_of_the_figures() {
        let root = cargo::root();
        let bench: Bench = result::read(&root.join(FOLDER).join(RESULT)).unwrap();
        assert_eq!(bench.failures(), Vec::<String>::new());
        for (file, text) in files(&bench, root).unwrap() {
            let is = fs::read_to_string(root.join(&file)).unwrap();
            assert!(
                is == text,
                "{file} is not what {FOLDER}/{RESULT} gives: `cargo xtask bench --from {FOLDER}/{RESULT} --readme` \
                 writes it anew"
            );
        }
    }
}
