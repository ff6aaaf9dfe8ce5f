# shellcheck shell=bash
# The tests of Rust; COVERAGE=1 also measures how much of the code they reach

step_rust() {
    need cc gcc libc6-dev
    need curl curl ca-certificates
    need_postgres
    need unshare util-linux mount
    # Tests of replicas whose clocks are wrong.
    need faketime faketime
    # A test opens a thousand connections, both ends of them here.
    ulimit -S -n "$(ulimit -H -n)"
    if ((${COVERAGE:-0})) && coverage_possible; then
        test_with_coverage
    else
        cargo test --locked
    fi
}
