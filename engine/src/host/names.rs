//! The names of the host, its maps and its programs.

/// Name that the kernel knows the host by.
pub const NAME: &str = "scx_upgrade";
/// Map of the shared memory.
pub const HOST_MAP: &str = ".data.scxu_host";
/// Map of the registry.
pub const REGISTRY_MAP: &str = "scxu_registry";
/// Map of the tasks that are on no queue: see `requeue.rs`.
pub const LOST_TASKS: &str = "scxu_lost_tasks";
/// Map of all tasks, a row each.
pub const TASK_TABLE: &str = "scxu_task_table";
/// Map of the rows of the task table that are free again.
pub const FREE_ROWS: &str = "scxu_free_rows";
/// Program that gives a row to each task that has none.
pub const TRACK_UNTRACKED: &str = "track_untracked";
/// Map of what the kernel's debug dump said last. A host that was started by an earlier version has none.
pub(crate) const DUMP: &str = "scxu_dump";
/// Program that makes a family of queues.
pub(crate) const CREATE_QUEUES: &str = "create_queues";
/// Program that counts what is on one.
pub(crate) const COUNT_QUEUES: &str = "count_queues";
/// Program that hands over what is on one.
pub(crate) const DRAIN_QUEUES: &str = "drain_queues";
/// Program that destroys one.
pub(crate) const DESTROY_QUEUES: &str = "destroy_queues";
/// All programs on queues.
pub(crate) const QUEUE_PROGRAMS: [&str; 4] = [CREATE_QUEUES, COUNT_QUEUES, DRAIN_QUEUES, DESTROY_QUEUES];
