# shellcheck shell=bash
# Clients that are slow, and clients of HTTP/2, by the tools that people test servers with

step_clients() {
    need slowhttptest slowhttptest
    need h2load nghttp2-client
    build

    # Nothing is asked of Partner Center here, so nobody need answer.
    (umask 077 && echo token >"$scratch/token")
    start serve '"listening"' env -i \
        USAGE_PROXY__SERVER__LISTEN=127.0.0.1:0 USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:0 \
        USAGE_PROXY__SERVER__HEADER_TIMEOUT=2s USAGE_PROXY__SERVER__HTTP2_CLEARTEXT=true \
        USAGE_PROXY__UPSTREAM__BASE_URL=http://127.0.0.1:9 \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=token_file \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_FILE="$scratch/token" \
        USAGE_PROXY__LOG__REQUESTS=off "$binary" serve
    local url
    url=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/serve.err")/nowhere

    # Heads that never end: each connection is closed long before the tool would give up.
    NO_COLOR=1 timeout 60 slowhttptest -H -c 100 -r 100 -i 1 -x 24 -l 15 -u "$url" \
        >"$scratch/slow" 2>&1 || true
    grep -q 'No open connections left' "$scratch/slow" ||
        fail "slow clients are not closed: $(cat "$scratch/slow")"
    ! grep -q 'service available:.*NO' "$scratch/slow" ||
        fail "slow clients keep others out: $(cat "$scratch/slow")"
    echo "100 clients with heads that never end are closed, and keep nobody out"

    # Each answer is a 404, which h2load calls failed; none may be missing, broken or late.
    timeout 60 h2load -n 5000 -c 20 -m 20 "$url" >"$scratch/h2load" ||
        fail "h2load: $(cat "$scratch/h2load")"
    local expected
    for expected in '5000 done, 0 succeeded, 5000 failed, 0 errored, 0 timeout' \
        'status codes: 0 2xx, 0 3xx, 5000 4xx, 0 5xx'; do
        grep -q "$expected" "$scratch/h2load" || fail "h2load: $(cat "$scratch/h2load")"
    done
    echo "5000 requests on 400 streams of HTTP/2 are answered"

    stop serve "$started"
}
