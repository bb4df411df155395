//! The code in the book is code that is compiled, and what commands print is what they printed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use book::Page;
use book::WRITE;
use book::pages;
use book::read;
use book::source;
use book::write;

/// Languages whose blocks say where they are from.
const CODE: [&str; 3] = ["c", "rust", "toml"];

/// Folders of which everything is compiled by the workspace's build.
fn members() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    // `schedulers/*` is every crate of that folder.
    let folders = members.split('"').skip(1).step_by(2).map(|member| member.trim_end_matches("/*"));
    folders.map(|folder| format!("{folder}/")).collect()
}

/// The page with its blocks as they must be, and what is wrong with them now.
fn brought_up_to_date(page: &Page) -> (String, Vec<String>) {
    let (mut text, mut wrong) = (page.text.clone(), Vec::new());
    for block in page.blocks().iter().rev() {
        let Some(from) = block.directive.as_ref().and_then(|d| d.strip_prefix("from: ")) else { continue };
        match source(from) {
            Ok(is) if is == block.body => {}
            Ok(is) => {
                wrong.push(format!("{}:{}: is not what {from} has", page.path, block.line));
                text.replace_range(block.range.clone(), &is);
            }
            Err(why) => wrong.push(format!("{}:{}: {why}", page.path, block.line)),
        }
    }
    (text, wrong)
}

#[test]
fn blocks_are_what_their_files_have() {
    let mut wrong = Vec::new();
    for page in pages() {
        let (text, differences) = brought_up_to_date(&page);
        if std::env::var_os(WRITE).is_some() {
            if text != page.text {
                write(&page.path, &text);
            }
        } else {
            wrong.extend(differences);
        }
    }
    assert!(wrong.is_empty(), "{}\n{WRITE}=1 writes them anew", wrong.join("\n"));
}

#[test]
fn blocks_of_code_say_where_they_are_from() {
    let members = members();
    let mut compiled = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| CODE.contains(&block.language.as_str())) {
            let place = format!("{}:{}", page.path, block.line);
            let directive = block.directive.as_deref().unwrap_or_else(|| panic!("{place}: from where?"));
            if directive == "sketch" {
                continue;
            }
            let from = directive.strip_prefix("from: ").unwrap_or_else(|| panic!("{place}: {directive}?"));
            let built = members.iter().any(|member| from.starts_with(member));
            assert!(built, "{place}: {from} is in no member of the workspace, so nothing compiles it");
            compiled += 1;
        }
    }
    assert!(compiled > 20, "only {compiled} blocks are compiled");
}

/// A `scx-upgrade VERB` in a block of commands is a verb that there is.
#[test]
fn commands_have_verbs_that_there_are() {
    let args = read("cli/src/args.rs");
    let verbs = args.split_once("pub enum Verb {").unwrap().1.split_once("\n}\n").unwrap().0.to_lowercase();
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks() {
            let commands = block.body.lines().filter_map(|l| l.strip_prefix("# ").or(l.strip_prefix("$ ")));
            for command in commands.filter_map(|c| c.strip_prefix("scx-upgrade ")) {
                let verb = command.split_whitespace().find(|word| !word.starts_with('-')).unwrap_or_default();
                let there = ["(", " {", ","].iter().any(|next| verbs.contains(&format!("    {verb}{next}")));
                assert!(there, "{}:{}: {command}", page.path, block.line);
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
}

/// The dictionary in the chapter on state is the one that swaps go by.
#[test]
fn well_known_names_are_listed() {
    let text = read("docs/state.md");
    for known in state_migrate::well_known::COLUMNS {
        let row = format!("| `{}` | {} | {} | {} |\n", known.name, known.unit, known.ty, known.meaning);
        assert!(text.contains(&row), "docs/state.md has no row {row}");
    }
    let rows = text.split("## Well-known names").nth(1).unwrap().lines().filter(|l| l.starts_with("| `"));
    assert_eq!(rows.count(), state_migrate::well_known::COLUMNS.len());
}

/// The chapter for operators has every verb, and every option of theirs.
#[test]
fn every_verb_is_in_the_chapter_for_operators() {
    let (args, chapter) = (read("cli/src/args.rs"), read("docs/operator.md"));
    // What no person types is in no chapter.
    let (args, hidden) = args.split_once("pub struct TakeOverArgs {").unwrap();
    let args = format!("{args}{}", hidden.split_once("\n}\n").unwrap().1);
    let verbs = args.split_once("pub enum Verb {").unwrap().1.split_once("\n}\n").unwrap().0;
    let names = verbs.lines().filter_map(|l| l.strip_prefix("    "));
    let names = names.filter(|l| l.starts_with(|c: char| c.is_ascii_uppercase()));
    let name =
        |l: &str| l.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_lowercase();
    let mut seen = 0;
    for verb in names.map(name).filter(|verb| verb != "takeover") {
        let there = ["`", " "].iter().any(|end| chapter.contains(&format!("| `{verb}{end}")));
        assert!(there, "docs/operator.md has no row for {verb}");
        seen += 1;
    }
    assert!(seen > 6, "only {seen} verbs were found");
    for (at, _) in args.match_indices("#[arg(long") {
        let field = args[at..].lines().nth(1).unwrap().trim().trim_start_matches("pub ");
        let option = format!("--{}", field.split(':').next().unwrap().replace('_', "-"));
        assert!(chapter.contains(&option), "docs/operator.md does not have {option}");
    }
}
