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
    recipe_shell
    recipe_python
    "$python" "$recipes_py" grafana "$recipes/grafana" "$api" "$documented"
    recipe_power_query
    recipe_everybody
    recipe_some
    stop demo "$demo"

    start_with_callers
    KEY_FILE=$key_file recipe_shell
    recipe_python --key-file "$key_file"
    "$python" "$recipes_py" grafana "$recipes/grafana" "$api" "$documented" "$key_file"
    recipe_power_query "$key_file"
    KEY_FILE=$key_file recipe_everybody
    recipes_wait
    recipes_without_a_key
    stop serve "$serving"
    stop simulate "$simulating"
}

recipes_py=tests/steps/recipes.py

# httpx, pandas and PyYAML, in an environment of their own: other steps have httpx of other versions.
# Sets `python`.
need_recipe_python() {
    local folder=$target/tools/recipes
    python=$folder/bin/python
    "$python" -c 'import httpx, pandas, yaml' 2>/dev/null && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    python3 -m venv --clear "$folder"
    echo "installing httpx, pandas and PyYAML"
    "$python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: \
        httpx==0.28.1 pandas==2.3.3 PyYAML==6.0.3
}

recipe_shell() {
    "$recipes/usage.sh" "$api" "$documented" >"$scratch/table" || fail "usage.sh fails"
    grep -q '^EXCHANGE ONLINE (PLAN 1)  *Exchange  *0  *5  *0$' "$scratch/table" ||
        fail "usage.sh prints another table: $(cat "$scratch/table")"
    FORMAT=csv "$recipes/usage.sh" "$api" "$documented" "$documented" >"$scratch/csv"
    local lines
    lines=$(curl -sS -H "X-Api-Key: $(cat "${KEY_FILE:-/dev/null}")" -H 'Accept: text/csv' \
        "$api/v1/customers/$documented/usage" | wc -l)
    (($(wc -l <"$scratch/csv") == 2 * lines - 1)) ||
        fail "usage.sh repeats the first line: $(cat "$scratch/csv")"
    DATE=2017-03-09 "$recipes/usage.sh" "$api" "$documented" | cmp - "$scratch/table" ||
        fail "usage.sh does not ask for a date"
    ! DATE=2017-02-30 "$recipes/usage.sh" "$api" "$documented" >/dev/null 2>"$scratch/why" ||
        fail "usage.sh succeeds though the service refuses"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "usage.sh does not say why: $(cat "$scratch/why")"
    echo "usage.sh: a table, CSV, a date, a reason${KEY_FILE:+, with a key}"
}

# recipe_python [OPTION…]
recipe_python() {
    local cache=$scratch/cache get=("$python" "$recipes/usage.py" "$api" "$documented" "$@")
    rm -rf "$cache"
    "${get[@]}" --cache "$cache" >"$scratch/first" || fail "usage.py fails"
    grep -q 'EXCHANGE ONLINE (PLAN 1) *Exchange *0 *5 *0' "$scratch/first" ||
        fail "usage.py prints another table: $(cat "$scratch/first")"
    local unchanged='usage_proxy_http_requests_total{.*status="304"} 1'
    "${get[@]}" --cache "$cache" | cmp - "$scratch/first" || fail "usage.py forgets"
    curl -sS "$admin/metrics" >"$scratch/metrics"
    grep -q "$unchanged" "$scratch/metrics" || fail "usage.py has all sent again"
    "${get[@]}" --csv "$scratch/frame.csv"
    "$python" "$recipes_py" same "$scratch/csv" "$scratch/frame.csv"
    ! "${get[@]}" --date 2017-02-30 2>"$scratch/why" || fail "usage.py succeeds though refused"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "usage.py does not say why: $(cat "$scratch/why")"
    echo "usage.py: a table, CSV, a validator, a reason${*:+, with a key}"
}

