//! Kernel versions, the names of Debian's packages for them, and ways to ask for one.

use std::{fmt, path::Path, str::FromStr};

use anyhow::{Result, bail};

/// A kernel version of three numbers. Later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match numbers(text)?[..] {
            [major, minor, patch] => Ok(Self(major, minor, patch)),
            [major, minor] => Ok(Self(major, minor, 0)),
            _ => bail!("{text:?} is no kernel version: write it like 7.0.13"),
        }
    }
}

impl Version {
    /// The version in the name of an image or of one of its folders, such as `vmlinuz-6.18.15+deb13-cloud-amd64`.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        path.iter().rev().find_map(|part| {
            let part = part.to_string_lossy();
            part.split(['-', '+', '_']).find_map(|word| {
                // Two numbers are as likely something else.
                (word.matches('.').count() == 2).then(|| word.parse().ok()).flatten()
            })
        })
    }
}

/// Which kernels would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(Vec<Alternative>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Alternative {
    /// Versions that begin with these numbers.
    Series(Vec<u32>),
    /// This one or a later one.
    From(Version),
}

impl FromStr for Wanted {
    type Err = anyhow::Error;

    /// `7.3.4` or `7.0` (any with these first numbers), `7.3+` (that or later); `|` between alternatives, the better first.
    fn from_str(text: &str) -> Result<Self> {
        let one = |part: &str| {
            let part = part.trim();
            match part.strip_suffix('+') {
                Some(from) => Ok(Alternative::From(from.parse()?)),
                None => numbers(part).map(Alternative::Series),
            }
        };
        text.split('|').map(one).collect::<Result<_>>().map(Self)
    }
}

impl Wanted {
    /// Those of `known` that would do, the best first: in the order of the alternatives, in each the newest first.
    #[must_use]
    pub fn choose(&self, known: &[Version]) -> Vec<Version> {
        let mut newest_first = known.to_vec();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        let mut chosen: Vec<Version> = Vec::new();
        for alternative in &self.0 {
            for version in &newest_first {
                if alternative.matches(*version) && !chosen.contains(version) {
                    chosen.push(*version);
                }
            }
        }
        chosen
    }
}

impl Alternative {
    fn matches(&self, version: Version) -> bool {
        match self {
            Self::Series(start) => [version.0, version.1, version.2].starts_with(start),
            Self::From(oldest) => version >= *oldest,
        }
    }
}

/// The version that a Debian kernel package holds, if it is one of the cloud kernels that the lab can boot, and how
/// good a source it is (0 is best): from 6.19 on `linux-image-…` may hold no image but need the `linux-binary-…` that does.
#[must_use]
pub fn of_package(name: &str) -> Option<(Version, u32)> {
    let rest = name.strip_prefix("linux-")?.strip_suffix("+deb13-cloud-amd64")?;
    let (version, rank) = if let Some(version) = rest.strip_prefix("binary-unsigned-") {
        (version, 1)
    } else if let Some(version) = rest.strip_prefix("binary-") {
        (version, 0)
    } else {
        (rest.strip_prefix("image-")?, 2)
    };
    Some((version.parse().ok()?, rank))
}

fn numbers(text: &str) -> Result<Vec<u32>> {
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers {
        Some(numbers) if numbers.len() <= 3 => Ok(numbers),
        _ => bail!("{text:?} is no kernel version: write it like 7.0.13, 7.0 or 7.3+"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Version] = &[
        Version(6, 16, 12),
        Version(6, 18, 15),
        Version(6, 18, 5),
        Version(7, 0, 9),
        Version(7, 0, 13),
        Version(7, 3, 4),
        Version(7, 10, 1),
    ];

    fn choose(wanted: &str) -> Vec<String> {
        wanted.parse::<Wanted>().unwrap().choose(KNOWN).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numbers_compare_as_numbers() {
        assert!("7.0.13".parse::<Version>().unwrap() > "7.0.9".parse().unwrap());
        assert!("7.10".parse::<Version>().unwrap() > "7.3.4".parse().unwrap());
        for bad in ["7", "seven", "7.0.1.2", "", "7..1", "-7.0"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_newest_that_was_asked_for() {
        assert_eq!(choose("7.0"), ["7.0.13", "7.0.9"]);
        assert_eq!(choose("7.0.9"), ["7.0.9"]);
        assert_eq!(choose("7.3+"), ["7.10.1", "7.3.4"]);
        assert_eq!(choose("6.18|6.16"), ["6.18.15", "6.18.5", "6.16.12"]);
        assert_eq!(choose("6.1"), [""; 0]);
        assert!("a".parse::<Wanted>().is_err());
    }

    #[test]
    fn packages_are_known_by_their_names() {
        let name = |start: &str| of_package(&format!("{start}+deb13-cloud-amd64"));
        assert_eq!(name("linux-binary-unsigned-7.3.4"), Some((Version(7, 3, 4), 1)));
        assert_eq!(name("linux-binary-7.0.13"), Some((Version(7, 0, 13), 0)));
        assert_eq!(name("linux-image-6.18.15"), Some((Version(6, 18, 15), 2)));
        for other in [
            "linux-image-7.3.4+deb13-cloud-amd64-dbg",
            "linux-image-6.12.43+deb12-cloud-amd64",
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ] {
            assert_eq!(of_package(other), None, "{other}");
        }
    }

    #[test]
    fn images_are_known_by_their_paths() {
        let of = |path: &str| Version::of_path(Path::new(path)).map(|version| version.to_string());
        assert_eq!(of("/boot/vmlinuz-6.18.15+deb13-cloud-amd64").as_deref(), Some("6.18.15"));
        assert_eq!(of("/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz.unsigned").as_deref(), Some("7.3.4"));
        assert_eq!(of("/src/linux/arch/x86/boot/bzImage"), None);
    }
}
