# shellcheck shell=bash
# The command line with what it is used with: a shell that completes, a reader of manual pages, and
# a terminal

step_cli() {
    need man man-db
    need groff groff-base
    need python3 python3
    build

    cli_completions
    cli_manual
}

# What a person sees who types at bash: keys go in, and a terminal is what comes out.
cli_completions() {
    "$binary" completions bash >"$scratch/completions.bash"
    # Commands, flags of a command, and values of a flag's.
    on_terminal --type "PS1='> '; source $scratch/completions.bash; echo sour''ced"$'\n' --expect sourced \
        --type $'usage-proxy che\t' --expect 'usage-proxy check-config ' \
        --type $'--conf\t' --expect '--config ' --type $'\x15' \
        --type $'usage-proxy completions fi\t' --expect 'completions fish ' --type $'\x15' \
        --type $'exit\n' -- bash --norc --noprofile -i >"$scratch/completed" ||
        fail "bash completes otherwise: $(cat "$scratch/completed")"
    echo "bash completes commands, flags and their values"

    local shell
    for shell in zsh fish elvish powershell; do
        "$binary" completions "$shell" | grep -q check-config ||
            fail "no completions for $shell"
    done
}

cli_manual() {
    local page said
    "$binary" man "$scratch/man" >"$scratch/pages"
    for page in "$scratch"/man/*.1; do
        grep -qxF "$page" "$scratch/pages" || fail "$page is written and not told of"
        said=$(groff -man -ww -z "$page" 2>&1) || fail "$said"
        [[ -z $said ]] || fail "groff objects to $page: $said"
    done
    said=$(MANWIDTH=80 LC_ALL=C.UTF-8 man -l "$scratch/man/usage-proxy.1" | col -b)
    for page in EXAMPLES 'EXIT STATUS' ENVIRONMENT FILES 'usage-proxy-serve(1)'; do
        grep -qF "$page" <<<"$said" || fail "the manual has no $page: $said"
    done
    diff <("$binary" man) "$scratch/man/usage-proxy.1" || fail "the main page comes in two forms"
    echo "groff has no objection to $(wc -l <"$scratch/pages") manual pages, and man shows them"
}

# on_terminal [OPTION…] -- COMMAND…: see tests/steps/terminal.py.
on_terminal() {
    timeout 120 python3 tests/steps/terminal.py "$@"
}
