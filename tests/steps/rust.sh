# shellcheck shell=bash
# Rust

step_rust() {
    need cc gcc libc6-dev
    need curl curl ca-certificates
    # A test opens a thousand connections, both ends of them here.
    ulimit -S -n "$(ulimit -H -n)"
    cargo test --locked
}