# recipe_power_query [KEY-FILE]: Power Query runs on Windows alone. Microsoft's own parser reads the
# queries, and what they say is done here.
recipe_power_query() {
    local parser=$target/tools/powerquery query customer key=
    (($# == 0)) || key=$(<"$1")
    if [[ ! -d $parser/node_modules/@microsoft/powerquery-parser ]]; then
        echo "installing Microsoft's parser of Power Query"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$parser" \
            @microsoft/powerquery-parser@2.0.0
    fi
    local run=(env NODE_PATH="$parser/node_modules" node tests/steps/recipes.cjs)
    for query in usage.pq:Customers usage-csv.pq:Customer; do
        customer=${query#*:} query=$recipes/power-query/${query%:*}
        "${run[@]}" "$query" "BaseUrl=$api" "ApiKey=$key" "$customer=$documented" \
            >"$scratch/rows" || fail "$query: $(cat "$scratch/rows")"
        "$python" "$recipes_py" table "$scratch/rows" "$api" "$documented" "$@"
        echo "$query: the rows of the JSON form${1:+, with a key}"
    done
    query=$recipes/power-query/usage.pq
    "${run[@]}" "$query" "BaseUrl=$api" "ApiKey=$key" ProcessedDate=2017-03-09 |
        cmp - <("${run[@]}" "$query" "BaseUrl=$api" "ApiKey=$key") ||
        fail "$query does not ask for a date"
    ! "${run[@]}" "$query" "BaseUrl=$api" "ApiKey=$key" ProcessedDate=2017-02-30 \
        >"$scratch/why" || fail "$query succeeds though the service refuses"
    grep -q 'expected a calendar date' "$scratch/why" ||
        fail "$query does not say why: $(cat "$scratch/why")"
}

# Without a customer, each recipe tells of all that its key may see.
recipe_everybody() {
    local key='' id told='' options=() query=(env NODE_PATH="$target/tools/powerquery/node_modules" node)
    [[ -z ${KEY_FILE:-} ]] || key=$(<"$KEY_FILE") options=(--key-file "$KEY_FILE")
    # Those who have any licences: one without has no row.
    for id in $(curl -sS -H "X-Api-Key: $key" "$api/v1/customers" | jq -r '.items[].id'); do
        told+=$(curl -sS -H "X-Api-Key: $key" "$api/v1/customers/$id/usage" |
            jq -r 'if .products == [] then "" else "x" end')
    done
    told=${#told}
    FORMAT=csv "$recipes/usage.sh" "$api" >"$scratch/shell.csv" || fail "usage.sh fails"
    "$python" "$recipes/usage.py" "$api" "${options[@]}" --csv "$scratch/python.csv"
    "${query[@]}" tests/steps/recipes.cjs "$recipes/power-query/usage.pq" "BaseUrl=$api" \
        "ApiKey=$key" Customers=null >"$scratch/rows" || fail "usage.pq: $(cat "$scratch/rows")"
    "$python" "$recipes_py" same "$scratch/shell.csv" "$scratch/python.csv"
    local ids
    ids=$(tail -n +2 "$scratch/shell.csv" | cut -d , -f 1 | sort -u | wc -l)
    ((ids == told)) || fail "usage.sh tells of $ids customers of $told"
    ids=$(jq '[.[].Customer] | unique | length' "$scratch/rows")
    ((ids == told)) || fail "usage.pq tells of $ids customers of $told"
    ((told > 0)) || fail "nobody has licences"
    echo "all $told customers with licences, where none is named${KEY_FILE:+, with a key}"
}

# Of a date that but one customer has, each recipe tells of that one, and says whom it leaves out.
recipe_some() {
    local date=2017-03-09 others query=(env NODE_PATH="$target/tools/powerquery/node_modules" node)
    others=$(curl -sS "$api/v1/customers" | jq '.totalCount - 1')
    ((others > 0)) || fail "there is nobody to leave out"
    DATE=$date FORMAT=csv "$recipes/usage.sh" "$api" >"$scratch/shell.csv" 2>"$scratch/left" ||
        fail "usage.sh ends at one who has nothing: $(cat "$scratch/left")"
    (($(wc -l <"$scratch/left") == others)) || fail "usage.sh says of whom? $(cat "$scratch/left")"
    "$recipes/usage.sh" "$api" "$documented" | sed -n 1p |
        cmp - <(DATE=$date "$recipes/usage.sh" "$api" 2>/dev/null | sed -n 1p) ||
        fail "usage.sh has no table of some"
    "$python" "$recipes/usage.py" "$api" --date "$date" --csv "$scratch/python.csv" 2>"$scratch/left" ||
        fail "usage.py ends at one who has nothing: $(cat "$scratch/left")"
    (($(wc -l <"$scratch/left") == others)) || fail "usage.py says of whom? $(cat "$scratch/left")"
    DATE=$date FORMAT=csv "$recipes/usage.sh" "$api" "$documented" | cmp - "$scratch/shell.csv" ||
        fail "usage.sh tells of others"
    "$python" "$recipes_py" same "$scratch/shell.csv" "$scratch/python.csv"
    "${query[@]}" tests/steps/recipes.cjs "$recipes/power-query/usage.pq" "BaseUrl=$api" ApiKey= \
        Customers=null "ProcessedDate=$date" >"$scratch/rows" || fail "usage.pq: $(cat "$scratch/rows")"
    "$python" "$recipes_py" table "$scratch/rows" "$api" "$documented"

    # Who was named is missed.
    ! DATE=2017-03-08 "$recipes/usage.sh" "$api" "$documented" >/dev/null 2>&1 || fail "usage.sh misses nobody"
    ! "$python" "$recipes/usage.py" "$api" "$documented" --date 2017-03-08 >/dev/null 2>&1 ||
        fail "usage.py misses nobody"
    ! "${query[@]}" tests/steps/recipes.cjs "$recipes/power-query/usage.pq" "BaseUrl=$api" ApiKey= \
        ProcessedDate=2017-03-08 >/dev/null || fail "usage.pq misses nobody"
    : >"$scratch/nobody"
    "$python" "$recipes/usage.py" "$api" --customers-file "$scratch/nobody" --csv "$scratch/python.csv"
    (($(wc -l <"$scratch/python.csv") == 1)) || fail "usage.py takes an empty list for all"
    ! "$python" "$recipes/usage.py" "$api" --key-file "$scratch/nowhere" 2>"$scratch/why" ||
        fail "usage.py succeeds without its key"
    [[ $(wc -l <"$scratch/why") == 1 && $(<"$scratch/why") == *nowhere* ]] ||
        fail "usage.py does not say which file is missing: $(cat "$scratch/why")"
    echo "of a date that one customer has, that one; $others are left out, and named"
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
        USAGE_PROXY__UPSTREAM__BASE_URL="$upstream" USAGE_PROXY__UPSTREAM__SOURCE=commercial \
        USAGE_PROXY__UPSTREAM__AUTH__KIND=client_credentials \
        USAGE_PROXY__UPSTREAM__AUTH__TOKEN_URL="$upstream/tenant/oauth2/v2.0/token" \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_ID=recipes \
        USAGE_PROXY__UPSTREAM__AUTH__CLIENT_SECRET_FILE="$scratch/secret" "$binary" serve
    serving=$started
    api=http://$(sed -n '/"listening"/s/.*"api":"\([^"]*\)".*/\1/p' "$scratch/serve.err")
    admin=http://$(sed -n '/"listening"/s/.*"admin":"\([^"]*\)".*/\1/p' "$scratch/serve.err")
}

# Who asks more often than it may is told when to come again, and both do.
recipes_wait() {
    local limited
    KEY_FILE=$hurried_file FORMAT=csv "$recipes/usage.sh" "$api" "$documented" "$documented" \
        >/dev/null 2>&1 || fail "usage.sh does not come again"
    "$python" "$recipes/usage.py" "$api" "$documented" "$documented" --key-file "$hurried_file" \
        >/dev/null || fail "usage.py does not come again"
    limited=$(curl -sS "$admin/metrics" | sed -n 's/^usage_proxy_rate_limited_total //p')
    ((limited >= 2)) || fail "nobody had to wait: $limited"
    echo "told to come later, both do ($limited times)"
}

recipes_without_a_key() {
    ! "$recipes/usage.sh" "$api" "$documented" 2>"$scratch/why" ||
        fail "a recipe succeeds without a key"
    ! "$python" "$recipes/usage.py" "$api" "$documented" 2>>"$scratch/why" ||
        fail "a recipe succeeds without a key"
    (($(grep -c 'credential' "$scratch/why") == 2)) ||
        fail "the recipes do not say what is missing: $(cat "$scratch/why")"
    echo "without a key, both say what is missing"
}
