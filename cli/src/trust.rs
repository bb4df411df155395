//! Which policies may run on this machine: those whose hash root has listed, or that carry a signature by a key that root
//! has listed. Where root has said nothing, any may.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use minisign_verify::PublicKey;
use minisign_verify::Signature;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::openat;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::os::bounded_read;
use scx_upgrade_engine::os::identity::Binary;
use serde::Deserialize;

use crate::failure::Failure;

/// Where root says it.
const FOLDER: &str = "/etc/scx-upgrade";
const FILE: &str = "trust.toml";
/// Whose the file and its folder must be.
const ROOT: u32 = 0;
/// The largest such file, bytes: some thousand hashes.
const MAX_FILE: u64 = 256 * 1024;
/// The largest file with a signature, bytes. A comment in it may be long.
const MAX_SIGNATURE: u64 = 16 * 1024;
/// What is behind the name of a binary in that of its signature.
const SUFFIX: &str = ".minisig";

/// Why a policy is not started.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nobody knows what may run.
    #[error("no policy is started, because {} cannot be relied on: {why}; what ran before still runs", file.display())]
    Unusable {
        /// The file, or its folder.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// This user may not read what says it.
    #[error("no policy is started, because {} cannot be read; what ran before still runs", file.display())]
    Unreadable {
        /// The file, or its folder.
        file: PathBuf,
    },
    /// This one may not.
    #[error("{} may not run on this machine: {why}. {} says what may; what ran before still runs", binary.display(), file.display())]
    NotTrusted {
        /// The policy's binary.
        binary: PathBuf,
        /// What it lacks.
        why: String,
        /// The file that asks for it.
        file: PathBuf,
    },
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Failure {
        Failure::new(Exit::NotTrusted, error.to_string())
    }
}

/// The file's form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default)]
    sha256: Vec<String>,
    #[serde(default)]
    keys: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Trust {
    file: PathBuf,
    hashes: BTreeSet<String>,
    keys: Vec<PublicKey>,
}

impl Trust {
    /// What root asks for on this machine; none if that is nothing.
    ///
    /// # Errors
    /// [`TrustError::Unusable`]: the file is there, and does not say, or someone else than root could have written it.
    pub fn of_this_machine() -> Result<Option<Trust>, TrustError> {
        Trust::at(Path::new(FOLDER), ROOT)
    }

