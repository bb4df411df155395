//! The host's books: what stands in each slot, where each column lives, which DSQs there are, what was committed. They
//! are one value of one pinned map, so one map update is one transaction, and they end with the boot as the scheduler
//! does. The control word, not the registry, says what runs.

use std::collections::BTreeSet;
use std::time::Duration;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use state_migrate::layout::Layout;
use state_migrate::schema::QueueOrder;
use state_migrate::schema::Schema;

use crate::abi;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::scopes;

/// How often books that are not whole are read again, a millisecond apart.
const READ_AGAIN: u32 = 20;
/// Generations that the books keep.
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
    /// Ops flags that it asks for and that the host sets only for such a policy: see [`Registry::flags`].
    #[serde(default)]
    pub flags: u64,
    /// The process that loaded it.
    pub pid: u32,
    /// Its arguments.
    pub args: Vec<String>,
}

/// A DSQ of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its name in the policies that use it.
    pub name: String,
    /// FIFO or by vtime.
    pub order: QueueOrder,
    /// The kernel's id.
    pub id: u64,
    /// Slots whose policy names it.
    pub slots: BTreeSet<u32>,
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

/// A swap that has begun to change the host. It is written before the first change and removed after the last, so
/// the next command can tell what a killed one left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// What the commit would make active.
    pub generation: Generation,
    /// The epoch that the commit would set.
    pub epoch: u32,
    /// Set where the commit takes a reattach.
    #[serde(default)]
    pub reattach: Option<Reattach>,
}

/// What a reattach changes about the attached host: see [`Registry::flags`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Reattach {
    /// Its flags before,
    pub from: u64,
    /// and after.
    pub to: u64,
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registry {
    /// Version of the host's ABI.
    pub abi: u32,
    /// Version of the records' form: [`abi::RECORDS`].
    #[serde(default = "first_records")]
    pub records: u32,
    /// The ops flags that the host is attached with, beyond those that it always sets. The kernel reads them once, so a
    /// policy that asks for others takes a reattach.
    #[serde(default)]
    pub flags: u64,
    /// Counter for [`SlotInfo::load`].
    pub loads: u64,
    /// Counter for DSQ ids: never used twice while the host lives.
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
    /// The books of a host in which nothing is loaded yet.
    pub fn new() -> Registry {
        Registry {
            abi: abi::ABI,
            records: abi::RECORDS,
            flags: 0,
            loads: 0,
            queue_ids: 0,
            layout: scopes::empty_layout(),
            slots: Default::default(),
            queues: Vec::new(),
            generations: Vec::new(),
            pending: None,
        }
    }

    /// Read them from the pinned map. A reader without the lock may catch a writer in the middle of its copy: what is
    /// not whole is read again a few times.
    ///
    /// # Errors
    /// [`Error::Registry`] when they are not whole.
    pub fn load(map: &MapHandle) -> Result<Registry> {
        Registry::load_as(map)
    }

    /// Read a part of them, for a host of another version.
    pub(crate) fn load_as<T: DeserializeOwned>(map: &MapHandle) -> Result<T> {
        for _ in 0..READ_AGAIN {
            match load_once(map) {
                Err(Error::Registry { .. }) => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
        load_once(map)
    }

    /// Write them: one system call, which a kill cannot cut in half.
    ///
    /// # Errors
    /// They outgrew the map.
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
        let last_commit = |slot: u8| {
            let load = self.slot(slot).map(|s| s.load);
            self.generations
                .iter()
                .rev()
                .find(|g| g.slot == slot && Some(g.load) == load)
                .map_or(0, |g| g.number)
        };
        (0..abi::NR_SLOTS as u8)
            .filter(|slot| *slot != active && Some(*slot) != back)
            .min_by_key(|slot| (self.slot(*slot).is_some(), last_commit(*slot)))
            // With four slots the filter leaves at least two.
            .unwrap_or((active + 1) % abi::NR_SLOTS as u8)
    }

    /// The latest generation other than the running policy's whose policy is still loaded.
    pub fn rollback_target(&self, active: u8) -> Option<&Generation> {
        self.generations
            .iter()
            .rev()
            .find(|g| g.slot != active && self.slot(g.slot).is_some_and(|s| s.load == g.load))
    }

    /// Forget the policy in `slot`, its columns and its claim on DSQs.
    pub fn evict(&mut self, slot: u8) {
        self.slots[usize::from(slot)] = None;
        self.layout.evict(u32::from(slot));
        for queue in &mut self.queues {
            queue.slots.remove(&u32::from(slot));
        }
    }

    /// Claim the DSQs of `schema` for `slot`, new ones where none of that name and order stands. Gives the ids in
    /// the schema's order, and those that have yet to be created.
    pub fn claim_queues(&mut self, schema: &Schema, slot: u8) -> (Vec<u64>, Vec<u64>) {
        let mut ids = Vec::new();
        let mut new = Vec::new();
        for wanted in &schema.queues {
            let known = self.queues.iter_mut().find(|q| q.name == wanted.name && q.order == wanted.order);
            let queue = match known {
                Some(queue) => queue,
                None => {
                    self.queue_ids += 1;
                    let id = self.queue_ids;
                    new.push(id);
                    self.queues.push(QueueInfo {
                        name: wanted.name.clone(),
                        order: wanted.order,
                        id,
                        slots: BTreeSet::new(),
                    });
                    // Just pushed.
                    let last = self.queues.len() - 1;
                    &mut self.queues[last]
                }
            };
            queue.slots.insert(u32::from(slot));
            ids.push(queue.id);
        }
        (ids, new)
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

/// Books that do not say have the first form.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(registry: &mut Registry, slot: u8, number: u32) {
        registry.loads += 1;
        let load = registry.loads;
        registry.slots[usize::from(slot)] = Some(SlotInfo {
            policy: format!("p{load}"),
            version: "1".into(),
            load,
            schema: Schema::default(),
            ops: vec![],
            lacks: 0,
            flags: 0,
            pid: 1,
            args: vec![],
        });
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
    fn books_that_are_not_whole_are_told() {
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
