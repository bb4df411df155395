//! Which DSQs there are, and which policies name them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;
use state_migrate::QueueRow;
use state_migrate::schema::Queue;
use state_migrate::schema::QueueOrder;
use state_migrate::schema::QueueSpan;
use state_migrate::schema::Schema;

use super::Registry;
use crate::error::Error;
use crate::error::Result;

/// Where in a DSQ's id its family stands; below it, the member. See `struct scxu_dsq_group`.
const FAMILY_SHIFT: u32 = 32;
/// Families that there are ids for: bits 62 and 63 of an id are the kernel's (SCX_DSQ_FLAG_LOCAL_ON, _BUILTIN).
const MAX_FAMILIES: u64 = (1 << 30) - 1;

/// A DSQ of the host, or a family of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its name in the policies that use it.
    pub name: String,
    /// FIFO or by vtime.
    pub order: QueueOrder,
    /// What there is one of.
    #[serde(default)]
    pub span: QueueSpan,
    /// The kernel's id; of a family, that of its first member.
    pub id: u64,
    /// Slots whose policy names it.
    pub slots: BTreeSet<u32>,
}

impl QueueInfo {
    /// As a policy declares it.
    pub fn queue(&self) -> Queue {
        Queue { name: self.name.clone(), order: self.order, span: self.span }
    }
}

/// The queues of a policy that is about to be loaded.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// All of them, in the schema's order.
    pub all: Vec<QueueInfo>,
    /// Those that have yet to be created.
    pub new: Vec<QueueInfo>,
}

impl Claimed {
    /// Their ids, in the schema's order.
    pub fn ids(&self) -> Vec<u64> {
        self.all.iter().map(|q| q.id).collect()
    }
}

impl Registry {
    /// What a swap from the policy in `running` to one with the queues `new` would do to the queues.
    pub fn queue_rows(&self, running: u8, new: &[Queue]) -> Vec<QueueRow> {
        let running = self.slot(running).map_or(&[][..], |s| &s.schema.queues);
        let loaded: Vec<_> =
            self.queues.iter().filter(|q| !q.slots.is_empty()).map(QueueInfo::queue).collect();
        state_migrate::queue_rows(running, &loaded, new)
    }

    /// The same, where nothing is carried: no queue is kept.
    pub fn queue_rows_anew(&self, running: u8, new: &[Queue]) -> Vec<QueueRow> {
        let mut rows = state_migrate::queue_rows(&[], &[], new);
        rows.extend(self.queue_rows(running, &[]));
        rows
    }

    /// Claim the DSQs of `schema` for `slot`, new ones where none of that name, order and span stands: first among those
    /// of the policy in `running`.
    ///
    /// # Errors
    /// [`Error::NoQueueIds`]
    pub(crate) fn claim_queues(&mut self, schema: &Schema, slot: u8, running: Option<u8>) -> Result<Claimed> {
        let runs = |q: &QueueInfo| running.is_some_and(|r| q.slots.contains(&u32::from(r)));
        self.claim(schema, slot, |queues, wanted| {
            let is = |q: &&QueueInfo| q.queue() == *wanted;
            queues.iter().filter(is).find(|q| runs(q)).or_else(|| queues.iter().find(is)).map(|q| q.id)
        })
    }

    /// Claim new DSQs for `slot`, whatever stands: where nothing is carried, the order of what waits on a queue by virtual
    /// time means nothing to the new policy.
    ///
    /// # Errors
    /// [`Error::NoQueueIds`]
    pub(crate) fn claim_new_queues(&mut self, schema: &Schema, slot: u8) -> Result<Claimed> {
        self.claim(schema, slot, |_, _| None)
    }

