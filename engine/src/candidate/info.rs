//! What is in a policy's binary, read without running it and without a kernel.

use std::fmt::Write;
use std::path::Path;

use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSymbol as _;
use serde::Deserialize;
use serde::Serialize;
use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::Schema;

use crate::candidate::obstacles;
use crate::candidate::obstacles::Obstacle;
use crate::candidate::obstacles::Obstacles;
use crate::candidate::obstacles::Target;
use crate::candidate::policy::Policy;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi;
use crate::kernel::ops::Ops;
use crate::os::bounded_read;
use crate::os::bounded_read::MAX_BINARY;
use crate::os::identity::Binary;

/// The ops flags by their bits: enum scx_ops_flags, Linux v7.3 kernel/sched/ext/internal.h.
const FLAGS: [(u64, &str); 10] = [
    (1 << 0, "SCX_OPS_KEEP_BUILTIN_IDLE"),
    (1 << 1, "SCX_OPS_ENQ_LAST"),
    (1 << 2, "SCX_OPS_ENQ_EXITING"),
    (1 << 3, "SCX_OPS_SWITCH_PARTIAL"),
    (1 << 4, "SCX_OPS_ENQ_MIGRATION_DISABLED"),
    (1 << 5, "SCX_OPS_ALLOW_QUEUED_WAKEUP"),
    (1 << 6, "SCX_OPS_BUILTIN_IDLE_PER_NODE"),
    (1 << 7, "SCX_OPS_ALWAYS_ENQ_IMMED"),
    (1 << 8, "SCX_OPS_TID_TO_TASK"),
    (1 << 16, "SCX_OPS_HAS_CGROUP_WEIGHT"),
];
/// Elements of an array that are shown. A table may have thousands.
const SHOWN: usize = 16;
/// Modifiers and typedefs in a row that are looked through. BTF may be a ring.
const DEEPEST: u32 = 32;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name, from its `sched_ext_ops`.
    pub name: String,
    /// Its version; empty in a binary that does not say.
    pub version: String,
    /// The host's ABI that it was built for,
    pub abi: u32,
    /// and that of this program: it can be run where the two are the same.
    pub abi_here: u32,
    /// The file.
    pub binary: Option<Binary>,
    /// The ops that it defines.
    pub ops: Vec<String>,
    /// Those that may sleep, which the host refuses: not `init` and `exit`, which it never calls.
    pub sleepable: Vec<String>,
    /// The parts of it that have no effect in the host.
    pub obstacles: Vec<Obstacle>,
    /// The ops flags that it asks for.
    pub flags: Vec<String>,
    /// Its state.
    pub columns: Vec<Column>,
    /// Its DSQs.
    pub queues: Vec<Queue>,
    /// Conversions of its own.
    pub conversions: Vec<String>,
    /// The options of its BPF half, which its program sets before it is loaded.
    pub options: Vec<Setting>,
}

/// A column of its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// `task`, `cgroup`, …
    pub scope: String,
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Unit, as declared or as the well-known name has it.
    pub unit: Option<String>,
    /// What it starts as, if not zero.
    pub default: Option<String>,
    /// The column that it is made of, if it says so.
    pub from: Option<String>,
}

/// A DSQ, or a family of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// Order and span, as its tag has them: `vtime,per-cpu`.
    pub kind: String,
}

/// A `const volatile` global.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub ty: String,
    /// What it was compiled with.
    pub default: String,
}

impl Info {
    /// Of a policy's binary.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`], or state that no layout can take.
    pub fn of(path: &Path) -> Result<Info> {
        let bytes = bounded_read::read(path, MAX_BINARY).trying(format!("cannot read {}", path.display()))?;
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Info::from_bytes(&bytes, path, Binary::from_bytes(real, &bytes))
    }

    /// The same, of a binary that has been read. Its path is for messages.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`], or state that no layout can take.
    pub fn from_bytes(bytes: &[u8], path: &Path, binary: Binary) -> Result<Info> {
        let policy = Policy::from_bytes(bytes, path)?;
        let btf = policy.btf()?;
        let abi = policy.abi()?;
        let open = crate::kernel::object::open(policy.object(), None)?;
        let ops = Ops::read(&open, &btf)?;
        let sleepable = obstacles::sleepable_ops(&open, &ops);
        let obstacles = Obstacles::read(&open, &ops, Target::Host).all().to_vec();
        let schema = Schema::from_btf(&btf)?;
        let columns = schema.scopes.iter().flat_map(|(scope, columns)| {
            columns.iter().map(move |c| Column {
                scope: scope.to_string(),
                name: c.name.clone(),
                ty: c.ty.to_string(),
                unit: c.unit().map(str::to_string),
                default: c.default.filter(|d| *d != 0).map(|d| d.to_string()),
                from: c.rule.from.clone(),
            })
        });
        let queue = |q: &state_migrate::Queue| Queue { name: q.name.clone(), kind: q.to_string() };
        Ok(Info {
            version: policy.version().to_string(),
            abi,
            abi_here: abi::ABI,
            binary: Some(binary),
            ops: ops.programs.keys().cloned().collect(),
            sleepable,
            obstacles,
            flags: flag_names(ops.flags),
            columns: columns.collect(),
            queues: schema.queues.iter().map(queue).collect(),
            conversions: schema.conversions.keys().cloned().collect(),
            options: settings(policy.object(), &btf)?,
            name: ops.name,
        })
    }
}

