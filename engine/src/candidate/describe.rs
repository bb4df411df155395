//! Asks a policy's binary for its settings: the binary knows what its arguments mean, and the engine does not.

use std::io;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use scx_upgrade_protocol::DESCRIBE;
use scx_upgrade_protocol::Description;

use crate::error::Error;
use crate::error::Result;

/// How long a binary may take. It only prints; but it may wait for a CPU behind the scheduler that is to be replaced.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much it may print, bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How much of its complaints is shown, bytes.
const MAX_COMPLAINT: u64 = 16 << 10;
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(2);
/// The exit code of a program that does not understand its command line.
const USAGE: i32 = 2;

/// What the binary says of itself, with these arguments. `program` is what is executed, `path` what messages and the binary's
/// own usage text call it.
///
/// # Errors
/// [`Error::NotDescribed`]
pub fn describe(program: &Path, path: &Path, args: &[String]) -> Result<Description> {
    let fail = |why: String, usage: bool| Error::NotDescribed { path: path.to_path_buf(), why, usage };
    let mut child = Command::new(program)
        .arg0(path)
        .arg(DESCRIBE)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map(Group)
        .map_err(|e| fail(format!("it cannot be started: {e}"), false))?;
    let deadline = Instant::now() + PATIENCE;
    let answer = collect(child.0.stdout.take(), MAX_ANSWER);
    let complaint = collect(child.0.stderr.take(), MAX_COMPLAINT);
    let status = wait(&mut child.0, deadline);
    // What it started may hold its output open.
    let rest =
        |reader: &Receiver<String>| reader.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let (Some(status), Ok(answer), Ok(complaint)) = (status, rest(&answer), rest(&complaint)) else {
        return Err(fail(format!("it gave no answer within {} seconds", PATIENCE.as_secs()), false));
    };
    if !status.success() {
        let usage = status.code() == Some(USAGE);
        return Err(fail(format!("{status}\n{}", complaint.trim_end()), usage));
    }
    serde_json::from_str(&answer).map_err(|e| fail(format!("its answer makes no sense: {e}"), false))
}

/// A child, and what it started: all of it ends with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn wait(child: &mut Child, deadline: Instant) -> Option<std::process::ExitStatus> {
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK);
    }
    None
}

/// Reads all that comes, and keeps the beginning: a pipe that nobody reads would hold the program up.
fn collect(pipe: Option<impl Read + Send + 'static>, most: u64) -> Receiver<String> {
    let (tell, told) = channel();
    thread::spawn(move || {
        let (mut kept, Some(mut pipe)) = (Vec::new(), pipe) else { return };
        let _ = (&mut pipe).take(most).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
        let _ = tell.send(String::from_utf8_lossy(&kept).into_owned());
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_shell(script: &str) -> Result<Description> {
        // The option comes first, and a shell takes it for one of its own: `sh -c SCRIPT` needs another program in front.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("policy");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        describe(&program, &program, &["--slice-us".into(), "5".into()])
    }

    #[test]
    fn a_binary_gets_its_arguments_and_describes_itself() {
        let script = r#"[ "$*" = "--describe --slice-us 5" ] && echo '{"version":"1.2","settings":{"slice_ns":"0500"},"later":1}'"#;
        let described = of_shell(script).unwrap();
        assert_eq!((described.version.as_str(), described.settings["slice_ns"].as_str()), ("1.2", "0500"));
    }

    #[test]
    fn what_it_complains_of_is_told() {
        let wrong = of_shell("echo 'error: no such option' >&2; exit 2").unwrap_err();
        assert!(wrong.to_string().contains("no such option"), "{wrong}");
        assert_eq!(wrong.exit_code(), 2);
        let failed = of_shell("exit 1").unwrap_err();
        assert_eq!(failed.exit_code(), 1);
        let silent = of_shell("exit 0").unwrap_err();
        assert!(silent.to_string().contains("makes no sense"), "{silent}");
    }

    #[test]
    fn what_it_leaves_behind_holds_nothing_up_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script =
            format!("echo '{{\"version\":\"1\"}}'; sleep 1000 >/dev/null 2>&1 & echo $! > {}", pid.display());
        assert_eq!(of_shell(&script).unwrap().version, "1");
        let pid: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while crate::os::identity::is_alive(pid) && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        assert!(!crate::os::identity::is_alive(pid));
    }

    #[test]
    fn an_answer_without_end_is_cut_off() {
        let endless = of_shell("yes | head -c 3000000").unwrap_err();
        assert!(endless.to_string().contains("makes no sense"), "{endless}");
    }
}
