//! No header is forgotten, and no name that a header defines clashes with a scheduler's own.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::HEADERS;

/// What every name begins with.
const PREFIXES: [&str; 4] = ["scxu_", "SCXU_", "SCX_UPGRADE_", "__SCX_UPGRADE_"];

/// Names without the prefix, and why each has none.
const OTHERS: [&str; 21] = [
    // The section that every BPF object has.
    "_license",
    // The state, which the policy defines.
    "policy_task",
    "policy_cgroup",
    "policy_cpu",
    "policy_global",
    // The policy's own, by names that the SDK looks for.
    "policy_ops",
    "policy_direct_init",
    "policy_direct_exit",
    "policy_conversions",
    "policy_timer",
    // Tags of a state's fields.
    "__policy_state",
    "__default",
    "__from",
    "__scale",
    "__saturate",
    "__unit",
    "__timestamp",
    "__momentary",
    "__convert",
    "__inverse",
    // A flavor of the kernel's own struct, for CO-RE.
    "task_group___weight",
];

/// One word of C: a name, a number, or a character of punctuation. A string is an empty one.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Other(char),
    /// `( … )`, `{ … }` or `[ … ]`.
    Group(char, Vec<Token>),
}

use Token::Group;
use Token::Name;
use Token::Other;

fn is(token: Option<&Token>, name: &str) -> bool {
    matches!(token, Some(Name(n)) if n == name)
}

