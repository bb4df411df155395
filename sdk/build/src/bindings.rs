//! Writes a Rust module for a policy's BPF half: what it has, with the types that its BTF says.

use std::fmt::Write as _;

use anyhow::Context;
use anyhow::Result;
use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSymbol as _;
use state_migrate::Btf;
use state_migrate::Kind;

/// The structs that are state, what the Rust ones are called, and their scope.
const STATE: [(&str, &str, &str); 4] = [
    ("policy_task", "Task", "Task"),
    ("policy_cgroup", "Cgroup", "Cgroup"),
    ("policy_cpu", "Cpu", "Cpu"),
    ("policy_global", "Global", "Global"),
];

/// A global variable of the object, as far as it concerns users: not weak, and not of the headers.
struct Global<'a> {
    name: &'a str,
    ty: String,
    bytes: Vec<u8>,
    constant: bool,
}

/// The module's text. `elf` is the object, which the crate has at `$OUT_DIR/{name}.bpf.o`.
pub(crate) fn module(name: &str, elf: &[u8]) -> Result<String> {
    let btf = state_migrate::object::btf_section(elf).context("the object has no BTF")?;
    let btf = Btf::parse(btf).context("the object's BTF cannot be read")?;
    let globals = globals(elf, &btf)?;
    let (settings, statistics): (Vec<_>, Vec<_>) = globals.iter().partition(|g| g.constant);

    let mut out = String::from("// Written by scx_upgrade_build from the BPF half's own type information.\n");
    write_settings(&mut out, &settings)?;
    let fields: Vec<_> = statistics.iter().map(|g| (g.name, g.ty.clone())).collect();
    write_fields(&mut out, "Stats", "The globals that the BPF half counts in.", &fields)?;
    writeln!(out, "impl ::scx_upgrade_sdk::typed::Statistics for Stats {{}}\n")?;
    for (of, rust, scope) in STATE {
        let Some(id) = btf.find(Kind::Struct, of) else { continue };
        let fields: Vec<_> =
            btf.members(id).filter_map(|m| Some((m.name, rust_type(&btf, m.type_id)?))).collect();
        write_fields(&mut out, rust, &format!("The columns of `struct {of}`."), &fields)?;
        writeln!(out, "impl ::scx_upgrade_sdk::typed::State for {rust} {{")?;
        writeln!(
            out,
            "    const SCOPE: ::scx_upgrade_sdk::Scope = ::scx_upgrade_sdk::Scope::{scope};\n}}\n"
        )?;
    }
    writeln!(out, "/// The policy, with these settings.")?;
    writeln!(out, "pub fn policy(config: &Config) -> ::scx_upgrade_sdk::Policy {{")?;
    writeln!(out, "    let mut policy = ::scx_upgrade_sdk::policy_object!({name:?}, POLICY_VERSION);")?;
    writeln!(out, "    ::scx_upgrade_sdk::typed::Settings::apply(config, &mut policy);\n    policy\n}}")?;
    Ok(out)
}

