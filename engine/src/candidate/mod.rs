//! What can be swapped in: a policy, read from its binary, checked, and loaded.

pub mod describe;
pub mod direct;
pub mod info;
pub mod load;
pub mod obstacles;
pub mod policy;
