//! What is shown of two looks: plain lines, in groups.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::look::Look;
use crate::clock;
use crate::output::line;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// When it was looked.
    pub unix_time: u64,
    /// What runs.
    pub policy: String,
    /// The kernel's word for it.
    pub kernel: String,
    /// What an operator must know at once: that it is off, held or cut off.
    pub alarm: Option<String>,
    pub generation: u32,
    /// How long it has been running, in words.
    pub since: String,
    /// Loaded policies that can be gone back to, the next first.
    pub back_to: Vec<Back>,
    pub queues: Vec<Waiting>,
    pub rates: Vec<Rate>,
}

/// A policy that can be gone back to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Back {
    pub generation: u32,
    pub policy: String,
    /// Does a plain rollback go to it?
    pub next: bool,
}

/// A queue and who waits there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    pub queue: String,
    pub kind: String,
    pub tasks: u64,
}

/// Something that is counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    pub name: String,
    pub total: u64,
    /// None in the first look, and where it did not go up.
    pub per_second: Option<f64>,
}

impl View {
    /// Of two looks, the later one shown; of the same look twice, without rates.
    pub fn of(before: &Look, now: &Look) -> View {
        let status = &now.status;
        let running = status.slots.iter().find(|slot| slot.active);
        let alarm = match (&status.ejected, &status.detached) {
            (Some(reason), _) => Some(format!("the kernel took the host off: {reason}")),
            (_, Some(why)) => Some(why.clone()),
            _ if status.held => Some("no policy runs, tasks are served as they come".to_string()),
            _ => status.pending.map(|n| format!("the swap to generation {n} was cut off, or is under way")),
        };
        let policy =
            running.map_or("no policy".to_string(), |slot| format!("{} {}", slot.policy, slot.version));
        let mut back_to: Vec<_> = status
            .slots
            .iter()
            .filter(|slot| !slot.active)
            .map(|slot| Back {
                generation: slot.generation,
                policy: format!("{} {}", slot.policy, slot.version),
                next: slot.rollback,
            })
            .collect();
        back_to.sort_by_key(|back| (!back.next, std::cmp::Reverse(back.generation)));
        let queues = status.queues.iter().map(|queue| Waiting {
            queue: queue.name.clone(),
            kind: queue.kind.clone(),
            tasks: queue.queued,
        });
        View {
            unix_time: now.unix_time,
            policy,
            kernel: format!("{} {}", status.state, status.ops).trim_end().to_string(),
            alarm,
            generation: status.generation,
            since: running.map_or(String::new(), |slot| clock::ago(slot.since, now.unix_time)),
            back_to,
            queues: queues.collect(),
            rates: rates(before, now),
        }
    }

    /// As lines, for what is no terminal.
    pub fn block(&self) -> String {
        let mut out = String::new();
        line!(out, "{}  {}", clock::local(self.unix_time), self.kernel);
        line!(out, "  running   {}", self.running());
        if let Some(alarm) = &self.alarm {
            line!(out, "  !         {alarm}");
        }
        for back in &self.back_to {
            line!(out, "  back to   {}", back.line());
        }
        for queue in &self.queues {
            line!(out, "  queue     {} ({}), {} waiting", queue.queue, queue.kind, queue.tasks);
        }
        let names = self.rates.iter().map(|rate| rate.name.len()).max().unwrap_or(0);
        for rate in &self.rates {
            let count =
                format!("  count     {:<names$}  {:>12}  {:>12}", rate.name, rate.total, rate.in_words());
            line!(out, "{}", count.trim_end());
        }
        out
    }

    /// What runs, in a line.
    pub fn running(&self) -> String {
        match self.generation {
            0 => self.policy.clone(),
            n => format!("{}, generation {n}, for {}", self.policy, self.since),
        }
    }
}

impl Back {
    /// In a line.
    pub fn line(&self) -> String {
        let how = match self.next {
            true => "rollback".to_string(),
            false => format!("rollback --to {}", self.generation),
        };
        format!("{}, generation {}: {how}", self.policy, self.generation)
    }
}

impl Rate {
    /// `12.3/s`, and nothing where there is no rate.
    pub fn in_words(&self) -> String {
        self.per_second.map_or(String::new(), |rate| format!("{rate:.1}/s"))
    }
}

