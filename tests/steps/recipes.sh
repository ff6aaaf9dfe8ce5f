# shellcheck shell=bash
# The recipes of deploy/recipes: run where their tool can be had, else compared with real answers

recipes=deploy/recipes
documented=4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04

step_recipes() {
    need curl curl ca-certificates
    need jq jq
    need column bsdextrautils
    need npm npm
    need_recipe_python
    build

    start_demo
    wait_for_customers
    recipe_shell
    recipe_python
    "$python" "$recipes_py" grafana "$recipes/grafana" "$api" "$documented"
    recipe_power_query
    recipes_missing
    stop demo "$demo"

    start_with_callers
    wait_for_customers "$key_file"
    recipe_shell "$key_file"
    recipe_python "$key_file"
    "$python" "$recipes_py" grafana "$recipes/grafana" "$api" "$documented" "$key_file"
    recipe_power_query "$key_file"
    recipes_wait
    recipes_without_a_key
    stop serve "$serving"
    stop simulate "$simulating"
}

recipes_py=tests/steps/recipes.py

# httpx, pandas, PyYAML and urllib3, in an environment of their own: other steps have httpx of other versions.
# Sets `python`.
need_recipe_python() {
    local folder=$target/tools/recipes
    python=$folder/bin/python
    "$python" -c 'import httpx, pandas, urllib3, yaml' 2>/dev/null && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    python3 -m venv --clear "$folder"
    echo "installing httpx, pandas, PyYAML and urllib3"
    "$python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: \
        httpx==0.28.1 pandas==2.3.3 PyYAML==6.0.3 urllib3==2.5.0
}

# Waits until every customer was fetched.
wait_for_customers() {
    local waited=0
    until [[ $(curl -sS -H "X-Api-Key: $(cat "$@" </dev/null)" "$api/v1/usage" | jq .customers.notFetched) == 0 ]]; do
        ((++waited <= 300)) || fail "not every customer is fetched within 30 s"
        sleep 0.1
    done
}

# recipe_shell [KEY-FILE]
recipe_shell() {
    local -x KEY_FILE=${1:-}
    "$recipes/usage.sh" "$api" product='exchange online (plan 1)' "customer=$documented" \
        >"$scratch/table" || fail "usage.sh fails"
    grep -q '^DT DEMO CSP CUSTOMER 005  *EXCHANGE ONLINE (PLAN 1)  *5  *5  *0  *2017-03-09$' "$scratch/table" ||
        fail "usage.sh prints another table: $(cat "$scratch/table")"
    FORMAT=csv "$recipes/usage.sh" "$api" >"$scratch/shell.csv" || fail "usage.sh fails"
    "$python" "$recipes_py" whole "$scratch/shell.csv" "$api" "$@"
    ! "$recipes/usage.sh" "$api" processedDate=2017-02-30 >/dev/null 2>"$scratch/why" ||
        fail "usage.sh succeeds though the service refuses"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "usage.sh does not say why: $(cat "$scratch/why")"
    echo "usage.sh: a table, CSV, a reason${1:+, with a key}"
}

# recipe_python [KEY-FILE]
recipe_python() {
    local get=("$python" "$recipes/usage.py" "$api" ${1:+--key-file "$1"})
    "${get[@]}" "customer=$documented" >"$scratch/table" || fail "usage.py fails"
    grep -q 'EXCHANGE ONLINE (PLAN 1) *Exchange *5 *0 *5 *0' "$scratch/table" ||
        fail "usage.py prints another table: $(cat "$scratch/table")"
    "${get[@]}" --csv "$scratch/python.csv"
    "$python" "$recipes_py" same "$scratch/shell.csv" "$scratch/python.csv"
    ! "${get[@]}" processedDate=2017-02-30 2>"$scratch/why" || fail "usage.py succeeds though refused"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "usage.py does not say why: $(cat "$scratch/why")"
    ! "${get[@]}" --key-file "$scratch/nowhere" 2>"$scratch/why" || fail "usage.py succeeds without its key"
    [[ $(wc -l <"$scratch/why") == 1 && $(<"$scratch/why") == *nowhere* ]] ||
        fail "usage.py does not say which file is missing: $(cat "$scratch/why")"
    echo "usage.py: a table, CSV, a reason${1:+, with a key}"
}

