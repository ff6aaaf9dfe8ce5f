# shellcheck shell=bash
# The description of the API: is it valid, and does the service do what it says?

# Test cases of each operation that are made up; those of the examples and of the edges of each
# parameter come on top.
made_up=60

step_openapi() {
    need curl curl ca-certificates
    need_python openapi-spec-validator openapi-spec-validator==0.9.0
    # The two others have it read every coding that the service speaks.
    need_python schemathesis schemathesis==4.32.5 brotli==1.2.1 zstandard==0.25.0
    build

    "$binary" openapi >"$scratch/openapi.json"
    openapi-spec-validator "$scratch/openapi.json" || fail "the description is no OpenAPI"

    start_demo
    ask_as_described demo "$api"
    stop demo "$demo"

    start_guarded
    # By both headers, for it would put a made-up credential into the other.
    ask_as_described guarded "$api" "Authorization: Bearer $key" "X-Api-Key: $key"
    stop guarded "$guarded"
    stop stand-in "$stand_in"
}

# ask_as_described NAME URL [HEADER…]: every check of schemathesis, by the document as it is served.
ask_as_described() {
    local name=$1 url=$2 header=("${@:3}")
    # From where it may leave its files.
    (
        cd "$scratch" || exit
        SCHEMATHESIS_HOOKS=$OLDPWD/tests/steps/openapi_hooks.py NO_COLOR=1 timeout 300 \
            schemathesis --config-file "$OLDPWD/tests/steps/openapi.toml" run "$url/openapi.json" --checks all \
            --phases examples,coverage,fuzzing,stateful \
            --max-examples "$made_up" --seed 1 "${header[@]/#/--header=}"
    ) >"$scratch/asked" || fail "the $name does not do what it says: $(cat "$scratch/asked")"
    grep -E '^  [0-9]+ generated|Operations:' "$scratch/asked"
    echo "the $name does what it says"
}

# Starts the stand-in, and before it a service that tells callers apart. Sets `stand_in`, `guarded`,
# `api`, and `key`, by which a caller may read everything.
start_guarded() {
    start stand-in 'Documented customer' "$binary" simulate --listen 127.0.0.1:0
    stand_in=$started
    local upstream hash
    upstream=$(sed -n 's/.*base_url = "\(.*\)"/\1/p' "$scratch/stand-in.out")
    "$binary" hash-key >"$scratch/key" 2>/dev/null
    key=$(sed -n 's/^key = "\(.*\)"/\1/p' "$scratch/key")
    hash=$(sed -n 's/^key_sha256 = "\(.*\)"/\1/p' "$scratch/key")
    cat >"$scratch/callers.toml" <<-END
		[[caller]]
		name = "schemathesis"
		key_sha256 = "$hash"
		customers = ["*"]
		scopes = ["usage:read", "cache:refresh"]
		rate = "100000/s"
	END
    (umask 077 && echo secret >"$scratch/client_secret" && echo token >"$scratch/refresh_token")
    start guarded '"listening"' env -i \
        USAGE_PROXY__SERVER__LISTEN=127.0.0.1:0 USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:0 \
        USAGE_PROXY__CALLERS__FILE="$scratch/callers.toml" \
        USAGE_PROXY__UPSTREAM__BASE_URL="$upstream" \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=refresh_token \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_URL="$upstream/t/oauth2/v2.0/token" \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_ID=schemathesis \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_SECRET_FILE="$scratch/client_secret" \
        USAGE_PROXY__UPSTREAM__AUTH__REFRESH_TOKEN_FILE="$scratch/refresh_token" \
        "$binary" serve
    guarded=$started
    api=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/guarded.err")
}
