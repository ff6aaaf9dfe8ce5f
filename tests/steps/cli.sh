# shellcheck shell=bash
# The command line with what it is used with: a shell that completes, a reader of manual pages, and
# a terminal

step_cli() {
    need man man-db
    need groff groff-base
    need python3 python3
    need curl curl ca-certificates
    need jq jq
    build

    cli_completions
    cli_manual
    cli_get
    cli_start
    cli_doctor
    cli_consent
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
    for page in EXAMPLES 'EXIT CODES' ENVIRONMENT FILES 'usage-proxy-serve(1)'; do
        grep -qF "$page" <<<"$said" || fail "the manual has no $page: $said"
    done
    diff <("$binary" man) "$scratch/man/usage-proxy.1" || fail "the main page comes in two forms"
    echo "groff has no objection to $(wc -l <"$scratch/pages") manual pages, and man shows them"
}

cli_get() {
    local customer=4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04 escape=$'\e'
    start_demo

    on_terminal --columns 60 -- env -u NO_COLOR LC_ALL=C.UTF-8 TERM=xterm \
        "$binary" get "$customer" --url "$api" >"$scratch/usage"
    grep -qF "${escape}[1mDT DEMO CSP CUSTOMER 005" "$scratch/usage" ||
        fail "no colours on a terminal: $(cat "$scratch/usage")"
    grep -qF '···' "$scratch/usage" || fail "no bars on a terminal: $(cat "$scratch/usage")"
    [[ $(sed "s/$escape\[[0-9;]*m//g; s/\r//" "$scratch/usage" | LC_ALL=C.UTF-8 wc -L) -le 60 ]] ||
        fail "wider than the terminal: $(cat "$scratch/usage")"

    on_terminal -- env NO_COLOR=1 LC_ALL=C "$binary" get "$customer" --url "$api" >"$scratch/usage"
    ! LC_ALL=C grep -qP '[^\x20-\x7e\r]' "$scratch/usage" ||
        fail "NO_COLOR in a locale of ASCII gets more: $(cat "$scratch/usage")"

    on_terminal --columns 80 -- env -u NO_COLOR LC_ALL=C.UTF-8 TERM=xterm \
        "$binary" get --all --url "$api" >"$scratch/usage"
    grep -q '^Contoso.*…  .*%' "$scratch/usage" || fail "no customer is cut: $(cat "$scratch/usage")"
    [[ $(sed "s/$escape\[[0-9;]*m//g; s/\r//" "$scratch/usage" | LC_ALL=C.UTF-8 wc -L) -le 80 ]] ||
        fail "wider than the terminal: $(cat "$scratch/usage")"

    # It ends with 141, as by SIGPIPE, and says nothing: whoever closed the pipe knows.
    "$binary" get "$customer" --url "$api" 2>"$scratch/said" | true || true
    [[ ! -s $scratch/said ]] || fail "a closed pipe is complained of: $(cat "$scratch/said")"
    echo "get fits a terminal, its colours and its locale"
    stop demo "$demo"

    cli_get_waits "$customer"
}

# What waits for longer than a second says so on a terminal, and takes it away again.
cli_get_waits() {
    start slow upstream.base_url \
        "$binary" simulate --allow-app-only --listen 127.0.0.1:0 --fault latency=1800 --customers 0
    local slow=$started upstream
    upstream=$(sed -n 's/.*upstream.base_url = "\(.*\)"/\1/p' "$scratch/slow.out")
    cli_account "$upstream"
    start waiting '"listening"' env -i "${account[@]}" "$binary" serve
    local waiting=$started url
    url=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/waiting.err")

    on_terminal --expect "asking $url (1s)" --expect 'DT DEMO' -- \
        "$binary" get "$1" --url "$url" >"$scratch/usage" ||
        fail "a wait is not told of: $(cat "$scratch/usage")"
    # Held now, so there is nothing to wait for.
    on_terminal --expect 'DT DEMO' -- "$binary" get "$1" --url "$url" >"$scratch/usage"
    ! grep -q asking "$scratch/usage" || fail "a short wait flickers: $(cat "$scratch/usage")"
    echo "get tells of a long wait, and of no short one"
    stop waiting "$waiting"
    stop slow "$slow"
}

# A person is told what listens where and what to try, a program in a line of JSON.
cli_start() {
    cli_account http://127.0.0.1:9
    chmod 644 "$scratch/client_secret"
    on_terminal --expect WARN --expect 'can be read by anyone' --expect 'listens on' \
        --expect 'http://127.0.0.1:' --expect 'everybody who can reach it' --expect /readyz \
        --expect 'usage-proxy get' --expect 'Ctrl-C ends it.' --type $'\x03' --expect ending -- \
        env -i TERM=xterm "${account[@]}" "$binary" serve >"$scratch/told" ||
        fail "serve does not greet a person: $(cat "$scratch/told")"
    ! grep -q '"listening"' "$scratch/told" || fail "a person is told in JSON: $(cat "$scratch/told")"
    on_terminal --expect 'usage-proxy get' --expect 'Ctrl-C ends it.' --type $'\x03' -- \
        "$binary" demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 >"$scratch/told" ||
        fail "the demo does not greet a person: $(cat "$scratch/told")"
    on_terminal --expect upstream.base_url --expect 'Ctrl-C ends it.' --type $'\x03' -- \
        "$binary" simulate --listen 127.0.0.1:0 >"$scratch/told" ||
        fail "the stand-in does not greet a person: $(cat "$scratch/told")"

    local name
    start told '"listening"' env -i "${account[@]}" "$binary" serve
    stop told "$started"
    [[ ! -s $scratch/told.out ]] || fail_with told "serve greets a pipe"
    start told-by-demo '"listening"' \
        "$binary" demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    stop told-by-demo "$started"
    start told-by-simulate '"listening"' "$binary" simulate --listen 127.0.0.1:0
    stop told-by-simulate "$started"
    for name in told told-by-demo told-by-simulate; do
        python3 -c 'import json, sys; [json.loads(line) for line in sys.stdin]' \
            <"$scratch/$name.err" || fail_with "$name" "$name logs something else than JSON"
    done
    echo "serve, demo and simulate greet a person, and tell a program in JSON"
}

