//! Imports between the modules of a crate go one way: no module uses, by way of others, itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use book::root;

/// A module, as `a::b`, and its text without tests and comments.
type Modules = BTreeMap<String, String>;

const CRATES: [&str; 7] =
    ["cli/src", "engine/src", "sdk/src", "sdk/build/src", "state-migrate/src", "tests/lab/src", "xtask/src"];

fn read(folder: &Path, name: &str, modules: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let inside = [name, &stem].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::");
        if path.is_dir() {
            read(&path, &inside, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "tests" {
            let own = match stem.as_str() {
                "mod" => name.to_owned(),
                "lib" | "main" => continue,
                _ => inside,
            };
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            modules.insert(own, code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The module that a path begins with, such as `a::b` of `a::b::Type::new`.
fn module<'m>(modules: &'m Modules, path: &str) -> Option<&'m str> {
    let parts: Vec<_> = path.split("::").collect();
    let prefixes = (1..=parts.len()).rev().map(|length| parts[..length].join("::"));
    let found = prefixes.into_iter().find_map(|prefix| modules.get_key_value(&prefix));
    found.map(|(name, _)| name.as_str())
}

/// The paths behind `start`, such as `crate::`.
fn paths<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(start).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        rest[..end].trim_end_matches(':')
    })
}

fn arrows(modules: &Modules) -> BTreeMap<&str, BTreeSet<&str>> {
    let of = |(name, text): (&'_ String, &'_ String)| {
        let own = format!("{name}::");
        let all =
            paths(text, "crate::").map(str::to_owned).chain(paths(text, "self::").map(|p| own.clone() + p));
        all.filter_map(|path| module(modules, &path)).filter(|other| other != name).collect()
    };
    modules.iter().map(|entry| (entry.0.as_str(), of(entry))).collect()
}

/// Takes away the modules that use none that is left, until nothing changes: what stays is in a cycle, or uses one.
fn in_cycles(modules: &Modules) -> BTreeSet<&str> {
    let arrows = arrows(modules);
    let mut left: BTreeSet<&str> = arrows.keys().copied().collect();
    loop {
        let free: Vec<_> = left.iter().copied().filter(|name| arrows[name].is_disjoint(&left)).collect();
        if free.is_empty() {
            return left;
        }
        left.retain(|name| !free.contains(name));
    }
}

#[test]
fn no_module_uses_one_above_it() {
    let mut seen = 0;
    for folder in CRATES {
        let mut modules = Modules::new();
        read(&root().join(folder), "", &mut modules);
        seen += modules.len();
        let cycles = in_cycles(&modules);
        assert!(cycles.is_empty(), "{folder}: in a cycle of imports, or above one: {cycles:?}");
    }
    assert!(seen > 150, "only {seen} modules were found");
}

#[test]
fn a_cycle_is_found() {
    let text = |text: &str| text.to_owned();
    let modules = Modules::from([
        (text("a"), text("use crate::b::B;")),
        (text("b"), text("fn f() { crate::c::d::g() }")),
        (text("c::d"), text("use crate::a;")),
        (text("e"), text("use crate::f;")),
        (text("f"), text("")),
    ]);
    assert_eq!(in_cycles(&modules), BTreeSet::from(["a", "b", "c::d"]));
}