    /// `known`: the id of the one that serves as the wanted one.
    fn claim(
        &mut self,
        schema: &Schema,
        slot: u8,
        known: impl Fn(&[QueueInfo], &Queue) -> Option<u64>,
    ) -> Result<Claimed> {
        let mut claimed = Claimed { all: Vec::new(), new: Vec::new() };
        for wanted in &schema.queues {
            let known = known(&self.queues, wanted);
            let known = known.and_then(|id| self.queues.iter().position(|q| q.id == id));
            let index = match known {
                Some(index) => index,
                None => {
                    let id = self.next_queue_id()?;
                    let Queue { name, order, span } = wanted.clone();
                    self.queues.push(QueueInfo { name, order, span, id, slots: BTreeSet::new() });
                    self.queues.len() - 1
                }
            };
            let queue = &mut self.queues[index];
            queue.slots.insert(u32::from(slot));
            claimed.all.push(queue.clone());
            if known.is_none() {
                claimed.new.push(queue.clone());
            }
        }
        Ok(claimed)
    }

    fn next_queue_id(&mut self) -> Result<u64> {
        if self.queue_ids >= MAX_FAMILIES {
            return Err(Error::NoQueueIds { used: self.queue_ids });
        }
        self.queue_ids += 1;
        Ok(self.queue_ids << FAMILY_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_the_running_policy_goes_before_its_namesake() {
        let mut registry = Registry::new();
        let one = queues(&[("q", QueueOrder::Vtime, QueueSpan::One)]);
        let old = registry.claim_queues(&one, 0, None).unwrap().ids();
        let new = registry.claim_new_queues(&one, 1).unwrap().ids();
        assert_ne!(old, new);
        assert_eq!(registry.claim_queues(&one, 2, Some(1)).unwrap().ids(), new);
        assert_eq!(registry.claim_queues(&one, 3, Some(0)).unwrap().ids(), old);
    }

    fn queues(of: &[(&str, QueueOrder, QueueSpan)]) -> Schema {
        let queue =
            |(name, order, span): &(&str, _, _)| Queue { name: name.to_string(), order: *order, span: *span };
        Schema { queues: of.iter().map(queue).collect(), ..Schema::default() }
    }

    #[test]
    fn a_queue_is_its_name_order_and_span() {
        use QueueOrder::*;
        let mut registry = Registry::new();
        let single = queues(&[("q", Fifo, QueueSpan::One), ("r", Vtime, QueueSpan::One)]);
        let first = registry.claim_queues(&single, 0, None).unwrap();
        assert_eq!(first.ids(), [1 << 32, 2 << 32]);
        assert_eq!(first.new.len(), 2);
        let family = queues(&[
            ("r", Vtime, QueueSpan::One),
            ("q", Fifo, QueueSpan::Cpu),
            ("q2", Vtime, QueueSpan::Cpu),
        ]);
        let second = registry.claim_queues(&family, 1, None).unwrap();
        assert_eq!(second.ids(), [2 << 32, 3 << 32, 4 << 32]);
        assert_eq!(second.new.iter().map(|q| q.id >> 32).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(second.all[0].slots, BTreeSet::from([0, 1]));
        // Gone from every slot, but only its destruction frees a queue: until then a claim finds it again.
        registry.evict(0);
        assert_eq!(registry.queues[0].slots, BTreeSet::new());
        assert_eq!(registry.claim_queues(&single, 2, None).unwrap().ids(), [1 << 32, 2 << 32]);
        // An id is not given twice.
        registry.evict(2);
        registry.queues.retain(|q| !q.slots.is_empty());
        assert_eq!(registry.claim_queues(&single, 2, None).unwrap().ids(), [5 << 32, 2 << 32]);
        assert!(registry.queues.iter().all(|q| q.id >> 62 == 0));
    }

    #[test]
    fn ids_that_run_out_are_an_error() {
        let mut registry = Registry::new();
        registry.queue_ids = MAX_FAMILIES - 1;
        let two = queues(&[("a", QueueOrder::Fifo, QueueSpan::One), ("b", QueueOrder::Fifo, QueueSpan::One)]);
        let error = registry.claim_queues(&two, 0, None).unwrap_err();
        assert!(matches!(error, Error::NoQueueIds { used: MAX_FAMILIES }), "{error}");
        assert_eq!(registry.queues[0].id >> 62, 0);
    }

    #[test]
    fn a_registry_of_before_there_were_spans_can_be_read() {
        let text = r#"{ "name": "q", "order": "fifo", "id": 3, "slots": [1] }"#;
        let queue: QueueInfo = serde_json::from_str(text).unwrap();
        assert_eq!(queue.span, QueueSpan::One);
    }
}