    /// The same, for a folder and who alone is to write there.
    fn at(folder: &Path, owner: u32) -> Result<Option<Trust>, TrustError> {
        let path = folder.join(FILE);
        // First the folder: whoever can write there could have removed the file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty());
        let Some(dir) = found(open, folder)? else { return Ok(None) };
        let dir = File::from(dir);
        only_of(&dir, folder, owner)?;
        let open = openat(&dir, FILE, flags | OFlags::NONBLOCK, Mode::empty());
        let Some(file) = found(open, &path)? else { return Ok(None) };
        let file = File::from(file);
        only_of(&file, &path, owner)?;
        let bad = |why: String| TrustError::Unusable { file: path.clone(), why };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(bad("it is no plain file".to_string()));
        }
        let bytes = bounded_read::all(&file, MAX_FILE).map_err(|e| bad(e.to_string()))?;
        Trust::parse(&bytes, path.clone()).map_err(bad).map(Some)
    }

    fn parse(bytes: &[u8], file: PathBuf) -> Result<Trust, String> {
        // TOML's message is of several lines and shows the place.
        let form: Form = toml::from_slice(bytes).map_err(|e| e.to_string().trim_end().to_string())?;
        let mut hashes = BTreeSet::new();
        for hash in form.sha256 {
            if hash.len() != 64 || !hash.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(format!("{hash:?} in `sha256` is no SHA-256 of 64 hexadecimal digits"));
            }
            hashes.insert(hash.to_ascii_lowercase());
        }
        let key = |text: &String| {
            PublicKey::from_base64(text.trim()).map_err(|e| {
                format!("{text:?} in `keys` is no minisign key: {e}; take the second line of its .pub file")
            })
        };
        let keys = form.keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if hashes.is_empty() && keys.is_empty() {
            return Err(
                "it lists neither `sha256` nor `keys`, so that no policy could run; remove it if any may"
                    .to_string(),
            );
        }
        Ok(Trust { file, hashes, keys })
    }

    /// One that asks for what this text says.
    #[cfg(test)]
    pub fn of_text(text: &str) -> Trust {
        Trust::parse(text.as_bytes(), PathBuf::from(FILE)).unwrap()
    }

    /// May a binary with these bytes run? Says by what it may.
    ///
    /// # Errors
    /// [`TrustError::NotTrusted`]
    pub fn check(&self, binary: &Binary, bytes: &[u8]) -> Result<String, TrustError> {
        if self.hashes.contains(&binary.sha256) {
            return Ok("its hash is listed".to_string());
        }
        let no = |why: String| TrustError::NotTrusted {
            binary: binary.path.clone(),
            why,
            file: self.file.clone(),
        };
        let unlisted = format!("its SHA-256 {} is not listed", binary.sha256);
        if self.keys.is_empty() {
            return Err(no(unlisted));
        }
        let path = signature_of(&binary.path);
        let text = match bounded_read::read(&path, MAX_SIGNATURE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(no(format!(
                    "{unlisted}, and it has no signature: {} is not there",
                    path.display()
                )));
            }
            Err(e) => return Err(no(format!("{unlisted}, and {} cannot be read: {e}", path.display()))),
        };
        let bad = |why: &str| no(format!("{unlisted}, and {} {why}", path.display()));
        let signature = Signature::decode(&text).map_err(|e| bad(&format!("is no signature: {e}")))?;
        let mut why = "is by no key that is listed".to_string();
        for key in &self.keys {
            match key.verify(bytes, &signature, false) {
                Ok(()) => return Ok(format!("it is signed: {}", signature.trusted_comment())),
                Err(minisign_verify::Error::UnexpectedKeyId) => {}
                Err(minisign_verify::Error::InvalidSignature) => {
                    why = "does not match: one of the two was changed after it was signed".to_string();
                }
                Err(other) => why = format!("is not taken: {other}"),
            }
        }
        Err(bad(&why))
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hashes, keys) = (self.hashes.len(), self.keys.len());
        write!(f, "one of {hashes} hashes or a signature by one of {keys} keys, by {}", self.file.display())
    }
}

/// What opening gave; none where there is nothing.
fn found<T>(opened: rustix::io::Result<T>, path: &Path) -> Result<Option<T>, TrustError> {
    let bad = |why: String| TrustError::Unusable { file: path.to_path_buf(), why };
    match opened {
        Ok(open) => Ok(Some(open)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            Err(bad("it is a link, or no folder; put the file itself there".to_string()))
        }
        Err(rustix::io::Errno::ACCESS) => Err(TrustError::Unreadable { file: path.to_path_buf() }),
        Err(e) => Err(bad(e.to_string())),
    }
}

/// Could nobody but `owner` have written it?
fn only_of(file: &File, path: &Path, owner: u32) -> Result<(), TrustError> {
    let bad = |why: String| TrustError::Unusable { file: path.to_path_buf(), why };
    let meta = file.metadata().map_err(|e| bad(e.to_string()))?;
    if meta.uid() != owner {
        return Err(bad(format!(
            "it belongs to the user {}, not to root; look at what it says, then chown it",
            meta.uid()
        )));
    }
    if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(bad(format!(
            "others can write it (mode {mode:04o}); look at what it says, then chmod go-w"
        )));
    }
    Ok(())
}

