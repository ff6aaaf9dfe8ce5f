//! The `usage-proxy` command.

fn main() {}
