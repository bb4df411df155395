//! What the running kernel says and offers: sysfs, BTF, BPF system calls, the machine's limits.

pub mod bpf;
pub mod btf;
pub mod deadline;
pub mod libbpf_log;
pub mod machine;
pub mod messages;
pub mod namespaces;
pub mod object;
pub mod ops;
pub mod sysfs;
pub mod topology;
pub mod variables;
