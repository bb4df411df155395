//! `scx-upgrade doctor`: what could stand in the way, and what to do about it.

use std::fmt::Write as _;

use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::observe::doctor;
use scx_upgrade_engine::observe::doctor::Check;
use scx_upgrade_engine::observe::doctor::Verdict;

use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::trust::Trust;
use crate::trust::TrustError;

pub fn doctor(out: Output) -> Result<(), Failure> {
    let mut checks = doctor::examine();
    checks.push(trust());
    let message = match checks.iter().filter(|c| c.verdict == Verdict::Blocks).count() {
        0 => {
            out.show(&checks, |out| text(out, &checks));
            return Ok(());
        }
        1 => "something stands in the way, see above".to_string(),
        n => format!("{n} things stand in the way, see above"),
    };
    Err(out.show_failed(&checks, |out| text(out, &checks), Failure::new(Exit::Failed, message)))
}

/// What root asks of a policy. An ordinary user may not be let to see it.
fn trust() -> Check {
    let (verdict, found) = match Trust::of_this_machine() {
        Ok(None) => (Verdict::Ok, "nothing is asked of a policy".to_string()),
        Ok(Some(trust)) => (Verdict::Ok, trust.to_string()),
        Err(TrustError::Unreadable { file, .. }) => {
            (Verdict::Unknown, format!("{} can be read by root only", file.display()))
        }
        Err(error) => (Verdict::Blocks, error.to_string()),
    };
    let why = "only a policy that is listed or signed may be started where that is asked for";
    Check { name: "trust".to_string(), verdict, found, why: why.to_string() }
}

fn text(out: &mut String, checks: &[Check]) {
    let names = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Unknown => "unknown",
            Verdict::Blocks => "blocks",
        };
        let _ = write!(out, "{verdict:<8} {:<names$}  ", check.name);
        let indent = 8 + 1 + names + 2;
        output::wrapped(out, indent, &check.found);
        if check.verdict != Verdict::Ok {
            let _ = write!(out, "{:indent$}why: ", "");
            output::wrapped(out, indent, &check.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blocks_is_explained_and_fits_a_terminal() {
        let check = |verdict, found: &str| Check {
            name: "scheduler".to_string(),
            verdict,
            found: found.to_string(),
            why: "the kernel runs one at a time".to_string(),
        };
        let error =
            scx_upgrade_engine::Error::OtherScheduler { ops: "simple".into(), state: "enabled".into() };
        let mut out = String::new();
        text(&mut out, &[check(Verdict::Ok, "none"), check(Verdict::Blocks, &error.to_string())]);
        assert!(out.starts_with("ok       scheduler  none\nblocks   scheduler  another sched_ext"), "{out}");
        assert!(out.ends_with("why: the kernel runs one at a time\n"), "{out}");
        assert!(out.lines().all(|line| line.len() <= output::WIDTH), "{out}");
    }
}
