//! What the host's maps and programs are called.

/// Name that the kernel knows the host by.
pub const NAME: &str = "scx_upgrade";
/// Map of the shared memory.
pub const HOST_MAP: &str = ".data.scxu_host";
pub const REGISTRY_MAP: &str = "scxu_registry";
/// Map of the tasks that are on no queue: see `rescue.rs`.
pub const LOST_TASKS: &str = "scxu_lost_tasks";
/// Map of all tasks, a row each, and the rows of it that are free again.
pub const TASK_TABLE: &str = "scxu_task_table";
pub const FREE_ROWS: &str = "scxu_free_rows";
/// Program that gives rows to who has none.
pub const TRACK_UNTRACKED: &str = "track_untracked";