fn rates(before: &Look, now: &Look) -> Vec<Rate> {
    let seconds = (now.at - before.at).as_secs_f64();
    // Another policy counts anew, under the same names.
    let same = before.status.generation == now.status.generation && seconds > 0.0;
    let rate = |name: &str, total: u64, was: Option<u64>, comparable: bool| Rate {
        name: name.to_string(),
        total,
        per_second: was
            .and_then(|was| total.checked_sub(was))
            .filter(|_| comparable)
            .map(|more| more as f64 / seconds),
    };
    let all = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>, comparable, quiet: bool| {
        let shown = now.iter().filter(|(_, total)| !quiet || **total > 0);
        shown
            .map(|(name, total)| rate(name, *total, before.get(name).copied(), comparable))
            .collect::<Vec<_>>()
    };
    let mut rates = vec![rate("context switches", now.switches, Some(before.switches), seconds > 0.0)];
    rates.extend(all(&now.counters, &before.counters, same, false));
    // Those that never happened say nothing.
    rates.extend(all(&now.events, &before.events, seconds > 0.0, true));
    rates
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;
    use std::time::Instant;

    use scx_upgrade_engine::observe::status::QueueStatus;
    use scx_upgrade_engine::observe::status::SlotStatus;
    use scx_upgrade_engine::observe::status::Status;

    use super::*;

    fn slot(slot: u8, version: &str, generation: u32) -> SlotStatus {
        SlotStatus {
            slot,
            policy: "scx_fair".into(),
            version: version.into(),
            active: generation == 7,
            rollback: generation == 6,
            pid: 1,
            alive: true,
            columns: Vec::new(),
            generation,
            since: 1_795_253_261,
            args: Vec::new(),
            binary: None,
        }
    }

    /// Two looks, two seconds apart.
    pub fn looks() -> (Look, Look) {
        let status = Status {
            hidden: None,
            state: "enabled".into(),
            ops: "scx_upgrade".into(),
            enable_seq: 1,
            running: true,
            generation: 7,
            epoch: 3,
            detached: None,
            pending: None,
            ejected: None,
            held: false,
            slots: vec![slot(0, "1.0.0", 4), slot(1, "2.0.0", 6), slot(2, "3.0.0", 7)],
            queues: vec![QueueStatus {
                name: "fair_queue".into(),
                kind: "vtime".into(),
                id: 1 << 32,
                members: 1,
                queued: 3,
                slots: vec![0, 1, 2],
            }],
            generations: Vec::new(),
            task_bytes_free: 100,
            spared: Vec::new(),
        };
        let at = Instant::now();
        let before = Look {
            at,
            unix_time: 1_795_253_334,
            status,
            switches: 1000,
            events: BTreeMap::from([
                ("SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE".into(), 0),
                ("SCX_EV_BYPASS".into(), 4),
            ]),
            counters: BTreeMap::from([("nr_direct".into(), 10), ("nr_queued".into(), 500)]),
        };
        let now = Look {
            at: at + Duration::from_secs(2),
            unix_time: 1_795_253_336,
            switches: 3000,
            counters: BTreeMap::from([("nr_direct".into(), 40), ("nr_queued".into(), 100)]),
            ..before.clone()
        };
        (before, now)
    }

    #[test]
    fn rates_are_of_what_went_up() {
        let (before, now) = looks();
        let view = View::of(&before, &now);
        let rate = |name: &str| view.rates.iter().find(|r| r.name == name).map(|r| (r.total, r.per_second));
        assert_eq!(rate("context switches"), Some((3000, Some(1000.0))));
        assert_eq!(rate("nr_direct"), Some((40, Some(15.0))));
        assert_eq!(rate("nr_queued"), Some((100, None)), "it went down");
        assert_eq!(rate("SCX_EV_BYPASS"), Some((4, Some(0.0))));
        assert_eq!(rate("SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE"), None, "it never happened");
        assert!(View::of(&now, &now).rates.iter().all(|r| r.per_second.is_none()), "one look has no rates");
    }

    #[test]
    fn another_policys_counters_are_not_compared() {
        let (before, mut now) = looks();
        now.status.generation = 8;
        let view = View::of(&before, &now);
        assert!(view.rates.iter().any(|r| r.name == "nr_direct" && r.per_second.is_none()));
        assert!(view.rates.iter().any(|r| r.name == "context switches" && r.per_second.is_some()));
    }

    #[test]
    fn a_block_has_what_runs_and_where_back_goes() {
        let (before, mut now) = looks();
        now.status.pending = Some(8);
        let block = View::of(&before, &now).block();
        assert!(block.contains("  running   scx_fair 3.0.0, generation 7, for 1 min 15 s\n"), "{block}");
        assert!(block.contains("  back to   scx_fair 2.0.0, generation 6: rollback\n"), "{block}");
        assert!(block.contains("  back to   scx_fair 1.0.0, generation 4: rollback --to 4\n"), "{block}");
        assert!(block.contains("  queue     fair_queue (vtime), 3 waiting\n"), "{block}");
        assert!(block.contains("generation 8 was cut off"), "{block}");
        assert!(block.lines().all(|l| l.chars().count() <= 80), "{block}");
    }
}
