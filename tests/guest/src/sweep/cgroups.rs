//! Cgroups by the thousand, in a tree of two levels.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// Children of each group of the first level.
const CHILDREN: usize = 50;

/// The groups; removed with the value, once the tasks in them are gone.
#[derive(Debug)]
pub struct Cgroups {
    /// Parents before their children.
    paths: Vec<PathBuf>,
}

impl Cgroups {
    /// Make `count` of them.
    ///
    /// # Errors
    /// No cgroup v2 with a cpu controller there, or not root.
    pub fn make(count: usize) -> Result<Self> {
        let mut groups = Self { paths: Vec::with_capacity(count) };
        if count > 0 {
            share_cpu(Path::new(ROOT))?;
        }
        while groups.paths.len() < count {
            let parent = Path::new(ROOT).join(format!("sweep-{}", groups.paths.len()));
            groups.add(parent.clone())?;
            share_cpu(&parent)?;
            for child in 0..CHILDREN.min(count - groups.paths.len()) {
                groups.add(parent.join(format!("{child}")))?;
            }
        }
        Ok(groups)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        fs::create_dir(&path).with_context(|| format!("creating the cgroup {}", path.display()))?;
        self.paths.push(path);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Put each of these processes into a group of its own. One that has ended meanwhile is left out.
    pub fn spread(&self, pids: impl Iterator<Item = u32>) {
        let leaves = self.paths.iter().filter(|p| p.parent() != Some(Path::new(ROOT)));
        for (pid, leaf) in pids.zip(leaves) {
            let _ = fs::write(leaf.join("cgroup.procs"), pid.to_string());
        }
    }
}

fn share_cpu(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.subtree_control"), "+cpu")
        .with_context(|| format!("giving the children of {} the cpu controller", group.display()))
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // Busy ones stay; there is nobody to tell.
            let _ = fs::remove_dir(path);
        }
    }
}
