//! schedulers/scx_fair
fn main() {}
