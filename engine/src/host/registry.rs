//! The host's registry: what stands in each slot, where each column lives, which DSQs there are, what was committed. It
//! is one value of one pinned map, so one map update is one transaction, and it ends with the boot as the scheduler
//! does. The control word, not the registry, says what runs.

mod queues;

use std::time::Duration;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use state_migrate::layout::Layout;
use state_migrate::schema::Schema;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi;
use crate::host::attach_config::AttachConfig;
use crate::host::attach_config::OpsRequirements;
use crate::host::attach_config::uses;
use crate::host::scopes;
use crate::os::identity::Binary;

pub(crate) use queues::Claimed;
pub use queues::QueueInfo;

/// How often a registry that is not whole is read again, a millisecond apart.
const READ_AGAIN: u32 = 20;
/// Generations that the registry keeps.
const KEEP_GENERATIONS: usize = 32;

/// A policy that is loaded in a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlotInfo {
    /// Its name, from its `sched_ext_ops`.
    pub policy: String,
    /// Version of its crate.
    pub version: String,
    /// Counts loads since the host started: tells a slot's present content from an earlier one.
    pub load: u64,
    /// Its state and queues.
    pub schema: Schema,
    /// The ops it defines.
    pub ops: Vec<String>,
    /// Flags that the host sets and it lacks, `LACKS_*`.
    pub lacks: u8,
    /// Ops flags that it asks for and that the host sets only for such a policy: see [`AttachConfig`].
    #[serde(default)]
    pub flags: u64,
    /// The process of its frontend; 0 where none was started yet.
    pub pid: u32,
    /// The path of its binary, and its arguments.
    pub args: Vec<String>,
    /// The binary that it came from, if that could be read.
    #[serde(default)]
    pub binary: Option<Binary>,
}

impl SlotInfo {
    /// Name and version of the policy, as messages have them.
    pub fn title(&self) -> String {
        format!("{} {}", self.policy, self.version)
    }

    /// What it asks of its host's terms.
    pub(crate) fn asks(&self) -> OpsRequirements {
        OpsRequirements { flags: self.flags, uses: uses(self.ops.iter(), self.lacks) }
    }

    /// The policy's arguments, without the path of its binary.
    pub fn own_args(&self) -> &[String] {
        self.args.get(1..).unwrap_or_default()
    }
}

/// How a generation came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The host was attached with it.
    Start,
    /// Swapped in.
    Swap,
    /// Taken back.
    Rollback,
    /// Attached again, after the kernel took the host off.
    Recovery,
}

/// One commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Generation {
    /// Its number.
    pub number: u32,
    /// How.
    pub kind: Kind,
    /// Slot that it runs in.
    pub slot: u8,
    /// Which load of that slot.
    pub load: u64,
    /// Policy's name.
    pub policy: String,
    /// Policy's version.
    pub version: String,
    /// Seconds since 1970.
    pub unix_time: u64,
}

impl Generation {
    /// Name and version of the policy, as messages have them.
    pub fn title(&self) -> String {
        format!("{} {}", self.policy, self.version)
    }
}

/// A command that is changing the host. The command writes this before its first change. When the host's `closed` has its
/// generation number, the command is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// What the commit would make active.
    pub generation: Generation,
    /// The epoch that the commit would set.
    pub epoch: u32,
    /// The slot whose own programs sweep, if the plan calls conversions of that policy's.
    #[serde(default)]
    pub sweeper: Option<u8>,
    /// The empty slot that is active while a rollback holds: see `quiesce.rs`.
    #[serde(default)]
    pub hold: Option<u8>,
    /// Set where the commit takes a reattach.
    #[serde(default)]
    pub reattach: Option<Reattach>,
}

/// What a reattach changes about the attached host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reattach {
    /// Its terms before,
    pub from: AttachConfig,
    /// and after.
    pub to: AttachConfig,
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registry {
    /// Version of the host's ABI.
    pub abi: u32,
    /// Version of the records' form: [`abi::RECORDS`].
    #[serde(default = "first_records")]
    pub records: u32,
    /// What the host is attached on. A policy that it does not suit takes a reattach.
    #[serde(flatten)]
    pub terms: AttachConfig,
    /// Counter for [`SlotInfo::load`].
    pub loads: u64,
    /// Counter for families of DSQs, the upper half of their ids: none is used twice while the host lives.
    pub queue_ids: u64,
    /// Where each column stands.
    pub layout: Layout,
    /// What is loaded.
    pub slots: [Option<SlotInfo>; abi::NR_SLOTS],
    /// The DSQs.
    pub queues: Vec<QueueInfo>,
    /// The latest commits, oldest first.
    pub generations: Vec<Generation>,
    /// Set while a swap changes the host.
    pub pending: Option<Pending>,
}

impl Registry {
    /// The registry of a host in which nothing is loaded yet.
    pub fn new() -> Registry {
        Registry {
            abi: abi::ABI,
            records: abi::RECORDS,
            terms: AttachConfig::default(),
            loads: 0,
            queue_ids: 0,
            layout: scopes::empty_layout(),
            slots: Default::default(),
            queues: Vec::new(),
            generations: Vec::new(),
            pending: None,
        }
    }

