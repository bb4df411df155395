#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| state_migrate_fuzz::snapshot(data));
