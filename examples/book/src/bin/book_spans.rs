//! See `src/bpf/book_spans.bpf.c`.
fn main() -> std::process::ExitCode {
    book_examples::main(scx_upgrade_sdk::policy_object!("book_spans"))
}
