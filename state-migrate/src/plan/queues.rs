//! What becomes of the queues.

use serde::{Deserialize, Serialize};

use crate::schema::Queue;

/// What becomes of one queue, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Its name.
    pub queue: String,
    /// Its order and span, as its tag has them: `vtime,per-cpu`.
    pub kind: String,
    /// `kept`: with the tasks on it. `new`: it is made. `handed over`: the new policy does not name it, and gets the tasks
    /// on it.
    pub fate: String,
    /// Why so, where that is not plain.
    pub reason: Option<String>,
}

/// What a swap from a policy with the queues `running` to one with `new` would do to the queues. Those in `loaded` stand
/// because other policies that are loaded name them; no task waits there.
pub fn queue_rows(running: &[Queue], loaded: &[Queue], new: &[Queue]) -> Vec<QueueRow> {
    let row = |queue: &Queue, fate: &str, reason: Option<String>| QueueRow {
        queue: queue.name.clone(),
        kind: queue.to_string(),
        fate: fate.to_owned(),
        reason,
    };
    let wanted = new.iter().map(|queue| {
        if running.contains(queue) {
            return row(queue, "kept", None);
        }
        if loaded.contains(queue) {
            return row(queue, "kept", Some("another policy that is loaded has it".to_owned()));
        }
        let namesake = running.iter().find(|q| q.name == queue.name);
        row(queue, "new", namesake.map(|q| format!("the {q} of this name is another queue")))
    });
    let dropped = running.iter().filter(|q| !new.contains(q)).map(|q| row(q, "handed over", None));
    wanted.chain(dropped).collect()
}
