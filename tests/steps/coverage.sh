# shellcheck shell=bash
# Coverage

step_coverage() {
    local llvm folder
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    folder=/usr/lib/llvm-$llvm/bin
    if [[ ! -x $folder/llvm-cov ]]; then
        apt_lists llvm-cov
        if ! apt-cache show "llvm-$llvm" >/dev/null 2>&1; then
            echo "not measured: rustc writes profiles for LLVM $llvm, and this Debian has no llvm-$llvm"
            return
        fi
        apt_install "llvm-$llvm"
    fi
    need_cargo llvm-cov 0.9.1
    LLVM_COV=$folder/llvm-cov LLVM_PROFDATA=$folder/llvm-profdata \
        cargo llvm-cov --locked --summary-only
}