    /// Read it from the pinned map. A reader without the lock may catch a writer in the middle of its copy: what is
    /// not whole is read again a few times.
    ///
    /// # Errors
    /// [`Error::Registry`] when it is not whole.
    pub fn load(map: &MapHandle) -> Result<Registry> {
        Registry::load_as(map)
    }

    /// Read a part of it, for a host of another version.
    pub(crate) fn load_as<T: DeserializeOwned>(map: &MapHandle) -> Result<T> {
        for _ in 0..READ_AGAIN {
            match load_once(map) {
                Err(Error::Registry { .. }) => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
        load_once(map)
    }

    /// Write it: one system call, which a kill cannot cut in half.
    ///
    /// # Errors
    /// It outgrew the map.
    pub fn save(&self, map: &MapHandle) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| damaged(&e.to_string()))?;
        let room = map.value_size() as usize;
        let mut value = frame(&json);
        if value.len() > room {
            return Err(damaged(&format!("it would need {} bytes and has {room}", value.len())));
        }
        value.resize(room, 0);
        map.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY).trying("cannot write the registry")
    }

    /// Take in what happened since it was written: the host's `closed` says which generation is complete. One
    /// that is pending here and closed there is committed, and where that took a reattach, the host is attached on its terms.
    pub fn settle(&mut self, closed: u32) {
        if let Some(pending) = self.pending.take_if(|pending| pending.generation.number == closed) {
            if let Some(reattach) = pending.reattach {
                self.terms = reattach.to;
            }
            self.record(pending.generation);
        }
    }

    /// Was anything ever committed? If not, a start was cut off, and there is no state.
    pub fn has_run(&self) -> bool {
        !self.generations.is_empty() || self.pending.as_ref().is_some_and(|p| p.reattach.is_some())
    }

    /// What is loaded in `slot`.
    pub fn slot(&self, slot: u8) -> Option<&SlotInfo> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref)
    }

    /// Add a commit, forgetting the oldest beyond what is kept.
    pub fn record(&mut self, generation: Generation) {
        self.generations.push(generation);
        let surplus = self.generations.len().saturating_sub(KEEP_GENERATIONS);
        self.generations.drain(..surplus);
    }

    /// The slot for the next policy: a free one, else the one whose policy was longest not committed; never the
    /// active one nor the one that a rollback would go to.
    pub fn choose_slot(&self, active: u8) -> u8 {
        let back = self.rollback_target(active).map(|g| g.slot);
        self.choose_slot_but(&[Some(active), back].into_iter().flatten().collect::<Vec<_>>())
    }

    /// The same, but never one of `kept`, which are at most three.
    pub(crate) fn choose_slot_but(&self, kept: &[u8]) -> u8 {
        let last_commit = |slot: u8| {
            let load = self.slot(slot).map(|s| s.load);
            self.generations
                .iter()
                .rev()
                .find(|g| g.slot == slot && Some(g.load) == load)
                .map_or(0, |g| g.number)
        };
        (0..abi::NR_SLOTS as u8)
            .filter(|slot| !kept.contains(slot))
            .min_by_key(|slot| (self.slot(*slot).is_some(), last_commit(*slot)))
            // With four slots the filter leaves at least one.
            .unwrap_or_default()
    }

    /// The latest generation other than the running policy's whose policy is still loaded.
    pub fn rollback_target(&self, active: u8) -> Option<&Generation> {
        self.generations
            .iter()
            .rev()
            .find(|g| g.slot != active && self.slot(g.slot).is_some_and(|s| s.load == g.load))
    }

    /// The generation that runs, or ran when the kernel took the host off.
    pub fn latest_in(&self, active: u8) -> Option<&Generation> {
        self.generations.iter().rfind(|g| g.slot == active)
    }

    /// The generation of that number, if its policy is still loaded and another than the running one's.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`], or [`Error::NoRollback`] with the generations that there are.
    pub fn rollback_target_to(&self, active: u8, number: u32) -> Result<&Generation> {
        let loaded = |g: &&Generation| self.slot(g.slot).is_some_and(|s| s.load == g.load);
        let known = self.generations.iter().find(|g| g.number == number);
        match known.filter(loaded) {
            Some(g) if g.slot != active => return Ok(g),
            Some(g) => {
                let latest = self.latest_in(active).map_or(0, |g| g.number);
                return Err(Error::AlreadyRunning { policy: g.title(), generation: latest });
            }
            None => {}
        }
        let others: Vec<_> = self.generations.iter().filter(loaded).filter(|g| g.slot != active).collect();
        let others: Vec<_> =
            others.iter().map(|g| format!("{} ({} {})", g.number, g.policy, g.version)).collect();
        let can = match others.len() {
            0 => "there is no other one".to_string(),
            _ => format!("there are {}", others.join(", ")),
        };
        let why = match known {
            Some(g) => format!(
                "{} {} of generation {number} is loaded no more: swap to its binary. Of those that are loaded {can}",
                g.policy, g.version
            ),
            None => format!("no generation {number} is known. Of those that are loaded {can}"),
        };
        Err(Error::NoRollback { why })
    }

    /// Forget the policy in `slot`, its columns and its claim on DSQs.
    pub fn evict(&mut self, slot: u8) {
        self.slots[usize::from(slot)] = None;
        self.layout.evict(u32::from(slot));
        for queue in &mut self.queues {
            queue.slots.remove(&u32::from(slot));
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Registry::new()
    }
}

