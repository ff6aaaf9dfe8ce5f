# shellcheck shell=bash
# Shipped configuration

step_config() {
    build
    check_config config/usage-proxy.toml \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=token_file \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_FILE=/run/secrets/access_token
    local example callers=config/examples/callers.toml portfolio=config/examples/portfolio.toml
    for example in config/examples/*.toml; do
        [[ $example == "$callers" || $example == "$portfolio" ]] || check_config "$example"
    done
    # These two are no configurations by themselves: another names them.
    check_config config/examples/app-user.toml USAGE_PROXY__CALLERS__FILE="$callers" \
        USAGE_PROXY__PORTFOLIO__FILE="$portfolio"
    ! grep '\.file: .* not checked' "$scratch/warnings" || fail "an example was not looked at"
}

# check_config FILE [NAME=VALUE…]: the file is right, given these variables and no others of ours.
check_config() {
    env -i "${@:2}" "$binary" check-config --config "$1" >"$scratch/effective" \
        2>"$scratch/warnings" || fail "$1 is not accepted: $(cat "$scratch/warnings")"
    echo "$1 is accepted${2:+, with variables: ${*:2}}"
}
