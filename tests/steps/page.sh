# shellcheck shell=bash
# The page and the documentation, driven in a real browser; UPDATE_SCREENSHOTS=1 renews the README's pictures of it

step_page() {
    need chromium chromium fonts-dejavu-core
    need node nodejs
    need npm npm
    need curl curl ca-certificates
    build

    # npm would put its modules beside the tests, where they are no part of the repository.
    local folder=$target/tools/page
    mkdir -p "$folder"
    if ! cmp -s tests/page/package-lock.json "$folder/installed"; then
        echo "installing playwright-core and axe-core"
        cp tests/page/package*.json "$folder"
        npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
        cp tests/page/package-lock.json "$folder/installed"
    fi
    cp tests/page/*.mjs "$folder"

    start_demo
    start_limited_proxy
    local pictures=''
    if [[ ${UPDATE_SCREENSHOTS:-0} == 1 ]]; then
        pictures=$PWD/tests/fixtures
        mkdir -p "$pictures"
    fi
    CHROMIUM=$(command -v chromium) DEMO=$api PROXY=$limited SIMULATOR=$stand_in KEY=$key \
        SCREENSHOTS=$pictures \
        timeout 240 node --test "$folder/page.test.mjs" "$folder/docs.test.mjs" \
        >"$scratch/page" 2>&1 || fail "the page: $(cat "$scratch/page")"
    grep -E '^. (tests|pass|skipped) ' "$scratch/page"
    stop limited "$limited_pid"
    stop stand_in "$stand_in_pid"
    stop demo "$demo"
}

# A proxy before a stand-in that takes faults, with a price and one caller, which may see one customer. Sets
# `limited` and `stand_in` to their URLs, `limited_pid` and `stand_in_pid`, and `key`.
start_limited_proxy() {
    start stand_in 'To have usage-proxy ask it' "$binary" simulate --allow-app-only --listen 127.0.0.1:0
    stand_in_pid=$started
    stand_in=$(sed -n 's/.*base_url = "\(http:[^"]*\)"/\1/p' "$scratch/stand_in.out")
    key=up_key-of-the-tests-of-the-page-and-of-no-one-else
    local hash
    hash=$("$binary" hash-key --stdin <<<"$key")
    cat >"$scratch/callers.toml" <<END
[[caller]]
name = "wiki"
key_sha256 = [${hash##* }]
customers = ["4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04"]
scopes = ["usage:read"]
END
    cat >"$scratch/portfolio.toml" <<'END'
[[product]]
product = "EXCHANGE ONLINE (PLAN 1)"
price = 12345.67
currency = "EUR"
END
    (umask 077 && echo any >"$scratch/client_secret")
    start limited '"listening"' env -i \
        USAGE_PROXY__SERVER__LISTEN=127.0.0.1:0 USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:0 \
        USAGE_PROXY__CALLERS__FILE="$scratch/callers.toml" \
        USAGE_PROXY__PORTFOLIO__FILE="$scratch/portfolio.toml" \
        USAGE_PROXY__UPSTREAM__BASE_URL="$stand_in" USAGE_PROXY__UPSTREAM__SOURCE=commercial \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=client_credentials \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_URL="$stand_in/tenant/oauth2/v2.0/token" \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_ID=usage-proxy \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_SECRET_FILE="$scratch/client_secret" \
        USAGE_PROXY__LOG__REQUESTS=off "$binary" serve
    limited_pid=$started
    limited=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/limited.err")
}
