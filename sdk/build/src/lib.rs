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
//! makes the policy. The BPF source sees the scx headers, `vmlinux.h` and `<scx_upgrade/policy.bpf.h>`.

mod bindings;
mod clang;
mod headers;

use std::env;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use scx_cargo::BpfBuilder;

/// Compile the BPF source at `source`, a path relative to the crate, to `$OUT_DIR/{name}.bpf.o`, and describe it in
/// `$OUT_DIR/{name}.rs`.
///
/// # Errors
/// No clang that the scx headers accept (18 or newer); the source does not compile, and the compiler's own messages are
/// printed; or the policy declares state or queues that no host can take.
pub fn policy(name: &str, source: &str) -> Result<()> {
    build(name, source, true)
}

/// The same for a policy whose state nobody checks: for tests of what refuses such a one.
///
/// # Errors
/// As [`policy`], but for state and queues.
pub fn policy_unchecked(name: &str, source: &str) -> Result<()> {
    build(name, source, false)
}

fn build(name: &str, source: &str, check: bool) -> Result<()> {
    clang::choose()?;
    let include = headers::install()?;
    let mut builder = BpfBuilder::new().context("cannot set up the BPF compiler")?;
    builder.add_include_path(&include);
    builder.enable_skel(source, name);
    builder.build().with_context(|| format!("cannot build the policy {name} from {source}"))?;

    let out = env::var_os("OUT_DIR").context("OUT_DIR is not set: call this from build.rs")?;
    let object = Path::new(&out).join(format!("{name}.bpf.o"));
    let elf = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let module =
        bindings::module(name, &elf, check).with_context(|| format!("cannot describe {name} in Rust"))?;
    let path = Path::new(&out).join(format!("{name}.rs"));
    fs::write(&path, module).with_context(|| format!("cannot write {}", path.display()))
}