# recipe_power_query [KEY-FILE]: Power Query runs on Windows alone. Microsoft's own parser reads the
# query, and what it says is done here.
recipe_power_query() {
    local parser=$target/tools/powerquery path key=
    (($# == 0)) || key=$(<"$1")
    if [[ ! -d $parser/node_modules/@microsoft/powerquery-parser ]]; then
        echo "installing Microsoft's parser of Power Query"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$parser" \
            @microsoft/powerquery-parser@2.0.0
    fi
    local run=(env NODE_PATH="$parser/node_modules" node tests/steps/recipes.cjs
        "$recipes/power-query/usage.pq" "BaseUrl=$api" "ApiKey=$key")
    for path in v1/usage/unused v1/usage/customers v1/usage/history "v1/customers/$documented/usage"; do
        "${run[@]}" "Path=$path" >"$scratch/rows" || fail "usage.pq: $path: $(cat "$scratch/rows")"
        curl -sS -H "X-Api-Key: $key" -H 'Accept: text/csv' "$api/$path" >"$scratch/expected.csv"
        "$python" "$recipes_py" table "$scratch/rows" "$scratch/expected.csv"
    done
    "${run[@]}" "Parameters={\"product\": \"EXCHANGE ONLINE (PLAN 1)\", \"customer\": [\"$documented\"]}" \
        >"$scratch/rows" || fail "usage.pq: $(cat "$scratch/rows")"
    [[ $(jq -c '[.[] | .licensesUnused]' "$scratch/rows") == '[5]' ]] ||
        fail "usage.pq passes on no parameters: $(cat "$scratch/rows")"
    ! "${run[@]}" 'Parameters={"processedDate": "2017-02-30"}' >"$scratch/why" ||
        fail "usage.pq succeeds though the service refuses"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "usage.pq does not say why: $(cat "$scratch/why")"
    echo "usage.pq: the rows of four paths, a reason${1:+, with a key}"
}

# If a customer is missing, the recipes name it.
recipes_missing() {
    local unknown=11111111-2222-4333-8444-555555555555 get
    for get in "$recipes/usage.sh" "$python $recipes/usage.py"; do
        # shellcheck disable=SC2086  # two words
        $get "$api" "customer=$documented" "customer=$unknown" >/dev/null 2>"$scratch/missing" ||
            fail "$get fails where a customer is missing: $(cat "$scratch/missing")"
        grep -q 'incomplete: of 2 customers, .* 1 failed' "$scratch/missing" ||
            fail "$get does not say how many are missing: $(cat "$scratch/missing")"
        grep -q "$unknown: unknown-customer" "$scratch/missing" ||
            fail "$get does not say who is missing: $(cat "$scratch/missing")"
    done
    echo "a customer that is missing is named"
}

# A service that knows two callers, one of them with a rate, before a stand-in. Sets `api`, `admin`,
# and `key_file` and `hurried_file`, the files of their keys.
start_with_callers() {
    local upstream name
    start simulate 'A stand-in' "$binary" simulate --allow-app-only --listen 127.0.0.1:0
    simulating=$started
    upstream=$(sed -n 's/.*base_url = "\([^"]*\)".*/\1/p' "$scratch/simulate.out")

    key_file=$scratch/recipes.key hurried_file=$scratch/hurried.key
    (umask 077 && echo secret >"$scratch/secret")
    for name in recipes hurried; do
        (umask 077 && echo "up_of-$name" >"$scratch/$name.key")
        cat <<END
[[caller]]
name = "$name"
key_sha256 = ["$(printf 'up_of-%s' "$name" | sha256sum | cut -d ' ' -f 1)"]
customers = ["$documented"]
scopes = ["usage:read"]
END
        [[ $name == recipes ]] || echo 'rate = "1/s"'
    done >"$scratch/callers.toml"
    start serve '"listening"' env -i \
        USAGE_PROXY__SERVER__LISTEN=127.0.0.1:0 USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:0 \
        USAGE_PROXY__CALLERS__FILE="$scratch/callers.toml" \
        USAGE_PROXY__STORE__URL="sqlite:$scratch/recipes.db" \
        USAGE_PROXY__UPSTREAM__BASE_URL="$upstream" USAGE_PROXY__UPSTREAM__SOURCE=commercial \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=client_credentials \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_URL="$upstream/tenant/oauth2/v2.0/token" \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_ID=recipes \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_SECRET_FILE="$scratch/secret" "$binary" serve
    serving=$started
    api=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/serve.err")
    admin=http://$(sed -n '/"listening"/s/.*"admin":"\([^"]*\)".*/\1/p' "$scratch/serve.err")
}

# A caller beyond its rate is told when to retry, and both do.
recipes_wait() {
    local limited
    KEY_FILE=$hurried_file FORMAT=csv "$recipes/usage.sh" "$api" >/dev/null 2>&1 ||
        fail "usage.sh does not retry"
    "$python" "$recipes/usage.py" "$api" --key-file "$hurried_file" >/dev/null || fail "usage.py does not retry"
    limited=$(curl -sS "$admin/metrics" | sed -n 's/^usage_proxy_rate_limited_total //p')
    ((limited >= 2)) || fail "nobody had to wait: $limited"
    echo "told to retry later, both do ($limited times)"
}

recipes_without_a_key() {
    ! "$recipes/usage.sh" "$api" 2>"$scratch/why" || fail "usage.sh succeeds without a key"
    ! "$python" "$recipes/usage.py" "$api" 2>>"$scratch/why" || fail "usage.py succeeds without a key"
    (($(grep -c 'credential' "$scratch/why") == 2)) ||
        fail "the recipes do not say what is missing: $(cat "$scratch/why")"
    echo "without a key, both say what is missing"
}
