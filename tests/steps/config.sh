# shellcheck shell=bash
# Shipped configuration

step_config() {
    build
    check_config config/usage-proxy.toml \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=token_file \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_FILE=/run/secrets/access_token
    local example callers=config/examples/callers.toml
    for example in config/examples/*.toml; do
        [[ $example == "$callers" ]] || check_config "$example"
    done
    # It is no configuration by itself: another names it.
    check_config config/examples/app-user.toml USAGE_PROXY__CALLERS__FILE="$callers"
    ! grep 'callers.file: .* not checked' "$scratch/warnings" || fail "$callers was not looked at"
}

# check_config FILE [NAME=VALUE…]: the file is right, given these variables and no others of ours.
check_config() {
    env -i "${@:2}" "$binary" check-config --config "$1" >"$scratch/effective" \
        2>"$scratch/warnings" || fail "$1 is not accepted: $(cat "$scratch/warnings")"
    echo "$1 is accepted${2:+, with variables: ${*:2}}"
}