fn load_once<T: DeserializeOwned>(map: &MapHandle) -> Result<T> {
    let bytes = map
        .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
        .trying("cannot read the registry")?
        .ok_or_else(|| damaged("empty"))?;
    let json = unframe(&bytes)?;
    serde_json::from_slice(json).map_err(|e| damaged(&e.to_string()))
}

/// OldRegistry that do not say have the first form.
fn first_records() -> u32 {
    1
}

/// Length and checksum before the text.
fn frame(json: &[u8]) -> Vec<u8> {
    let (len, sum) = (json.len() as u32, crc32fast::hash(json));
    [&len.to_le_bytes()[..], &sum.to_le_bytes()[..], json].concat()
}

/// The inverse of [`frame`]; what follows the text does not count.
fn unframe(bytes: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        word.ok_or_else(|| damaged("too small"))
    };
    let (len, sum) = (word(0)? as usize, word(4)?);
    let json = bytes[8..].get(..len).ok_or_else(|| damaged("its length is wrong"))?;
    if crc32fast::hash(json) != sum {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(json)
}

fn damaged(why: &str) -> Error {
    Error::Registry { why: why.to_string() }
}

/// Which of the loaded policies a rollback or a recovery makes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackTarget {
    /// The one before the running one.
    Before,
    /// That of the generation of this number.
    Generation(u32),
    /// The one that ran when the kernel took the host off.
    Same,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Something that is loaded.
    pub(crate) fn slot_info(load: u64) -> SlotInfo {
        SlotInfo {
            policy: format!("p{load}"),
            version: "1".into(),
            load,
            schema: Schema::default(),
            ops: vec![],
            lacks: 0,
            flags: 0,
            pid: 1,
            args: vec![],
            binary: None,
        }
    }

    fn loaded(registry: &mut Registry, slot: u8, number: u32) {
        registry.loads += 1;
        let load = registry.loads;
        registry.slots[usize::from(slot)] = Some(slot_info(load));
        registry.record(Generation {
            number,
            kind: Kind::Swap,
            slot,
            load,
            policy: format!("p{load}"),
            version: "1".into(),
            unix_time: 0,
        });
    }

    #[test]
    fn free_slots_are_taken_first_and_the_way_back_never() {
        let mut registry = Registry::new();
        loaded(&mut registry, 0, 1);
        assert!(registry.rollback_target(0).is_none());
        for number in 2..40 {
            let active = registry.generations.last().map(|g| g.slot).unwrap();
            let back = registry.rollback_target(active).map(|g| g.slot);
            let slot = registry.choose_slot(active);
            assert_ne!(slot, active);
            assert_ne!(Some(slot), back);
            if number <= 4 {
                assert!(registry.slot(slot).is_none(), "generation {number} took a slot in use");
            }
            registry.evict(slot);
            loaded(&mut registry, slot, number);
            assert_eq!(registry.rollback_target(slot).unwrap().slot, active);
        }
        assert_eq!(registry.generations.len(), KEEP_GENERATIONS);
    }

    #[test]
    fn a_generation_can_be_gone_back_to_while_its_policy_is_loaded() {
        let mut registry = Registry::new();
        (0..4).for_each(|slot| loaded(&mut registry, slot, u32::from(slot) + 1));
        assert_eq!(registry.rollback_target_to(3, 1).unwrap().slot, 0);
        assert!(matches!(
            registry.rollback_target_to(3, 4),
            Err(Error::AlreadyRunning { generation: 4, .. })
        ));
        registry.evict(0);
        loaded(&mut registry, 0, 5);
        let gone = registry.rollback_target_to(0, 1).unwrap_err().to_string();
        assert!(gone.contains("loaded no more") && gone.contains("2 (p2 1), 3 (p3 1), 4 (p4 1)"), "{gone}");
        let unknown = registry.rollback_target_to(0, 77).unwrap_err().to_string();
        assert!(unknown.contains("no generation 77"), "{unknown}");
    }

    #[test]
    fn a_registry_that_is_not_whole_is_told() {
        let mut bytes = frame(b"{\"some\": 1}");
        bytes.resize(64, 0);
        assert_eq!(unframe(&bytes).unwrap(), b"{\"some\": 1}");
        for at in 0..19 {
            let mut torn = bytes.clone();
            torn[at] ^= 0x10;
            assert!(unframe(&torn).is_err(), "byte {at}");
        }
        assert!(unframe(&[]).is_err());
        assert!(unframe(&[0xff; 8]).is_err());
    }

    #[test]
    fn the_oldest_policy_goes_when_no_slot_is_free() {
        let mut registry = Registry::new();
        for slot in 0..4 {
            loaded(&mut registry, slot, u32::from(slot) + 1);
        }
        assert_eq!(registry.choose_slot(3), 0);
    }
}
