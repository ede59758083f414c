//! Development tasks: `cargo xtask run`, `cargo xtask test`, `cargo xtask bench`.
fn main() {}
