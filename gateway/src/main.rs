//! wgx.
fn main() {}
