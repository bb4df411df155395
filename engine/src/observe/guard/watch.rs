//! The BPF programs that count, `bpf/tools/guard.bpf.c`, attached for as long as this lives.

use std::collections::BTreeMap;

use libbpf_rs::Link;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::Object;
use plain::Plain;

use super::sample::CLASSES;
use super::sample::Delays;
use super::sample::Sample;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::names::HOST_MAP;
use crate::kernel::bpf;
use crate::kernel::object;
use crate::kernel::sysfs;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guard.bpf.o"));
/// The programs that are attached; the other one is called.
const TRACING: [&str; 3] = ["guard_wakeup", "guard_wakeup_new", "guard_switch"];

/// The map of the counters.
const COUNTS: &str = "guard_counts";

/// `struct guard_longest`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Longest {
    waits_ns: u64,
    pid: u32,
    waiting: u32,
}

// SAFETY: repr(C), no padding, any bit pattern is a value.
unsafe impl Plain for Longest {}

/// What has been counted so far under one generation.
#[derive(Debug, Clone, Default)]
struct Counted {
    generation: u32,
    delays: Delays,
    switches: u64,
}

#[derive(Debug)]
pub(super) struct Watch {
    object: Object,
    // Detached when dropped.
    _links: Vec<Link>,
    counted: Counted,
    events: BTreeMap<String, u64>,
}

impl Watch {
    pub fn attach(host: &Host) -> Result<Watch> {
        let mut open = object::open_tool(OBJECT)?;
        let shared: Vec<_> = host.shared().into_iter().filter(|(name, _)| *name == HOST_MAP).collect();
        object::share(&mut open, &shared)?;
        let object = object::load(open, "a tool")?;
        let attached = object.progs_mut().filter(|p| TRACING.iter().any(|name| p.name() == *name));
        let links = attached.map(|p| p.attach().trying("cannot attach the guard")).collect::<Result<_>>()?;
        let mut watch = Watch { object, _links: links, counted: Counted::default(), events: sysfs::events() };
        watch.counted = watch.count(host)?;
        Ok(watch)
    }

    /// What was counted since the last.
    pub fn sample(&mut self, host: &Host) -> Result<Sample> {
        let counted = self.count(host)?;
        // Under another generation the counters begin anew.
        let before = if counted.generation == self.counted.generation {
            std::mem::replace(&mut self.counted, counted.clone())
        } else {
            self.counted = counted.clone();
            Counted::default()
        };
        let now = sysfs::events();
        let grew = |(name, value): (&String, &u64)| {
            (name.clone(), value.saturating_sub(self.events.get(name).copied().unwrap_or(0)))
        };
        let events = now.iter().map(grew).collect();
        self.events = now;
        let longest = self.longest()?;
        Ok(Sample {
            delays: counted.delays.since(&before.delays),
            switches: counted.switches.saturating_sub(before.switches),
            longest_wait_ns: longest.waits_ns,
            longest_pid: longest.pid,
            waiting: longest.waiting,
            events,
            unhealthy: host.data.unhealthy(),
        })
    }

    /// The wake-up delays since the last call, and the generation that is active: without the walk over all tasks that a
    /// sample takes, so that it can be asked for often. What was counted under the generation before is among them.
    pub fn delays(&mut self, host: &Host) -> Result<(u32, Delays)> {
        let before = self.counted.clone();
        let now = self.count(host)?;
        let delays = if now.generation == before.generation {
            now.delays.since(&before.delays)
        } else {
            // Its counters stand until the next generation but one.
            let rest = self.count_of(before.generation)?.delays.since(&before.delays);
            now.delays.and(&rest)
        };
        self.counted = now;
        Ok((self.counted.generation, delays))
    }

    fn count(&self, host: &Host) -> Result<Counted> {
        self.count_of(host.data.active().generation)
    }

    /// What was counted under a generation, if that is the present one or the one before.
    fn count_of(&self, generation: u32) -> Result<Counted> {
        let key = (generation & 1).to_ne_bytes();
        let maps: Vec<_> = self.object.maps().collect();
        let map = maps
            .iter()
            .find(|m| m.name() == COUNTS)
            .ok_or_else(|| Error::BadBuild { name: COUNTS.to_string() })?;
        let per_cpu = map
            .lookup_percpu(&key, MapFlags::ANY)
            .trying("cannot read what the guard counts")?
            .unwrap_or_default();
        let mut total = [0_u64; CLASSES + 1];
        for cpu in &per_cpu {
            let words: Vec<_> = cpu
                .chunks_exact(8)
                .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
                .collect();
            // A CPU that has not switched yet under this generation has the counts of an earlier one.
            if words.get(CLASSES + 1).copied() == Some(u64::from(generation)) {
                total.iter_mut().zip(&words).for_each(|(sum, word)| *sum += word);
            }
        }
        Ok(Counted { generation, delays: Delays::new(&total[..CLASSES]), switches: total[CLASSES] })
    }

    fn longest(&self) -> Result<Longest> {
        let mut longest = Longest::default();
        let name = "guard_find_longest";
        let program = self
            .object
            .progs()
            .find(|p| p.name() == name)
            .ok_or_else(|| Error::BadBuild { name: name.to_string() })?;
        bpf::run(&program, name, &mut longest)?;
        Ok(longest)
    }
}
