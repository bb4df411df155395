//! The seeds of the fuzz targets, and what they showed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use state_migrate::{
    Column, Conversion, Kind, Layout, Queue, QueueOrder, QueueSpan, Rule, Schema, Scope, Signature, Type,
    plan,
};

use crate::builder::{BOOL, Builder, SIGNED, array, column, s, u};
use crate::robustness::{elf, sample, sample_btf};
use crate::snapshot::{full, tiny};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("btf", targets::btf),
    ("policy_object", targets::policy_object),
    ("augment", targets::augment),
    ("layout", targets::layout),
    ("snapshot", targets::snapshot),
];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn no_seed_makes_a_target_fail() {
    for (name, run) in TARGETS {
        let mut seeds = 0;
        for seed in fs::read_dir(folder(name)).unwrap() {
            let seed = seed.unwrap();
            assert!(seed.metadata().unwrap().len() <= 4096, "{:?} is too large for the tree", seed.path());
            run(&fs::read(seed.path()).unwrap());
            seeds += 1;
        }
        assert!(seeds > 1, "{name} has no seeds");
    }
}

/// `SCX_UPGRADE_WRITE_SEEDS=1` makes them anew.
#[test]
fn seeds_are_what_the_formats_are() {
    let write = std::env::var_os("SCX_UPGRADE_WRITE_SEEDS").is_some();
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let path = folder(target).join(name);
        if write {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{} is of another form", path.display());
    };
    let (kinds, sample_btf) = (every_kind(), sample_btf());
    for target in ["btf", "augment"] {
        put(target, "every_kind", &kinds.build());
        put(target, "layout_section", &kinds.build_with_layout(&[4; 84]));
        put(target, "policy", &sample_btf);
        put(target, "empty", &Builder::new().build());
    }
    put("augment", "kernel", &kernel().build());
    put("augment", "kernel_new", &kernel().build_with_layout(&[4; 84]));
    for (name, schema) in schemas() {
        let mut b = Builder::new();
        b.schema(&schema);
        put("policy_object", name, &elf(".BTF", &b.build()));
        let sizes: Vec<_> = Scope::ALL.into_iter().map(|scope| (scope, 512)).collect();
        let empty = Layout::new(&sizes);
        let books = serde_json::to_vec(&(&empty, None::<u32>, &schema, 0)).unwrap();
        put("layout", &format!("first_{name}"), &books);
        let resident = plan(&empty, None, &sample(), 0).unwrap().layout;
        let books = serde_json::to_vec(&(&resident, Some(0), &schema, 1)).unwrap();
        put("layout", &format!("swap_to_{name}"), &books);
    }
    put("policy_object", "other_section", &elf(".text", &sample_btf));
    put("policy_object", "every_kind", &elf(".BTF", &kinds.build()));
    put("snapshot", "empty", &state_migrate::Snapshot::default().to_bytes().unwrap());
    put("snapshot", "tiny", &tiny().to_bytes().unwrap());
    put("snapshot", "full", &full().to_bytes().unwrap());
}

fn kernel() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    b.structure("task_struct", 4, &[("pid", int, 0)]);
    b.structure("stats___old", 8, &[("runs", int, 0), ("waits", int, 4)]);
    b.func("scx_bpf_kick_cpu", &[("cpu", int), ("aux", int)]);
    b.func("scx_bpf_kick_cpu_impl", &[("cpu", int), ("aux", int)]);
    b
}

fn every_kind() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let flag = b.int("_Bool", 1, BOOL);
    let arr = b.array(int, 3);
    let st = b.structure("point", 16, &[("x", int, 0), ("on", flag, 4)]);
    b.bitfield("bits", int, 5);
    let un = b.union("either", 4, &[("a", int), ("b", flag)]);
    b.enumeration("neg", 4, true, &[("MINUS", -1), ("ONE", 1)]);
    b.enumeration("wide", 8, false, &[("BIG", i64::MIN)]);
    let ptr = b.refer(Kind::Ptr, "", st);
    for kind in [Kind::Typedef, Kind::Const, Kind::Volatile, Kind::Restrict, Kind::TypeTag, Kind::Fwd] {
        b.refer(kind, "r", un);
    }
    b.refer(Kind::Float, "double", 8);
    b.func("scx_bpf_lost", &[("p", ptr), ("aux", int)]);
    let var = b.var("queue", int);
    b.datasec(".bss", &[(var, 4, 8)]);
    b.tag("scx:queue=fifo", var, -1);
    let scope = b.structure("policy_task", 16, &[("n", int, 0), ("arr", arr, 4)]);
    b.tag("scx:default=-0x10", scope, 0);
    b
}

pub fn schemas() -> Vec<(&'static str, Schema)> {
    let with = |name: &str, ty: Type, value| Column { default: Some(value), ..column(name, ty) };
    let scopes = BTreeMap::from([
        (Scope::Task, vec![with("vtime", u(64), 7), with("extra", s(16), -2)]),
        (Scope::Cgroup, vec![with("weight", u(32), 100)]),
        (Scope::Cpu, vec![column("hist", array(array(u(8), 3), 5)), with("on", Type::Bool, 1)]),
        (Scope::Global, vec![with("mode", Type::Enum { size: 4, signed: true }, -1)]),
    ]);
    let queues = vec![Queue { name: "q".into(), order: QueueOrder::Vtime, span: QueueSpan::Cpu }];
    let all = Schema { scopes, queues, ..Schema::default() };
    let task = |columns| Schema { scopes: BTreeMap::from([(Scope::Task, columns)]), ..Schema::default() };
    let rule = Rule {
        convert: Some(Conversion { program: "forth".into(), inverse: Some("back".into()) }),
        ..Rule::default()
    };
    let (from, to) = (u(32), array(u(16), 3));
    let back = Signature { number: 0, from: to.clone(), to: from.clone() };
    let forth = Signature { number: 1, from, to: to.clone() };
    let conversions = BTreeMap::from([("back".into(), back), ("forth".into(), forth)]);
    let converts = task(vec![Column { rule, ..column("vtime", to) }]);
    vec![
        ("converts", Schema { conversions, ..converts }),
        ("nothing", Schema::default()),
        ("sample", sample()),
        ("all_scopes", all),
        ("other_type", task(vec![column("vtime", u(32))])),
        ("too_large", task(vec![column("hist", array(u(64), 80))])),
    ]
}
