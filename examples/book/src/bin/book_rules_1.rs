//! See `src/bpf/book_rules_1.bpf.c`.
fn main() -> std::process::ExitCode {
    book_examples::main(scx_upgrade_sdk::policy_object!("book_rules_1"))
}