fn write_settings(out: &mut String, settings: &[&Global<'_>]) -> Result<()> {
    writeln!(out, "/// The settings of the BPF half. The default is what it was compiled with.")?;
    writeln!(
        out,
        "#[derive(Debug, Clone, Copy, PartialEq, Eq)]\n#[allow(missing_docs)]\npub struct Config {{"
    )?;
    for g in settings {
        writeln!(out, "    pub {}: {},", g.name, g.ty)?;
    }
    writeln!(out, "}}\n\nimpl Default for Config {{\n    fn default() -> Self {{\n        Config {{")?;
    for g in settings {
        writeln!(out, "            {}: {},", g.name, literal(&g.ty, &g.bytes))?;
    }
    writeln!(out, "        }}\n    }}\n}}\n\nimpl ::scx_upgrade_sdk::typed::Settings for Config {{")?;
    let unused = if settings.is_empty() { "_" } else { "" };
    writeln!(out, "    fn apply(&self, {unused}policy: &mut ::scx_upgrade_sdk::Policy) {{")?;
    for g in settings {
        writeln!(out, "        policy.set({:?}, &self.{});", g.name, g.name)?;
    }
    writeln!(out, "    }}\n}}\n")?;
    Ok(())
}

fn write_fields(out: &mut String, name: &str, doc: &str, fields: &[(&str, String)]) -> Result<()> {
    writeln!(out, "/// {doc}\n#[derive(Debug, Clone, Copy, PartialEq, Eq)]\n#[allow(missing_docs)]")?;
    writeln!(out, "pub struct {name} {{")?;
    for (field, ty) in fields {
        writeln!(out, "    pub {field}: {ty},")?;
    }
    writeln!(out, "}}\n\nimpl ::scx_upgrade_sdk::typed::Fields for {name} {{")?;
    let unused = if fields.is_empty() { "_" } else { "" };
    writeln!(out, "    fn read({unused}get: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Option<Self> {{")?;
    writeln!(out, "        Some({name} {{")?;
    for (field, _) in fields {
        writeln!(
            out,
            "            {field}: ::scx_upgrade_sdk::typed::Value::from_bytes(&get({field:?})?)?,"
        )?;
    }
    writeln!(out, "        }})\n    }}\n}}\n")?;
    Ok(())
}

fn globals<'a>(elf: &'a [u8], btf: &Btf<'a>) -> Result<Vec<Global<'a>>> {
    let file = object::File::parse(elf).context("the object is no ELF")?;
    let mut globals = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == object::SymbolKind::Data && s.is_global()) {
        let (Ok(name), Some(index)) = (symbol.name(), symbol.section_index()) else { continue };
        let section = file.section_by_index(index)?;
        let constant = match section.name()? {
            ".rodata" => true,
            ".bss" | ".data" => false,
            _ => continue,
        };
        if symbol.is_weak() || name.starts_with("scx_") || name.starts_with("scxu_") || name.starts_with('_')
        {
            continue;
        }
        let variable = btf.ids(Kind::Var).find(|id| btf.name(*id) == name);
        let ty = variable.and_then(|id| btf.referenced(id)).and_then(|ty| rust_type(btf, ty));
        let Some(ty) = ty else { continue };
        let (at, size) = (symbol.address() as usize, symbol.size() as usize);
        // .bss has no bytes in the file.
        let bytes = section.data()?.get(at..at + size).map_or_else(|| vec![0; size], <[u8]>::to_vec);
        globals.push(Global { name, ty, bytes, constant });
    }
    globals.sort_by_key(|g| g.name);
    Ok(globals)
}

/// What a type is called in Rust, if it is a number, a truth value or an array of such.
fn rust_type(btf: &Btf<'_>, mut id: u32) -> Option<String> {
    // Modifiers and typedefs say nothing. Not deeper than this: BTF may be a ring.
    for _ in 0..32 {
        match btf.kind(id)? {
            Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                id = btf.referenced(id)?;
            }
            Kind::Int => {
                let int = btf.int(id)?;
                let number = |signed| if signed { "i" } else { "u" };
                return Some(match btf.name(id) {
                    "_Bool" | "bool" => "bool".to_string(),
                    _ => format!("{}{}", number(int.signed), btf.size(id)? * 8),
                });
            }
            Kind::Enum | Kind::Enum64 => {
                let number = if btf.enum_signed(id) { "i" } else { "u" };
                return Some(format!("{number}{}", btf.size(id)? * 8));
            }
            Kind::Array => {
                let array = btf.array(id)?;
                return Some(format!("[{}; {}]", rust_type(btf, array.elem)?, array.len));
            }
            _ => return None,
        }
    }
    None
}

/// A value of a type that [`rust_type`] named, as Rust writes it.
fn literal(ty: &str, bytes: &[u8]) -> String {
    if let Some((elem, len)) = ty.strip_prefix('[').and_then(|t| t.strip_suffix(']')?.rsplit_once("; ")) {
        let len: usize = len.parse().unwrap_or(0);
        let parts = bytes.chunks((bytes.len() / len.max(1)).max(1)).map(|b| literal(elem, b));
        return format!("[{}]", parts.collect::<Vec<_>>().join(", "));
    }
    let mut raw = [0; 16];
    raw[..bytes.len()].copy_from_slice(bytes);
    let value = u128::from_le_bytes(raw);
    match ty {
        "bool" => (value != 0).to_string(),
        _ if ty.starts_with('i') => {
            let unused = 128 - 8 * bytes.len() as u32;
            ((value << unused).cast_signed() >> unused).to_string()
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn literals() {
        assert_eq!(literal("u64", &5u64.to_le_bytes()), "5");
        assert_eq!(literal("i32", &(-5i32).to_le_bytes()), "-5");
        assert_eq!(literal("bool", &[1]), "true");
        assert_eq!(literal("[u16; 3]", &[1, 0, 2, 0, 3, 0]), "[1, 2, 3]");
        assert_eq!(literal("[[u8; 2]; 2]", &[1, 2, 3, 4]), "[[1, 2], [3, 4]]");
    }
}
