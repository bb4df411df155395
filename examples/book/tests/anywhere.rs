//! A policy is a policy wherever its object lies in memory: the linker aligns it to nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use scx_upgrade_engine::Policy;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/book_rules_1.bpf.o"));

#[test]
fn a_policy_is_read_at_any_address() {
    let schema = Policy::new(OBJECT, "").schema().unwrap();
    for offset in 0..8 {
        let mut room = vec![0; offset];
        room.extend_from_slice(OBJECT);
        let there: &'static [u8] = &room.leak()[offset..];
        assert_eq!(Policy::new(there, "").schema().unwrap(), schema, "{offset} bytes off");
    }
}
