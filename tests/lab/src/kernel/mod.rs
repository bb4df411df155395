//! Kernels with sched_ext: which there are, and getting them from Debian into the cache.

mod download;
mod version;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use download::Archive;
pub use version::{Version, Wanted};

/// Kernels that this project was tried on, newest first, with the package of Debian's `trixie-backports` that holds each.
///
/// Old versions vanish from the archive, so newer ones that it offers are considered too.
pub const KNOWN_GOOD: &[(Version, &str)] = &[
    (Version(7, 3, 4), "linux-binary-unsigned-7.3.4+deb13-cloud-amd64"),
    (Version(7, 0, 13), "linux-binary-7.0.13+deb13-cloud-amd64"),
    (Version(6, 19, 14), "linux-binary-6.19.14+deb13-cloud-amd64"),
    (Version(6, 18, 15), "linux-image-6.18.15+deb13-cloud-amd64"),
    (Version(6, 17, 13), "linux-image-6.17.13+deb13-cloud-amd64"),
    (Version(6, 16, 12), "linux-image-6.16.12+deb13-cloud-amd64"),
];

/// The oldest kernel of `trixie-backports` with sched_ext switched on: 6.12 has it off.
const OLDEST: Version = Version(6, 16, 0);
/// Series whose BTF lost the implicit-argument twins of many kfuncs, so that no scheduler loads.
const BROKEN: &[(u32, u32)] = &[(7, 1), (7, 2)];
/// What `obtain` looks for when nothing is asked for: the newest.
const NEWEST: &str = "7.3+";
/// What it makes do with then.
const ANY: &str = "6.16+";

/// A kernel to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Such as `7.3.4`; `unknown` when the path of an image does not tell.
    pub version: String,
    /// The image (`vmlinuz`, `bzImage` or an ELF `vmlinux` with PVH).
    pub image: PathBuf,
}

/// Gets a kernel: `None` for the newest that works, else a version (`7.3.4`), the start of one (`7.0`), `7.3+` for that or a
/// later one, alternatives with `|` between them, or the path of an image.
///
/// One that is in `cache` is taken from there without any network. Else the newest that Debian has is downloaded; when that
/// fails the next one is. Says on standard error which.
///
/// # Errors
/// When nothing that would do is in the cache and none can be downloaded.
pub fn obtain(cache: &Path, wanted: Option<&str>) -> Result<Kernel> {
    Finder::new(cache).find(wanted)
}

/// Gets one kernel for each of `series` (each as for [`obtain`]), as a test matrix needs them. The second list says for
/// each that could not be had why not.
pub fn obtain_series(cache: &Path, series: &[&str]) -> (Vec<Kernel>, Vec<(String, anyhow::Error)>) {
    let (mut kernels, mut missing) = (Vec::new(), Vec::new());
    let mut finder = Finder::new(cache);
    for wanted in series {
        match finder.find(Some(wanted)) {
            Ok(kernel) if kernels.contains(&kernel) => {}
            Ok(kernel) => kernels.push(kernel),
            Err(error) => missing.push(((*wanted).to_owned(), error)),
        }
    }
    (kernels, missing)
}

/// Finds kernels, and asks Debian for its list at most once.
struct Finder<'a> {
    cache: &'a Path,
    /// What Debian offers, or why that is not known.
    archive: Option<Result<Archive, String>>,
}

impl<'a> Finder<'a> {
    fn new(cache: &'a Path) -> Self {
        Self { cache, archive: None }
    }

    fn find(&mut self, wanted: Option<&str>) -> Result<Kernel> {
        match wanted {
            Some(path) if path.contains('/') => from_path(Path::new(path)),
            Some(text) => self.find_version(text),
            None => self.find_version(NEWEST).or_else(|error| {
                // Nobody asked for the newest by name, so an older one beats none.
                let older = self.find_version(ANY).map_err(|_| error)?;
                eprintln!("lab: no kernel {NEWEST} can be had: going on with the older {}", older.version);
                Ok(older)
            }),
        }
    }

