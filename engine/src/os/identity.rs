//! Which binary exactly: path, hash and build id of the program that a policy came from.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use state_migrate::object as elf;

use crate::os::bounded_read;
use crate::os::bounded_read::MAX_BINARY;

/// The section in which linkers leave a build id.
const BUILD_ID: &str = ".note.gnu.build-id";

/// This process's id, as /proc has it. In a PID namespace that still has the /proc of the machine it differs from what the process
/// itself is told.
pub fn pid_in_proc() -> u32 {
    let link = fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
}

/// Does a process of this id run? A zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have brackets of its own: proc_pid_stat(5).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZXx".contains(state))
}

/// A policy's program, as a file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// Where it was when it was started.
    pub path: PathBuf,
    /// SHA-256 of the whole file, in hexadecimal.
    pub sha256: String,
    /// The build id that its linker left, in hexadecimal, if any.
    pub build_id: Option<String>,
}

impl Binary {
    /// A file. `None` if it cannot be read.
    pub fn of(path: &Path) -> Option<Binary> {
        let bytes = bounded_read::read(path, MAX_BINARY).ok()?;
        Some(Binary::from_bytes(path.canonicalize().unwrap_or_else(|_| path.to_path_buf()), &bytes))
    }

    /// A file with these bytes.
    pub fn from_bytes(path: PathBuf, bytes: &[u8]) -> Binary {
        let note = elf::section(bytes, BUILD_ID).ok().flatten();
        Binary { path, sha256: hex(&Sha256::digest(bytes)), build_id: note.and_then(build_id) }
    }
}

/// The descriptor of an ELF note whose owner is GNU: sizes of name and descriptor, type, name padded to 4 bytes.
fn build_id(note: &[u8]) -> Option<String> {
    let word = |at: usize| note.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (name, id) = (word(0)? as usize, word(4)? as usize);
    let begin = 12 + name.checked_next_multiple_of(4)?;
    let id = note.get(begin..begin.checked_add(id)?)?;
    (!id.is_empty() && note.get(12..15) == Some(b"GNU")).then(|| hex(id))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_binary() {
        let this = Binary::of("/proc/self/exe".as_ref()).unwrap();
        assert_eq!(this, Binary::of(&std::env::current_exe().unwrap()).unwrap());
        assert_eq!(this.sha256.len(), 64);
    }

    #[test]
    fn the_hash_is_sha_256() {
        // The example of FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Binary::from_bytes("x".into(), b"abc").sha256, known);
    }

    #[test]
    fn notes_that_are_cut_short_have_no_id() {
        let mut note = vec![4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
        note.extend(b"GNU\0\xab\xcd\0\0");
        assert_eq!(build_id(&note).as_deref(), Some("abcd"));
        (0..18).for_each(|len| assert_eq!(build_id(&note[..len]), None, "{len} bytes"));
        assert_eq!(build_id(&[0xff; 32]), None);
    }
}
