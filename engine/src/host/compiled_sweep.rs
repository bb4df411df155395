//! The sweep of many tasks with the plan in instructions (`bpf/tools/compiled.bpf.c`): made, loaded and verified before the
//! commit, run once after it, gone. What it does is what the host's own sweep does, for a fraction of the time; where it
//! cannot be had the host's own sweep is used, and so it is by whoever finishes a swap that was killed.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use libbpf_rs::MapHandle;
use libbpf_rs::Object;
use state_migrate::Plan;
use state_migrate::Scope;
use state_migrate::Step;

use crate::error::Error;
use crate::error::Result;
use crate::host::scopes::SCOPES;
use crate::host::scopes::ScopeParts;
use crate::kernel::object;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/compiled.bpf.o"));
/// Bytes of an instruction.
const INSN: usize = 8;
/// `r0 = 0; if r0 == 0 goto`: always, but the verifier has to find that out, or it would complain of what lies between.
const SKIP: [[u8; INSN]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x15, 0, 0, 0, 0, 0, 0, 0]];
/// `exit`
const EXIT: u8 = 0x95;
/// The scopes that it has programs for, and the functions whose bodies are the plan.
const BODIES: [(Scope, &str); 2] = [(Scope::Task, "scxu_plan_task"), (Scope::Cgroup, "scxu_plan_cgroup")];

/// Loaded and verified.
#[derive(Debug)]
pub struct Compiled {
    object: Object,
    scopes: Vec<Scope>,
}

impl Compiled {
    /// The sweep for this plan, or `None` where no scope's steps can be put into instructions, or none has any.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(plan: &Plan, shared: &[(&str, &MapHandle)]) -> Result<Option<Compiled>> {
        let mut elf = OBJECT.to_vec();
        let mut scopes = Vec::new();
        for (scope, function) in BODIES {
            if let Some(steps) = plan.steps.get(&scope)
                && write(&mut elf, function, steps)?
            {
                scopes.push(scope);
            }
        }
        if scopes.is_empty() {
            return Ok(None);
        }
        let wanted = |program: &str| SCOPES.iter().any(|s| s.sweep == program && scopes.contains(&s.scope));
        let object = object::load_programs(&elf, shared, wanted)?;
        Ok(Some(Compiled { object, scopes }))
    }

    /// Its program for a scope, if it has one.
    pub fn program(&self, scope: &ScopeParts) -> Option<BorrowedFd<'_>> {
        if !self.scopes.contains(&scope.scope) {
            return None;
        }
        let program = self.object.progs().find(|p| p.name() == scope.sweep)?;
        // SAFETY: the descriptor belongs to `self.object`, which the result borrows.
        Some(unsafe { BorrowedFd::borrow_raw(program.as_fd().as_raw_fd()) })
    }
}

/// Write the steps over the body of a function; false if they cannot be put into instructions, or not into so few.
fn write(elf: &mut [u8], function: &str, steps: &[Step]) -> Result<bool> {
    let damaged = || Error::BadBuild { name: function.to_string() };
    let body = state_migrate::object::function(elf, function).ok().flatten().ok_or_else(damaged)?;
    let body = &mut elf[body];
    // Behind the room for the plan stands one instruction more.
    let room = body.len() / INSN - 1 - SKIP.len();
    if body[(room + SKIP.len()) * INSN] != EXIT {
        return Err(damaged());
    }
    let Some(code) = state_migrate::compile(steps, room) else { return Ok(false) };
    let [zero, mut skip] = SKIP;
    let left = room - code.len() / INSN;
    skip[2..4].copy_from_slice(&(left as i16).to_le_bytes());
    let all = [&code[..], &zero, &skip].concat();
    body[..all.len()].copy_from_slice(&all);
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use state_migrate::Repeat;

    use super::*;

    #[test]
    fn the_plan_is_written_over_the_body_and_nothing_else() {
        let steps = [Step::Store { to: 8, size: 4, value: 7, repeat: Repeat::ONCE }];
        let mut elf = OBJECT.to_vec();
        assert!(write(&mut elf, "scxu_plan_task", &steps).unwrap());
        let body = state_migrate::object::function(OBJECT, "scxu_plan_task").unwrap().unwrap();
        assert_eq!(elf[..body.start], OBJECT[..body.start]);
        assert_eq!(elf[body.start + 3 * INSN..], OBJECT[body.start + 3 * INSN..]);
        // *(u32 *)(r1 + 8) = 7
        assert_eq!(elf[body.start..][..INSN], [0x62, 1, 8, 0, 7, 0, 0, 0]);
        // From the instruction behind the jump to the last.
        let off = i16::from_le_bytes([elf[body.start + 2 * INSN + 2], elf[body.start + 2 * INSN + 3]]);
        assert_eq!(body.start + 3 * INSN + off as usize * INSN, body.end - INSN);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_host() {
        let repeat = Repeat { count: 4000, from_stride: 0, to_stride: 1 };
        let steps = [Step::Store { to: 8, size: 1, value: 7, repeat }];
        assert!(!write(&mut OBJECT.to_vec(), "scxu_plan_task", &steps).unwrap());
    }
}