    fn find_version(&mut self, text: &str) -> Result<Kernel> {
        let wanted: Wanted = text.parse()?;
        if let Some(kernel) = best_cached(self.cache, &wanted) {
            return Ok(kernel);
        }
        let kernels = folder(self.cache);
        let archive = self
            .archive
            .get_or_insert_with(|| Archive::open(self.cache).map_err(|error| format!("{error:#}")));
        let archive = archive.as_ref().map_err(|error| {
            anyhow!(
                "no kernel {text} is in {}, and none can be downloaded: {error}. Connect to the network and try again, \
                 or give the path of an image that has sched_ext",
                kernels.display()
            )
        })?;
        let offered: Vec<Version> = archive.versions().filter(|version| is_usable(*version)).collect();
        let chosen = wanted.choose(&offered);
        if chosen.is_empty() {
            let known: Vec<_> = offered.iter().rev().map(ToString::to_string).collect();
            bail!(
                "Debian has no kernel {text} with a working sched_ext (7.1 and 7.2 are broken); it has {}",
                known.join(", ")
            );
        }
        // A package may be gone from the archive while the list still names it; several are the network's fault.
        let tries = if archive.is_current() { 3 } else { 1 };
        let mut failures = Vec::new();
        for version in chosen.iter().take(tries) {
            let tried = KNOWN_GOOD.iter().any(|(known, _)| known == version);
            let note = if tried { "" } else { " (not one of those that this project was tried on)" };
            eprintln!("lab: downloading kernel {version}{note}");
            match archive.download(*version, &kernels.join(version.to_string())) {
                Ok(image) => return Ok(Kernel { version: version.to_string(), image }),
                Err(error) => {
                    eprintln!("lab: kernel {version} cannot be had: {error:#}");
                    failures.push(format!("{version}: {error:#}"));
                }
            }
        }
        bail!(
            "no kernel {text} could be downloaded ({}). Check the network and try again, or give the path of an image that \
             has sched_ext",
            failures.join("; ")
        )
    }
}

fn from_path(path: &Path) -> Result<Kernel> {
    let image =
        path.canonicalize().with_context(|| format!("there is no kernel image {}", path.display()))?;
    let version =
        Version::of_path(&image).map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    Ok(Kernel { version, image })
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("kernels")
}

fn is_usable(version: Version) -> bool {
    version >= OLDEST && !BROKEN.contains(&(version.0, version.1))
}

/// The versions in the cache.
fn cached(cache: &Path) -> Vec<Version> {
    let entries = fs::read_dir(folder(cache)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("vmlinuz").is_file())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn best_cached(cache: &Path, wanted: &Wanted) -> Option<Kernel> {
    let version = *wanted.choose(&cached(cache)).first()?;
    let image = folder(cache).join(version.to_string()).join("vmlinuz");
    Some(Kernel { version: version.to_string(), image })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_newest_first_and_names_its_packages() {
        assert!(KNOWN_GOOD.windows(2).all(|pair| pair[0].0 > pair[1].0));
        for (version, package) in KNOWN_GOOD {
            assert_eq!(version::of_package(package).map(|(of, _)| of), Some(*version));
            assert!(is_usable(*version));
        }
    }

    #[test]
    fn broken_and_old_series_are_left_out() {
        for bad in ["7.1.13", "7.2.12", "6.12.95", "6.1.0"] {
            assert!(!is_usable(bad.parse().unwrap()), "{bad}");
        }
        assert!(is_usable("7.4.1".parse().unwrap()));
    }

    #[test]
    fn the_cache_needs_no_network() {
        let cache = std::env::temp_dir().join(format!("lab-kernel-{}", std::process::id()));
        for version in ["7.3.4", "7.0.9", "7.0.13", "6.18.15"] {
            let folder = folder(&cache).join(version);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vmlinuz"), "image").unwrap();
        }
        fs::create_dir_all(folder(&cache).join("7.9.9")).unwrap();
        let version = |wanted| obtain(&cache, wanted).unwrap().version;
        assert_eq!(version(None), "7.3.4");
        assert_eq!(version(Some("7.0")), "7.0.13");
        assert_eq!(version(Some("6.18|6.16")), "6.18.15");
        let (kernels, missing) = obtain_series(&cache, &["7.3+", "7.0", "7.3"]);
        assert_eq!((kernels.len(), missing.len()), (2, 0));
        fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let error = from_path(Path::new("/no/such/image")).unwrap_err().to_string();
        assert!(error.contains("/no/such/image"), "{error}");
        let own = std::env::current_exe().unwrap();
        assert_eq!(from_path(&own).unwrap().version, "unknown");
    }
}
