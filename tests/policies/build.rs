//! Compiles each policy of `src/bpf`, and the one of two sources in `src/bpf/two`.
use std::path::Path;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=src/bpf");
    scx_upgrade_build::policy_of("two", &["src/bpf/two/main.bpf.c", "src/bpf/two/place.bpf.c"])?;
    for entry in std::fs::read_dir(Path::new("src/bpf"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".bpf.c") {
            scx_upgrade_build::policy(name, &format!("src/bpf/{file}"))?;
        }
    }
    Ok(())
}
