//! Build helper for policies. In a policy's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     scx_upgrade_build::policy("my_policy", "src/bpf/my_policy.bpf.c")?;
//!     Ok(())
//! }
//! ```
//!
//! compiles the BPF half to `$OUT_DIR/my_policy.bpf.o`, and writes a Rust module for it to `$OUT_DIR/my_policy.rs`, which
//! `scx_upgrade_sdk::policy!(my_policy)` brings in: its settings, statistics and state as structs, and a function that
//! makes the policy. The BPF source sees the scx headers, `vmlinux.h` and `<scx_upgrade/policy.bpf.h>`. [`policy_of`] is for a
//! policy with more than one BPF source.

mod bindings;
mod clang;
mod headers;

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use scx_cargo::BpfBuilder;

/// Compile the BPF source at `source`, a path relative to the crate, to `$OUT_DIR/{name}.bpf.o`, and describe it in
/// `$OUT_DIR/{name}.rs`.
///
/// # Errors
/// No clang that the scx headers accept (18 or newer), or the source does not compile; the compiler's own messages
/// are printed.
pub fn policy(name: &str, source: &str) -> Result<()> {
    let builder = builder(name, source)?;
    builder.build().with_context(|| format!("cannot build the policy {name} from {source}"))?;
    describe(name, &out_dir()?.join(format!("{name}.bpf.o")))
}

/// The same for a policy with more than one BPF source: they are compiled apart and linked. The first includes
/// `<scx_upgrade/policy.bpf.h>`, and each other `<scx_upgrade/declare.bpf.h>`.
///
/// # Errors
/// As for [`policy`], no source at all, or what libbpf's linker refuses: its own messages are printed.
pub fn policy_of(name: &str, sources: &[&str]) -> Result<()> {
    let (first, others) =
        sources.split_first().with_context(|| format!("the policy {name} has no source"))?;
    let mut builder = builder(name, first)?;
    for source in others {
        builder.add_source(source);
    }
    builder.compile_link_gen().with_context(|| format!("cannot build the policy {name} from {sources:?}"))?;
    // scx_cargo gives each linked object the same name. A crate may have more than one policy.
    let out = out_dir()?;
    let object = out.join(format!("{name}.bpf.o"));
    fs::rename(out.join(LINKED), &object).with_context(|| format!("cannot write {}", object.display()))?;
    describe(name, &object)
}

/// What scx_cargo calls an object that it has linked.
const LINKED: &str = "bpf.bpf.o";

fn builder(name: &str, source: &str) -> Result<BpfBuilder> {
    clang::choose()?;
    let include = headers::install()?;
    let mut builder = BpfBuilder::new().context("cannot set up the BPF compiler")?;
    builder.add_include_path(&include);
    builder.enable_skel(source, name);
    Ok(builder)
}

fn out_dir() -> Result<PathBuf> {
    env::var_os("OUT_DIR").map(PathBuf::from).context("OUT_DIR is not set: call this from build.rs")
}

/// Write the Rust module for an object.
fn describe(name: &str, object: &Path) -> Result<()> {
    let elf = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let module = bindings::module(name, &elf).with_context(|| format!("cannot describe {name} in Rust"))?;
    let path = object.with_file_name(format!("{name}.rs"));
    fs::write(&path, module).with_context(|| format!("cannot write {}", path.display()))
}
