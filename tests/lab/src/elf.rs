//! Which shared libraries a program needs, as the dynamic linker's own `ldd` tells it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// A file that a dynamic program needs to start.
#[derive(Debug, PartialEq, Eq)]
pub enum Needed {
    /// A shared library: the name that the program asks for, and where it is on this machine.
    Library {
        /// Such as `libc.so.6`.
        name: String,
        /// The file on this machine.
        path: PathBuf,
    },
    /// The program interpreter, which the kernel looks for at exactly this path.
    Interpreter(PathBuf),
}

/// Whether the file starts as an ELF file does.
///
/// # Errors
/// When it cannot be opened or read.
pub fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = Vec::with_capacity(4);
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(magic == b"\x7fELF")
}

/// The libraries and the interpreter of the ELF file `program`; nothing when it is linked statically.
///
/// `ldd` lets the interpreter load the file, so use this on programs of your own only.
///
/// # Errors
/// When `ldd` cannot be run, fails, or cannot find a library.
pub fn needed(program: &Path) -> Result<Vec<Needed>> {
    let run = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run ldd (package libc-bin)")?;
    let text = String::from_utf8_lossy(&run.stdout);
    let complaint = String::from_utf8_lossy(&run.stderr);
    if is_static(&text) || is_static(&complaint) {
        return Ok(Vec::new());
    }
    if !run.status.success() {
        bail!("ldd {} failed: {}", program.display(), complaint.trim());
    }
    parse(&text).with_context(|| format!("cannot tell which libraries {} needs", program.display()))
}

fn is_static(text: &str) -> bool {
    ["statically linked", "not a dynamic executable"].iter().any(|mark| text.contains(mark))
}

/// Reads the lines of `ldd`: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the interpreter.
fn parse(text: &str) -> Result<Vec<Needed>> {
    let mut needed = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let bare = line.rsplit_once(" (0x").map_or(line, |(bare, _)| bare).trim();
        match bare.split_once(" => ") {
            Some((name, "not found")) => bail!("{name} is not installed: install the package that holds it"),
            Some((name, path)) if name.starts_with('/') || name.contains("ld-linux") => {
                needed.push(Needed::Interpreter(PathBuf::from(if name.starts_with('/') {
                    name
                } else {
                    path
                })));
            }
            Some((name, path)) if path.starts_with('/') => {
                needed.push(Needed::Library { name: name.to_owned(), path: PathBuf::from(path) });
            }
            None if bare.starts_with('/') => needed.push(Needed::Interpreter(PathBuf::from(bare))),
            // The kernel's own page (linux-vdso.so.1), which is no file.
            _ => {}
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_libraries_and_the_interpreter() {
        let text = "\tlinux-vdso.so.1 (0x00007fff6b7f2000)\n\
                    \tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f1)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";
        let library = |name: &str| Needed::Library {
            name: name.to_owned(),
            path: PathBuf::from(format!("/lib/x86_64-linux-gnu/{name}")),
        };
        assert_eq!(
            parse(text).unwrap(),
            [
                library("libelf.so.1"),
                library("libc.so.6"),
                Needed::Interpreter(PathBuf::from("/lib64/ld-linux-x86-64.so.2"))
            ]
        );
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibnope.so.3 => not found\n").unwrap_err().to_string();
        assert!(error.contains("libnope.so.3"), "{error}");
    }

    #[test]
    fn static_programs_need_nothing() {
        assert!(is_static("\tstatically linked\n"));
        assert!(is_static("\tnot a dynamic executable\n"));
        assert!(!is_static("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"));
    }

    #[test]
    fn this_very_program_is_elf() {
        let own = std::env::current_exe().unwrap();
        assert!(is_elf(&own).unwrap());
        assert!(needed(&own).unwrap().iter().any(|one| matches!(one, Needed::Interpreter(_))));
    }
}
