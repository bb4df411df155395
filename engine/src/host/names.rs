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