/// Bits by name, what is left as a number.
fn flag_names(flags: u64) -> Vec<String> {
    let known = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_string());
    let rest = FLAGS.iter().fold(flags, |rest, (bit, _)| rest & !bit);
    known.chain((rest != 0).then(|| format!("{rest:#x}"))).collect()
}

/// The globals of `.rodata` that are the policy's own: not weak, and not of the headers.
fn settings(elf: &[u8], btf: &Btf<'_>) -> Result<Vec<Setting>> {
    let not = |e: object::Error| Error::NotAPolicy { why: e.to_string() };
    let file = object::File::parse(elf).map_err(not)?;
    let mut settings = Vec::new();
    for symbol in
        file.symbols().filter(|s| s.kind() == object::SymbolKind::Data && s.is_global() && !s.is_weak())
    {
        let (Ok(name), Some(index)) = (symbol.name(), symbol.section_index()) else { continue };
        let section = file.section_by_index(index).map_err(not)?;
        if section.name() != Ok(".rodata")
            || name.starts_with("scx_")
            || name.starts_with("scxu_")
            || name.starts_with('_')
        {
            continue;
        }
        let variable = btf.ids(Kind::Var).find(|id| btf.name(*id) == name);
        let Some(ty) = variable.and_then(|id| btf.referenced(id)) else { continue };
        let (at, size) = (symbol.address() as usize, symbol.size() as usize);
        let data = section.data().map_err(not)?;
        let Some(bytes) = at.checked_add(size).and_then(|end| data.get(at..end)) else { continue };
        if let Some((ty, default)) = value(btf, ty, bytes) {
            settings.push(Setting { name: name.to_string(), ty, default });
        }
    }
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(settings)
}

/// The name of a type and a value of it, as C writes them: numbers, truth values and arrays of such, of which the first
/// [`SHOWN`] elements; other types by their size and in hexadecimal.
pub(crate) fn value(btf: &Btf<'_>, mut id: u32, bytes: &[u8]) -> Option<(String, String)> {
    for _ in 0..DEEPEST {
        match btf.kind(id)? {
            Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                id = btf.referenced(id)?;
            }
            Kind::Int => {
                let int = btf.int(id)?;
                if int.bool || matches!(btf.name(id), "_Bool" | "bool") {
                    return Some(("bool".to_string(), (bytes.first()? != &0).to_string()));
                }
                let sign = if int.signed { 's' } else { 'u' };
                return Some((format!("{sign}{}", int.size * 8), number(bytes, int.signed)?));
            }
            Kind::Enum | Kind::Enum64 => {
                let signed = btf.enum_signed(id);
                let sign = if signed { 's' } else { 'u' };
                return Some((format!("{sign}{}", btf.size(id)? * 8), number(bytes, signed)?));
            }
            Kind::Array => {
                let array = btf.array(id)?;
                let each = bytes.len().checked_div(array.len as usize)?.max(1);
                let shown = bytes.chunks(each).take(SHOWN).map(|b| value(btf, array.elem, b));
                let elems = shown.collect::<Option<Vec<_>>>()?;
                let ty = elems.first().map(|(ty, _)| ty.clone())?;
                let mut values: Vec<_> = elems.into_iter().map(|(_, value)| value).collect();
                values.extend(hidden(bytes.len().div_ceil(each)));
                return Some((format!("{ty}[{}]", array.len), format!("{{{}}}", values.join(", "))));
            }
            _ => {
                let hex = bytes.iter().fold(String::new(), |mut text, byte| {
                    // Writing to a String does not fail.
                    let _ = write!(text, "{byte:02x}");
                    text
                });
                return Some((format!("{} bytes", bytes.len()), hex));
            }
        }
    }
    None
}

/// What stands for the elements of an array behind those that are shown.
fn hidden(elements: usize) -> Option<String> {
    (elements > SHOWN).then(|| format!("... {} more", elements - SHOWN))
}

fn number(bytes: &[u8], signed: bool) -> Option<String> {
    if bytes.is_empty() || bytes.len() > 8 {
        return None;
    }
    let unsigned = bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let unused = 64 - 8 * bytes.len() as u32;
    Some(match signed {
        true => ((unsigned << unused).cast_signed() >> unused).to_string(),
        false => unsigned.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_sizes() {
        assert_eq!(number(&[0xff], true).as_deref(), Some("-1"));
        assert_eq!(number(&[0xff, 0], false).as_deref(), Some("255"));
        assert_eq!(number(&u64::MAX.to_le_bytes(), false), Some(u64::MAX.to_string()));
        assert_eq!(number(&[0; 9], false), None);
    }

    #[test]
    fn long_arrays_are_cut() {
        assert_eq!(hidden(SHOWN), None);
        assert_eq!(hidden(8192).as_deref(), Some("... 8176 more"));
    }

    #[test]
    fn flags_by_name_and_the_rest_as_a_number() {
        assert_eq!(flag_names(1 << 1 | 1 << 40), ["SCX_OPS_ENQ_LAST", "0x10000000000"]);
        assert!(flag_names(0).is_empty());
    }
}
