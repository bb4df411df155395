//! A folder for each run of the lab: console, QEMU's complaints, result. Old ones are cleared away.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::cache;

/// How many folders of finished runs are kept for a look at what went wrong.
const KEEP: usize = 12;

/// Creates the folder of a new run in `cache`, and removes the oldest of runs whose process is gone.
pub(crate) fn create(cache: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let runs = cache.join("runs");
    cache::create(&runs)?;
    prune(&runs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // The time first and in a fixed width, so that names sort by age.
    let name = format!("{now:013}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let run = runs.join(name);
    fs::create_dir(&run).with_context(|| format!("cannot create {}", run.display()))?;
    cache::create(&run.join("out"))?;
    Ok(run)
}

/// Best effort: what cannot be removed is tried again by the next run.
fn prune(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    let mut done: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|run| is_done(run)).collect();
    done.sort();
    let surplus = (done.len() + 1).saturating_sub(KEEP);
    for run in &done[..surplus] {
        let _ = fs::remove_dir_all(run);
    }
}

/// Whether the process that made this folder has ended.
fn is_done(run: &Path) -> bool {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    let owner = name.split('-').nth(1).and_then(|id| id.parse::<u32>().ok());
    owner.is_some_and(|id| id != process::id() && !Path::new("/proc").join(id.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_of_ended_processes_are_done() {
        assert!(!is_done(Path::new("/runs/0000000000001-1-0")));
        assert!(!is_done(Path::new(&format!("/runs/0000000000001-{}-0", process::id()))));
        assert!(is_done(Path::new("/runs/0000000000001-4194999-0")));
        assert!(!is_done(Path::new("/runs/something")));
    }

    #[test]
    fn old_runs_go_and_new_ones_stay() {
        let cache = std::env::temp_dir().join(format!("lab-run-dir-{}", process::id()));
        for age in 0..KEEP + 3 {
            fs::create_dir_all(cache.join(format!("runs/{age:013}-4194999-0"))).unwrap();
        }
        let new = create(&cache).unwrap();
        assert!(new.join("out").is_dir());
        assert_eq!(fs::read_dir(cache.join("runs")).unwrap().count(), KEEP);
        assert!(!cache.join("runs/0000000000000-4194999-0").exists());
        fs::remove_dir_all(cache).unwrap();
    }
}
