//! Build helper for policies. In a policy's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     scx_upgrade_build::policy("my_policy", "src/bpf/my_policy.bpf.c")?;
//!     Ok(())
//! }
//! ```
//!
//! compiles the BPF half to `$OUT_DIR/my_policy.bpf.o`, which `scx_upgrade_sdk::policy_object!("my_policy")` puts
//! into the binary. The BPF source sees the scx headers, `vmlinux.h` and `<scx_upgrade/policy.bpf.h>`.

mod clang;
mod headers;

use anyhow::Context;
use anyhow::Result;
use scx_cargo::BpfBuilder;

/// Compile the BPF source at `source`, a path relative to the crate, to `$OUT_DIR/{name}.bpf.o`.
///
/// # Errors
/// No clang that the scx headers accept (18 or newer), or the source does not compile; the compiler's own messages
/// are printed.
pub fn policy(name: &str, source: &str) -> Result<()> {
    clang::choose()?;
    let include = headers::install()?;
    let mut builder = BpfBuilder::new().context("cannot set up the BPF compiler")?;
    builder.add_include_path(&include);
    builder.enable_skel(source, name);
    builder.build().with_context(|| format!("cannot build the policy {name} from {source}"))
}
