# shellcheck shell=bash
# A minute of everything that hostile clients do, beside a caller that behaves

step_soak() {
    need cc gcc libc6-dev
    # Nearly a thousand connections, both ends of them here.
    ulimit -S -n "$(ulimit -H -n)"
    local soak=(cargo test --locked --profile "${SOAK_PROFILE:-test}" --test soak)
    "${soak[@]}" --no-run
    # `cargo test` by itself tells of it and leaves it out. It ends by itself, or else here.
    timeout $((${SOAK_SECONDS:-60} + 180)) "${soak[@]}" -- --ignored --nocapture
}