# A person is told of one thing after the other, with marks that the terminal can show.
cli_doctor() {
    start ill upstream.base_url "$binary" simulate --allow-app-only --listen 127.0.0.1:0 --customers 0
    local ill=$started upstream said
    upstream=$(sed -n 's/.*upstream.base_url = "\(.*\)"/\1/p' "$scratch/ill.out")
    cli_account "$upstream"
    local doctor=(env -i TERM=xterm LC_ALL=C.UTF-8 "${account[@]}" "$binary" doctor)

    on_terminal --expect '✓ configuration' --expect '✓ clock' --expect '✓ access token' \
        --expect '✓ call' --expect 'Everything is right.' -- "${doctor[@]}" >"$scratch/diagnosis" ||
        fail "doctor finds fault: $(cat "$scratch/diagnosis")"
    curl -sS --fail -o "$scratch/faults" -X PATCH "$upstream/_simulator/faults" \
        -d '{"mfa_required": true, "latency": 1800}'
    said=0
    on_terminal --expect 'asking Partner Center (1s)' --expect '✗ call' --expect '→ ' \
        --expect 'consent again' --expect 'thing is wrong' -- "${doctor[@]}" >"$scratch/diagnosis" || said=$?
    ((said == 1)) || fail "doctor ends with $said: $(cat "$scratch/diagnosis")"
    said=0
    "${doctor[@]}" --json >"$scratch/diagnosis" || said=$?
    ((said == 1)) || fail "doctor --json ends with $said: $(cat "$scratch/diagnosis")"
    jq -e '.right == false and ([.checks[] | select(.verdict == "wrong") | .check] == ["call"])' \
        "$scratch/diagnosis" >/dev/null || fail "doctor --json: $(cat "$scratch/diagnosis")"
    echo "doctor says what is wrong, to people and to programs"
    stop ill "$ill"
}

# A person is asked before a refresh token is replaced, and may have enough of waiting.
cli_consent() {
    start entra upstream.base_url "$binary" simulate --listen 127.0.0.1:0 --customers 0
    local entra=$started upstream said
    upstream=$(sed -n 's/.*upstream.base_url = "\(.*\)"/\1/p' "$scratch/entra.out")
    cli_account "$upstream"
    (umask 077 && echo old >"$scratch/refresh_token")
    local consent=(
        env -i TERM=xterm "${account[@]}" USAGE_PROXY__UPSTREAM__AUTH__KIND=refresh_token
        USAGE_PROXY__UPSTREAM__AUTH__REFRESH_TOKEN_FILE="$scratch/refresh_token"
        "$binary" consent --port 0
    )

    said=0
    on_terminal --expect 'Replace it? [y/N]' --type $'n\n' --expect 'left as it is' -- \
        "${consent[@]}" >"$scratch/asked" || said=$?
    ((said == 1)) || fail "consent ends with $said: $(cat "$scratch/asked")"
    said=0
    on_terminal --expect 'Replace it? [y/N]' --type $'y\n' --expect '/authorize?' \
        --expect 'Ctrl-C ends it.' --type $'\x03' -- "${consent[@]}" >"$scratch/asked" || said=$?
    ((said == 130)) || fail "consent ends with $said: $(cat "$scratch/asked")"
    [[ $(<"$scratch/refresh_token") == old ]] || fail "consent replaced the token all the same"
    echo "consent asks before it replaces a token, and lets go"
    stop entra "$entra"
}

# cli_account URL: sets `account` to the variables of a service that asks there.
cli_account() {
    # Anew: another test may have opened it to everybody.
    rm -f "$scratch/client_secret"
    (umask 077 && echo secret >"$scratch/client_secret")
    account=(
        USAGE_PROXY__SERVER__LISTEN=127.0.0.1:0 USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:0
        USAGE_PROXY__UPSTREAM__BASE_URL="$1" USAGE_PROXY__UPSTREAM__SOURCE=commercial
        USAGE_PROXY__UPSTREAM__AUTH__KIND=client_credentials
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_URL="$1/t/oauth2/v2.0/token"
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_ID=usage-proxy
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_SECRET_FILE="$scratch/client_secret"
    )
}

# on_terminal [OPTION…] -- COMMAND…: see tests/steps/terminal.py.
on_terminal() {
    timeout 120 python3 tests/steps/terminal.py "$@"
}
