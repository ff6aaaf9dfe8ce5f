# shellcheck shell=bash
# How much of the code the Rust tests reach: with COVERAGE=1, the step `rust` runs them this way, and
# so only once.

# Percent of lines that must be reached.
least_coverage=96

# Whether coverage can be measured; says why not. rustc's profiles need LLVM tools of its own
# version: rustup has them, and Debian where its LLVM is as new.
coverage_possible() {
    local llvm folder tools
    folder=$(rustc --print target-libdir)/../bin
    if [[ ! -x $folder/llvm-cov ]] && command -v rustup >/dev/null; then
        rustup component add llvm-tools || echo "rustup has no llvm-tools to install"
    fi
    if [[ ! -x $folder/llvm-cov ]]; then
        llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
        folder=/usr/lib/llvm-$llvm/bin tools=llvm-$llvm
        if [[ ! -x $folder/llvm-cov ]]; then
            apt_lists llvm-cov
            if ! apt-cache show "$tools" >/dev/null 2>&1; then
                echo "coverage is not measured: rustc needs the tools of LLVM $llvm, there is no" \
                    "rustup to install its component llvm-tools, and this Debian has no $tools"
                return 1
            fi
            apt_install "$tools"
        fi
    fi
    export LLVM_COV=$folder/llvm-cov LLVM_PROFDATA=$folder/llvm-profdata
    need_cargo llvm-cov 0.9.1
}

# Runs the Rust tests, and fails if they reach too few lines. It shares Cargo's folder with every other
# build, so that the dependencies are compiled once. Cargo does not see whether our own crate counts
# lines, so what is built of it is removed before and afterwards.
test_with_coverage() {
    export CARGO_LLVM_COV_TARGET_DIR=$target
    counted=1
    cargo llvm-cov clean --workspace
    cargo llvm-cov --locked --no-report
    # A process that a test kills while it writes its profile leaves one that cannot be read.
    cargo llvm-cov report --failure-mode all --summary-only --fail-under-lines "$least_coverage" \
        >"$scratch/coverage" ||
        fail "the tests reach less than $least_coverage % of the lines: $(cat "$scratch/coverage")"
    # The last line is the total; its columns are regions, functions, lines.
    tail -n 1 "$scratch/coverage" |
        awk '{ print "the tests reach " $10 " of the lines, " $4 " of the regions" }'
    forget_counted
}

# Removes what is built of our crate with coverage, if anything is.
forget_counted() {
    [[ -n ${counted:-} ]] || return 0
    cargo llvm-cov clean --workspace
    counted=''
}