fn signature_of(binary: &Path) -> PathBuf {
    let mut path = OsString::from(binary);
    path.push(SUFFIX);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use minisign::KeyPair;
    use tempfile::TempDir;

    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// A folder of mode 0755, as one in `/etc` is.
    fn folder() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn with(dir: &TempDir, text: &str) -> Result<Option<Trust>, TrustError> {
        let file = dir.path().join(FILE);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        Trust::at(dir.path(), me())
    }

    fn why(result: Result<Option<Trust>, TrustError>) -> String {
        match result {
            Err(TrustError::Unusable { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_asked_for_where_there_is_no_file() {
        let dir = folder();
        assert!(Trust::at(dir.path(), me()).unwrap().is_none());
        assert!(Trust::at(&dir.path().join("none"), me()).unwrap().is_none());
    }

    #[test]
    fn a_file_that_does_not_say_lets_nothing_run() {
        let dir = folder();
        for (text, says) in [
            ("", "neither `sha256` nor `keys`"),
            ("sha256 = []\nkeys = []\n", "neither `sha256` nor `keys`"),
            ("sha256 = [\n", "line 1"),
            ("sha512 = []\n", "sha512"),
            ("sha256 = [1]\n", "string"),
            ("sha256 = [\"abc\"]\n", "64 hexadecimal digits"),
            ("keys = [\"RWQ\"]\n", "no minisign key"),
            ("\u{0}\u{1}", "line 1"),
        ] {
            let said = why(with(&dir, text));
            assert!(said.contains(says), "{text:?}: {said}");
        }
        let said = why(with(&dir, &"# long\n".repeat(100_000)));
        assert!(said.contains("more than"), "{said}");
        fs::write(dir.path().join(FILE), [0xff, 0xfe]).unwrap();
        why(Trust::at(dir.path(), me()));
    }

    #[test]
    fn a_file_that_others_could_have_written_lets_nothing_run() {
        let dir = folder();
        let good = format!("sha256 = [\"{HASH}\"]\n");
        let file = dir.path().join(FILE);
        assert!(with(&dir, &good).unwrap().is_some());
        assert!(why(Trust::at(dir.path(), me() + 1)).contains("not to root"));
        for mode in [0o664, 0o646, 0o666] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(why(Trust::at(dir.path(), me())).contains("others can write it"));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        // Nor where they could have removed it, or put another in its place.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(why(Trust::at(dir.path(), me())).contains("others can write it"));
        fs::remove_file(&file).unwrap();
        assert!(why(Trust::at(dir.path(), me())).contains("others can write it"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, &good).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert!(why(Trust::at(dir.path(), me())).contains("is a link"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        why(Trust::at(dir.path(), me()));
        symlink(dir.path(), dir.path().join("way")).unwrap();
        assert!(why(Trust::at(&dir.path().join("way"), me())).contains("is a link"));
    }

    fn sign(bytes: &[u8], pair: &KeyPair, to: &Path) {
        let signature = minisign::sign(Some(&pair.pk), &pair.sk, bytes, Some("of a test"), None).unwrap();
        fs::write(signature_of(to), signature.into_string()).unwrap();
    }

    #[test]
    fn what_is_listed_or_signed_may_run_and_nothing_else() {
        let dir = folder();
        let path = dir.path().join("policy");
        let of = |bytes: &[u8]| Binary::from_bytes(path.clone(), bytes);
        let refused = |trust: &Trust, bytes: &[u8]| trust.check(&of(bytes), bytes).unwrap_err().to_string();

        let listed = with(&dir, &format!("sha256 = [\"{}\"]\n", HASH.to_uppercase())).unwrap().unwrap();
        listed.check(&of(b"abc"), b"abc").unwrap();
        let other = refused(&listed, b"abd");
        assert!(other.contains("is not listed") && other.contains("trust.toml"), "{other}");

        let (ours, theirs) = (
            KeyPair::generate_unencrypted_keypair().unwrap(),
            KeyPair::generate_unencrypted_keypair().unwrap(),
        );
        let text = format!("sha256 = [\"{HASH}\"]\nkeys = [\"{}\"]\n", ours.pk.to_base64());
        let trust = with(&dir, &text).unwrap().unwrap();
        trust.check(&of(b"abc"), b"abc").unwrap();
        assert!(refused(&trust, b"signed").contains("policy.minisig is not there"));
        sign(b"signed", &ours, &path);
        assert!(trust.check(&of(b"signed"), b"signed").unwrap().contains("of a test"));
        assert!(refused(&trust, b"changed").contains("was changed after it was signed"));
        sign(b"signed", &theirs, &path);
        assert!(refused(&trust, b"signed").contains("by no key that is listed"));
        fs::write(signature_of(&path), "untrusted comment: none\n").unwrap();
        assert!(refused(&trust, b"signed").contains("is no signature"));
        fs::write(signature_of(&path), "x".repeat(100_000)).unwrap();
        assert!(refused(&trust, b"signed").contains("cannot be read"));
    }
}