fn tokens_of(text: &str) -> Vec<Token> {
    fn read(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Token> {
        let mut found = Vec::new();
        while let Some(c) = chars.next() {
            match c {
                ')' | '}' | ']' => break,
                '(' | '{' | '[' => found.push(Group(c, read(chars))),
                '"' => {
                    while let Some(c) = chars.next() {
                        match c {
                            '\\' => drop(chars.next()),
                            '"' => break,
                            _ => {}
                        }
                    }
                    found.push(Other('"'));
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let mut name = c.to_string();
                    while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    found.push(Name(name));
                }
                c if c.is_whitespace() => {}
                c => found.push(Other(c)),
            }
        }
        found
    }
    // What a macro joins is one name: `scxu_##op` is a name that begins with scxu_.
    read(&mut text.replace(" ## ", "").replace("##", "").chars().peekable())
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        out.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    out + rest
}

/// The names that a text defines: macros, types, constants, variables and functions.
fn defined(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let text = without_comments(text).replace("\\\n", " ");
    let mut code = String::new();
    for line in text.lines() {
        let Some(directive) = line.trim_start().strip_prefix('#') else {
            code.push_str(line);
            code.push('\n');
            continue;
        };
        let Some(definition) = directive.trim_start().strip_prefix("define") else { continue };
        let definition = definition.trim_start();
        let end = definition.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(definition.len());
        let (name, mut body) = definition.split_at(end);
        names.insert(name.to_owned());
        let mut parameters = Vec::new();
        if let Some((list, after)) = body.strip_prefix('(').and_then(|b| b.split_once(')')) {
            parameters = list.split(',').map(|p| p.trim().to_owned()).collect();
            body = after;
        }
        // What the macro defines where it is used, except by names that its user gives.
        let mut inner = BTreeSet::new();
        statements(&tokens_of(body), &mut inner);
        names.extend(inner.into_iter().filter(|n| !parameters.contains(n)));
    }
    statements(&tokens_of(&code), &mut names);
    names
}

/// The names that the statements outside of any block define.
fn statements(tokens: &[Token], names: &mut BTreeSet<String>) {
    let mut from = 0;
    for (i, token) in tokens.iter().enumerate() {
        let function = matches!(token, Group('{', _)) && i > from && matches!(tokens[i - 1], Group('(', _));
        if *token == Other(';') || function {
            statement(&tokens[from..i], function, names);
            from = i + 1;
        }
    }
}

fn statement(tokens: &[Token], function: bool, names: &mut BTreeSet<String>) {
    // A declaration of the kernel's, or of what is defined elsewhere.
    if is(tokens.first(), "extern") || is(tokens.first(), "_Static_assert") {
        return;
    }
    for pair in tokens.windows(3) {
        if let [Name(kind), Name(tag), Group('{', members)] = pair
            && ["struct", "union", "enum"].contains(&kind.as_str())
        {
            names.insert(tag.clone());
            if kind == "enum" {
                names.extend(members.split(|t| *t == Other(',')).filter_map(|m| match m.first() {
                    Some(Name(constant)) => Some(constant.clone()),
                    _ => None,
                }));
            }
        }
    }
    if function {
        let (Some(Group(_, args)), Some(Name(name))) = (tokens.last(), tokens.iter().rev().nth(1)) else {
            return;
        };
        let named_by_macro = name.starts_with("BPF_STRUCT_OPS") || name == "BPF_PROG";
        match args.first() {
            Some(Name(inner)) if named_by_macro => names.insert(inner.clone()),
            _ => names.insert(name.clone()),
        };
        return;
    }
    // A forward declaration of a type, or of a function.
    let calls = |t: &[Token]| matches!(t, [Name(n), Group('(', _)] if n != "SEC" && n != "__attribute__");
    if tokens.len() < 3 || (tokens.windows(2).any(calls) && !is(tokens.first(), "static")) {
        return;
    }
    // A variable's name is the last one before its attributes, its size and its value.
    let end = tokens.iter().position(|t| *t == Other('=')).unwrap_or(tokens.len());
    let end = tokens[..end].iter().position(|t| matches!(t, Name(n) if n == "SEC")).unwrap_or(end);
    let mut parts = tokens[..end].iter().rev().skip_while(|t| matches!(t, Group('[' | '(', _)));
    let Some(Name(name)) = parts.next() else { return };
    if name != "__attribute__" {
        names.insert(name.clone());
    }
}

fn clashes(text: &str) -> Vec<String> {
    let ours =
        |name: &String| PREFIXES.iter().any(|p| name.starts_with(p)) || OTHERS.contains(&name.as_str());
    defined(text).into_iter().filter(|name| !ours(name)).collect()
}

#[test]
fn every_name_that_a_header_defines_has_the_prefix() {
    let mut all = BTreeSet::new();
    for (header, text) in HEADERS {
        assert_eq!(clashes(text), [""; 0], "{header}");
        all.extend(defined(text));
    }
    // One of each kind, lest the search finds nothing.
    for name in [
        "SCXU_QUEUE_FIFO",
        "scxu_host",
        "scxu_dsq_group",
        "SCXU_STEP_COPY",
        "scxu_step_kind",
        "scxu_task_records",
        "scxu_sdk",
        "scxu_vtime_place",
        "scxu_nr_llcs",
        "scxu_timer_start",
        "policy_direct_init",
        "scxu_aging_mark",
        "scxu_sweep_what",
        "scxu_run_conversion",
    ] {
        assert!(all.contains(name), "{name} is not found");
    }
    let unused: Vec<_> = OTHERS.iter().filter(|n| !all.contains(**n) && !n.starts_with("policy_")).collect();
    assert!(unused.is_empty(), "no header defines {unused:?}");
}

#[test]
fn a_name_without_the_prefix_is_found() {
    for (text, name) in [
        ("static __always_inline u32 nr_llcs(void)\n{\n\treturn 1;\n}", "nr_llcs"),
        ("int idle_cpu(struct task_struct *p __arg_trusted)\n{\n\treturn 0;\n}", "idle_cpu"),
        ("void BPF_STRUCT_OPS(my_exit, struct scx_exit_info *ei)\n{\n}", "my_exit"),
        ("SEC(\"syscall\")\nint sweep_tasks(void *unused)\n{\n\treturn 0;\n}", "sweep_tasks"),
        ("#define average(a, b)\t((a) + (b)) / 2", "average"),
        (
            "#define SCXU_TWO(what)\t\\\n\tSEC(\"x\")\t\\\n\tint sweep_##what(void)\t\\\n\t{\t\\\n\t}",
            "sweep_what",
        ),
        ("#define SCXU_X(a)\tstatic u64 count;", "count"),
        ("struct timer {\n\tu64\tat;\n};", "timer"),
        ("enum scxu_kind {\n\tSCXU_A,\n\tOTHER = 3,\n};", "OTHER"),
        ("struct {\n\t__uint(type, BPF_MAP_TYPE_ARRAY);\n} timers SEC(\".maps\");", "timers"),
        ("static volatile u64 read_at SEC(\".data\");", "read_at"),
        ("u64 numbers[1 << 4] SEC(\".data\");", "numbers"),
        ("const struct scxu_a *const columns = NULL;", "columns"),
        ("static const struct scxu_a converter = {\n\t.load = 1,\n};", "converter"),
        ("__hidden struct scxu_b record SEC(\".data\");", "record"),
    ] {
        assert_eq!(clashes(text), [name], "{text}");
    }
    // Not what a header only uses: the kernel's functions, members, locals, comments, and what its user names.
    for text in [
        "extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym __weak;",
        "static __always_inline u64 scxu_a(void)\n{\n\tu64 local = 1;\n\tif (local) {\n\t}\n\treturn local;\n}",
        "struct scxu_c {\n\tu64\tmember;\n} __attribute__((aligned(8)));",
        "/* int gone(void) {} */\n#include <scx/common.bpf.h>",
        "#define SCXU_QUEUE(type, name)\tconst volatile type name SEC(\".rodata\")",
        "struct policy_task;",
    ] {
        assert_eq!(clashes(text), [""; 0], "{text}");
    }
}

#[test]
fn every_header_is_installed() {
    fn walk(dir: &Path, below: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }
    let mut found = BTreeSet::new();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/include/scx_upgrade");
    walk(Path::new(include), "", &mut found);
    let listed: BTreeSet<_> = HEADERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, found);
}
