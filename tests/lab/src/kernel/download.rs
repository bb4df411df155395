//! Debian's archive of kernels: what it offers, and getting one out of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, bail};

use super::version::{self, Version};
use crate::{
    apt::{Archives, PrivateApt},
    cache,
};

/// The packages of the suite with the kernels.
pub(super) struct Archive {
    apt: PrivateApt,
    work: PathBuf,
    /// For each version the packages that may hold its image, the best first.
    offers: BTreeMap<Version, Vec<String>>,
    is_current: bool,
}

impl Archive {
    /// Gets the list of packages. An older list that is there is used when there is no network.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let source = Archives::of_this_machine()?.debian("trixie-backports");
        let apt = PrivateApt::create(&cache.join("apt/kernels"), &[source])?;
        eprintln!("lab: asking Debian which kernels it has");
        let update = apt.update();
        let names = apt.package_names()?;
        let offers = offers(names.iter().map(String::as_str));
        let is_current = match update {
            Ok(()) => true,
            Err(error) if offers.is_empty() => return Err(error),
            Err(error) => {
                eprintln!("lab: {error:#}\nlab: going on with the list of an earlier time");
                false
            }
        };
        Ok(Self { apt, work: cache.join("kernels"), offers, is_current })
    }

    /// Whether the list is of today. Else there is no network.
    pub(super) fn is_current(&self) -> bool {
        self.is_current
    }

    /// The versions on offer, whether they are any good or not.
    pub(super) fn versions(&self) -> impl Iterator<Item = Version> {
        self.offers.keys().copied()
    }

    /// Puts the image of `version` into the folder `into` as `vmlinuz` and returns its path. Nobody ever sees half of one.
    pub(super) fn download(&self, version: Version, into: &Path) -> Result<PathBuf> {
        let scratch = self.work.join(format!(".{version}-{}", process::id()));
        cache::create(&scratch)?;
        let done = self.download_via(version, into, &scratch);
        let _ = fs::remove_dir_all(&scratch);
        done
    }

    fn download_via(&self, version: Version, into: &Path, scratch: &Path) -> Result<PathBuf> {
        let mut last = None;
        for package in self.offers.get(&version).into_iter().flatten() {
            match self.unpack(package, scratch) {
                Ok(found) => {
                    cache::create(into)?;
                    let image = into.join("vmlinuz");
                    fs::rename(&found, &image)
                        .with_context(|| format!("cannot move the kernel to {}", image.display()))?;
                    return Ok(image);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no package holds it")))
    }

    /// Downloads and unpacks a package, and finds the image in it.
    fn unpack(&self, package: &str, scratch: &Path) -> Result<PathBuf> {
        let folder = scratch.join(package);
        cache::create(&folder)?;
        let deb = self.apt.download(package, &folder)?;
        let tree = folder.join("tree");
        let status =
            Command::new("dpkg").arg("-x").args([&deb, &tree]).status().context("cannot run dpkg")?;
        if !status.success() {
            bail!("dpkg -x {} failed ({status})", deb.display());
        }
        find_image(&tree).with_context(|| format!("the package {package} holds no kernel image"))
    }
}

/// Sorts package names by version and by how likely they hold the image.
fn offers<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<Version, Vec<String>> {
    let mut ranked: BTreeMap<Version, Vec<(u32, String)>> = BTreeMap::new();
    for name in names {
        if let Some((version, rank)) = version::of_package(name) {
            ranked.entry(version).or_default().push((rank, name.to_owned()));
        }
    }
    let best_first = |mut list: Vec<(u32, String)>| {
        list.sort();
        list.into_iter().map(|(_, name)| name).collect()
    };
    ranked.into_iter().map(|(version, list)| (version, best_first(list))).collect()
}

/// The image is `boot/vmlinuz-…` up to 7.2 and `usr/lib/modules/…/vmlinuz…` since.
fn find_image(tree: &Path) -> Option<PathBuf> {
    let list =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let modules = ["usr/lib/modules", "lib/modules"].into_iter().flat_map(|folder| list(tree.join(folder)));
    let folders = std::iter::once(tree.join("boot")).chain(modules);
    folders.flat_map(list).find(|path| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_with_the_image_comes_first() {
        let names = [
            "linux-image-6.19.14+deb13-cloud-amd64",
            "linux-binary-unsigned-6.19.14+deb13-cloud-amd64",
            "linux-binary-6.19.14+deb13-cloud-amd64",
            "linux-image-6.19.14+deb13-cloud-amd64-dbg",
            "linux-image-6.18.15+deb13-cloud-amd64",
        ];
        let offers = offers(names.into_iter());
        assert_eq!(offers.len(), 2);
        let packages = &offers[&Version(6, 19, 14)];
        assert_eq!(packages[0], "linux-binary-6.19.14+deb13-cloud-amd64");
        assert_eq!(packages[1], "linux-binary-unsigned-6.19.14+deb13-cloud-amd64");
        assert_eq!(packages.len(), 3);
    }

    #[test]
    fn images_are_found_in_both_places() {
        let tree = std::env::temp_dir().join(format!("lab-download-{}", process::id()));
        for path in ["boot/vmlinuz-6.18.15", "usr/lib/modules/7.3.4/vmlinuz.unsigned"] {
            assert_eq!(find_image(&tree), None);
            let image = tree.join(path);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            assert_eq!(find_image(&tree), Some(image));
            fs::remove_dir_all(&tree).unwrap();
        }
    }
}
