//! Where root asks for it, only policies that are listed or signed are started, and what was verified is what runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::json;
use e2e::report;
use e2e::rounds;
use e2e::status;
use minisign::KeyPair;
use scx_upgrade_engine::os::identity::Binary;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const PLAIN: &str = "/bin/plain";
const FOLDER: &str = "/etc/scx-upgrade";
const FILE: &str = "/etc/scx-upgrade/trust.toml";

/// What is asked for, as long as this lives.
struct Asked;

impl Asked {
    fn for_what(text: &str) -> Asked {
        fs::create_dir_all(FOLDER).unwrap();
        fs::set_permissions(FOLDER, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(FILE, text).unwrap();
        fs::set_permissions(FILE, fs::Permissions::from_mode(0o644)).unwrap();
        Asked
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(FOLDER);
    }
}

/// A folder for binaries of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = Path::new("/tmp").join(format!("trust-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    /// A copy of a binary of `/bin`.
    fn copy(&self, binary: &str, name: &str) -> String {
        let to = self.0.join(name);
        fs::copy(binary, &to).unwrap();
        to.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hash(binary: &str) -> String {
    Binary::of(Path::new(binary)).unwrap().sha256
}

fn sign(binary: &str, pair: &KeyPair) {
    let bytes = fs::read(binary).unwrap();
    let signature = minisign::sign(Some(&pair.pk), &pair.sk, &bytes[..], Some("of a test"), None).unwrap();
    fs::write(format!("{binary}.minisig"), signature.into_string()).unwrap();
}

/// Every way to start a policy is refused with 9 and these words, and nothing is touched.
fn refused(binary: &str, says: &[&str]) {
    let generation = status().generation;
    let watch = EnabledWatch::start();
    for args in [
        &["swap", binary][..],
        &["swap", "--no-carry", binary],
        &["swap", "--dry-run", binary],
        &["run", binary],
        &["plan", binary],
    ] {
        let ran = cli(args);
        assert_eq!(ran.code, 9, "{args:?}: {}{}", ran.out, ran.err);
        for words in says {
            assert!(ran.err.contains(words), "{args:?} does not say {words:?} but: {}", ran.err);
        }
    }
    watch.finish();
    assert_eq!((status().generation, status().pending), (generation, None));
}

/// The hash of the binary that runs, by the registry.
fn runs() -> Binary {
    let list = json(&["list"]);
    let active = list.as_array().unwrap().iter().find(|slot| slot["active"] == true).unwrap();
    serde_json::from_value(active["binary"].clone()).unwrap()
}

#[test]
fn what_is_not_listed_is_refused() {
    fresh();
    let scratch = Scratch::new("listed");
    report(&["run", V1]);
    let _asked = Asked::for_what(&format!("sha256 = [\"{}\"]\n", hash(V2)));
    refused(PLAIN, &["/bin/plain may not run on this machine", &hash(PLAIN), "is not listed", FILE]);
    assert_eq!(json(&["swap", PLAIN])["error"]["exit_code"], 9);
    // What is listed runs by its bytes, wherever they are, and is known by its path and its hash.
    let copy = scratch.copy(V2, "another-name");
    let done = report(&["swap", &copy]);
    assert_eq!((done.to.as_str(), done.generation), ("scx_fair 2.0.0", 2));
    assert_eq!((runs().path, runs().sha256), (PathBuf::from(&copy), hash(V2)));
    // What is loaded already was let in before: the way back is not closed.
    assert_eq!(report(&["rollback"]).to, "scx_fair 1.0.0");
    assert_eq!(cli(&["doctor"]).code, 0);
    fresh();
}

#[test]
fn unsigned_where_a_signature_is_required() {
    fresh();
    let scratch = Scratch::new("signed");
    let (ours, theirs) =
        (KeyPair::generate_unencrypted_keypair().unwrap(), KeyPair::generate_unencrypted_keypair().unwrap());
    let (good, bad) = (scratch.copy(V2, "good"), scratch.copy(PLAIN, "bad"));
    report(&["run", V1]);
    let _asked = Asked::for_what(&format!("keys = [\"{}\"]\n", ours.pk.to_base64()));
    refused(&good, &["has no signature", "good.minisig is not there"]);
    sign(&bad, &theirs);
    refused(&bad, &["bad.minisig is by no key that is listed"]);
    sign(&good, &ours);
    fs::copy(format!("{good}.minisig"), format!("{bad}.minisig")).unwrap();
    refused(&bad, &["was changed after it was signed"]);
    assert_eq!(report(&["swap", &good]).to, "scx_fair 2.0.0");
    assert_eq!((runs().path, runs().sha256), (PathBuf::from(&good), hash(V2)));
    // Also through a link: the signature is beside the binary itself.
    let link = scratch.0.join("link");
    symlink(&bad, &link).unwrap();
    sign(&bad, &ours);
    assert_eq!(report(&["swap", link.to_str().unwrap()]).to, "plain 0.1.0");
    assert_eq!(runs().path, PathBuf::from(&bad));
    fresh();
    // And from nothing.
    assert_eq!(report(&["run", &good]).generation, 1);
    fresh();
}

#[test]
fn a_trust_file_that_cannot_be_relied_on_lets_nothing_start() {
    fresh();
    report(&["run", V1]);
    let asked = Asked::for_what("sha256 = [\n");
    refused(V2, &["trust.toml cannot be relied on", "line 1"]);
    assert_eq!(cli(&["doctor"]).code, 1);
    let good = format!("sha256 = [\"{}\"]\n", hash(V2));
    fs::write(FILE, &good).unwrap();
    fs::set_permissions(FILE, fs::Permissions::from_mode(0o666)).unwrap();
    refused(V2, &["others can write it (mode 0666)"]);
    fs::set_permissions(FILE, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(FILE, Some(65534), None).unwrap();
    refused(V2, &["belongs to the user 65534, not to root"]);
    fs::remove_file(FILE).unwrap();
    symlink("/tmp/elsewhere", FILE).unwrap();
    refused(V2, &["it is a link"]);
    fs::remove_file(FILE).unwrap();
    fs::create_dir(FILE).unwrap();
    refused(V2, &["no plain file"]);
    drop(asked);
    assert_eq!(report(&["swap", V2]).generation, 2);
    fresh();
}

/// Someone replaces the file all the time, by another name and in place. Whatever a swap finds, only the listed one ever runs.
#[test]
fn a_binary_replaced_between_check_and_start_does_not_run() {
    fresh();
    let scratch = Scratch::new("replaced");
    let path = scratch.copy(V2, "policy");
    report(&["run", V1]);
    let _asked = Asked::for_what(&format!("sha256 = [\"{}\"]\n", hash(V2)));
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, at) = (stop.clone(), path.clone());
    let new = scratch.0.join("new");
    let replacer = std::thread::spawn(move || {
        let binaries = [V2, PLAIN].map(|binary| fs::read(binary).unwrap());
        let mut times = 0_usize;
        while !flag.load(Ordering::Relaxed) {
            let bytes = &binaries[times % 2];
            if times.is_multiple_of(3) {
                // Refused while it is executed, which a copy of it is.
                let _ = fs::write(&at, bytes);
            } else {
                fs::write(&new, bytes).unwrap();
                fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
                fs::rename(&new, &at).unwrap();
            }
            times += 1;
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        times
    });
    let (mut started, mut refused) = (0, 0);
    for _ in 0..rounds(40) {
        let ran = cli(&["swap", &path]);
        match ran.code {
            0 => started += 1,
            9 => refused += 1,
            // In the middle of a write it is no program at all.
            other => panic!("{other}: {}{}", ran.out, ran.err),
        }
        let listed = [hash(V1), hash(V2)];
        assert!(listed.contains(&runs().sha256), "{:?} runs", runs());
    }
    stop.store(true, Ordering::Relaxed);
    println!("{started} started, {refused} refused, replaced {} times", replacer.join().unwrap());
    fresh();
}

/// Links that someone put where logs and pins go are not followed.
#[test]
fn links_in_the_place_of_folders_are_not_followed() {
    fresh();
    let scratch = Scratch::new("links");
    let logs = Path::new("/run/scx-upgrade");
    let _ = fs::remove_dir_all(logs);
    symlink(&scratch.0, logs).unwrap();
    let ran = cli(&["run", V1]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("/run/scx-upgrade is a link or no folder"), "{}", ran.err);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
    fs::remove_file(logs).unwrap();

    fs::create_dir(logs).unwrap();
    let victim = scratch.0.join("victim");
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, logs.join("scx_fair_v1.log")).unwrap();
    let ran = cli(&["run", V1]);
    assert!(ran.code == 1 && ran.err.contains("is a link"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    fs::remove_dir_all(logs).unwrap();

    // The folder of pins, made by someone else where everyone may write to bpffs.
    let pins = Path::new(e2e::PINS);
    fs::remove_dir(pins).unwrap();
    fs::create_dir(pins).unwrap();
    std::os::unix::fs::chown(pins, Some(65534), None).unwrap();
    let ran = cli(&["run", V1]);
    assert!(ran.code == 1 && ran.err.contains("belongs to another user"), "{}", ran.err);
    fs::remove_dir(pins).unwrap();
    report(&["run", V1]);
    fresh();
}
