# shellcheck shell=bash
# Rules, alerts, runbooks and the dashboard, against a real Prometheus that scrapes the service

step_prometheus() {
    need curl curl ca-certificates
    need openssl openssl
    need_yaml
    need_prometheus
    build

    folder=$scratch/prometheus
    mkdir "$folder"
    check_rules
    # They take a while of one processor, in which the rest goes on.
    local pasted
    paste_readme >"$folder/pasted.out" 2>&1 &
    pasted=$!
    running+=("$pasted")
    "$python" -B tests/prometheus/static.py || fail "rules, runbooks and dashboard do not fit together"

    start_services
    start_prometheus
    load
    "$python" -B tests/prometheus/live.py "$prometheus" 20 ||
        prometheus_failed "has no data for some of it"
    stop_services

    wait "$pasted" ||
        fail "the lines of README.md fail, or alerts do not fire as they should: $(cat "$folder/pasted.out")"
    echo "$(cat deploy/prometheus/*.test.yml | grep -c '^  - name:') cases of alerts come out as expected"
}

# Sets `python` to one that reads YAML: where the first in the path does not, Debian's does.
need_yaml() {
    python=python3
    python3 -c 'import yaml' 2>/dev/null && return
    python=/usr/bin/python3
    "$python" -c 'import yaml' 2>/dev/null || apt_install python3 python3-yaml
}

# README.md's lines on a copy, as they are pasted: the last of them tests the alerts.
paste_readme() {
    local lines
    lines=$(sed -n '/^...sh$/,/^...$/p' deploy/prometheus/README.md | sed '1d;$d')
    mkdir -p "$folder/pasted/deploy" "$folder/bin"
    cp -r deploy/prometheus "$folder/pasted/deploy/"
    ln -s "$(realpath "$binary")" "$folder/bin/usage-proxy"
    (cd "$folder/pasted" && PATH=$folder/bin:$PATH bash -euo pipefail -c "$lines") || return
    ! grep -r 'usage-proxy.example' "$folder/pasted" --include='*.yml'
}

# The configuration as it is shipped, but for an address, a secret's place and more haste.
check_rules() {
    promtool check rules deploy/prometheus/usage-proxy.rules.yml >"$folder/rules.out" 2>&1 ||
        fail "promtool objects: $(cat "$folder/rules.out")"
    sed 's/^    interval: 1m$/    interval: 1s/' deploy/prometheus/usage-proxy.rules.yml \
        >"$folder/usage-proxy.rules.yml"
    "$binary" hash-key >"$folder/key" 2>/dev/null
    sed -n 's/^key = "\(.*\)"/\1/p' "$folder/key" >"$folder/admin_key"
    sed -e "s#/run/secrets/admin_key#$folder/admin_key#" -e 's/_interval: \(15s\|1m\)/_interval: 1s/' \
        -e '/# - job_name: customer-usage/,$s/^  # /  /' \
        deploy/prometheus/prometheus.yml >"$folder/prometheus.yml"
    promtool check config "$folder/prometheus.yml" >"$folder/config.out" 2>&1 ||
        fail "promtool objects: $(cat "$folder/config.out")"
    echo "promtool has no objection to rules and configuration"
}

# Three instances before one stand-in: the first has everything that a metric wants (TLS, callers,
# tokens, a portfolio, an admin key); the second shows a certificate that is not registered, so it is
# refused; the third refreshes all customers together, and has a store.
start_services() {
    start simulator 'customer:' "$binary" simulate --listen 127.0.0.1:0
    simulator=$started
    upstream=$(sed -n 's/.*base_url = "\(.*\)"/\1/p' "$scratch/simulator.out")
    make_files
    first_instance >"$folder/first.toml"
    second_instance >"$folder/second.toml"
    third_instance >"$folder/third.toml"

    start first '"listening"' "$binary" serve --config "$folder/first.toml"
    first=$started
    start second '"listening"' "$binary" serve --config "$folder/second.toml"
    second=$started
    start third '"listening"' "$binary" serve --config "$folder/third.toml"
    third=$started
    api=https://$(told first api)
}

# told NAME FIELD: what a service's first line says.
told() {
    sed -n "s/.*\"$2\":\"\([^\"]*\)\".*\"listening\".*/\1/p; s/.*\"listening\".*\"$2\":\"\([^\"]*\)\".*/\1/p" \
        "$scratch/$1.err"
}

make_files() {
    local umask_before
    umask_before=$(umask)
    umask 077
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=localhost \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$folder/key.pem" -out "$folder/certificate.pem" \
        2>/dev/null
    echo secret >"$folder/client_secret"
    echo first >"$folder/refresh_token"
    echo third >"$folder/third_refresh_token"
    umask "$umask_before"

    # The issuer of tokens: one key, served as a file.
    mkdir "$folder/issuer"
    openssl rsa -in "$folder/key.pem" -noout -modulus | "$python" -c '
import base64, json, sys
modulus = bytes.fromhex(sys.stdin.read().split("=")[1].strip())
n = base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()
print(json.dumps({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": n, "e": "AQAB"}]}))
' >"$folder/issuer/keys"
    start issuer 'Serving HTTP' "$python" -u -m http.server --bind 127.0.0.1 --directory "$folder/issuer" 0
    issuer=$started
    jwks_url=$(sed -n 's/.*(\(http:.*\)).*/\1keys/p' "$scratch/issuer.out")

    "$binary" hash-key >"$folder/everything" 2>/dev/null
    "$binary" hash-key >"$folder/little" 2>/dev/null
    everything=$(sed -n 's/^key = "\(.*\)"/\1/p' "$folder/everything")
    little=$(sed -n 's/^key = "\(.*\)"/\1/p' "$folder/little")
    cat >"$folder/callers.toml" <<END
[[caller]]
name = "everything"
key_sha256 = ["$(hash_in everything)"]
customers = ["*"]
scopes = ["usage:read", "cache:refresh"]

[[caller]]
name = "little"
key_sha256 = ["$(hash_in little)"]
customers = ["$documented"]
scopes = ["usage:read"]
rate = "1/s"
END
    cp config/examples/portfolio.toml "$folder/"
}

hash_in() {
    sed -n 's/^key_sha256 = "\(.*\)"/\1/p' "$folder/$1"
}

documented=4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04

first_instance() {
    cat <<END
[server]
listen = "127.0.0.1:0"
tls = { certificate_file = "$folder/certificate.pem", key_file = "$folder/key.pem" }

[admin]
listen = "127.0.0.1:0"
key_sha256 = ["$(hash_in key)"]

[callers]
file = "$folder/callers.toml"
jwt = { issuer = "https://issuer.example", audience = "api://usage-proxy", jwks_url = "$jwks_url" }

[portfolio]
file = "$folder/portfolio.toml"

[metrics]
usage = true

[cache]
fresh_for = "2s"
stale_while_revalidate = "2s"

[upstream]
base_url = "$upstream"

[upstream.auth]
kind = "refresh_token"
token_url = "$upstream/tenant/oauth2/v2.0/token"
client_id = "usage-proxy"
client_secret_file = "$folder/client_secret"
refresh_token_file = "$folder/refresh_token"
END
}

second_instance() {
    cat <<END
[server]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[metrics]
usage = true

[upstream]
base_url = "$upstream"
source = "commercial"

[upstream.auth]
kind = "client_credentials"
token_url = "$upstream/tenant/oauth2/v2.0/token"
client_id = "usage-proxy"
client_certificate_file = "$folder/certificate.pem"
client_key_file = "$folder/key.pem"
END
}

third_instance() {
    cat <<END
[server]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[store]
url = "sqlite:$folder/usage.db"

[metrics]
usage = true

[upstream]
base_url = "$upstream"
source = "commercial"

[upstream.auth]
kind = "refresh_token"
token_url = "$upstream/tenant/oauth2/v2.0/token"
client_id = "usage-proxy"
client_secret_file = "$folder/client_secret"
refresh_token_file = "$folder/third_refresh_token"
END
}

start_prometheus() {
    local targets
    targets=$(printf '"%s", ' "$(told first admin)" "$(told second admin)" "$(told third admin)")
    sed -i "s#\"usage-proxy:9090\"#${targets%, }#" "$folder/prometheus.yml"
    start prometheus 'Listening on' prometheus --config.file="$folder/prometheus.yml" \
        --storage.tsdb.path="$folder/data" --web.listen-address=127.0.0.1:0
    prometheus_pid=$started
    prometheus=http://$(sed -n 's/.*Listening on.*address="\?\([0-9.:]*\).*/\1/p' "$scratch/prometheus.err")
    # What is counted before the first scrape is no increase to Prometheus.
    local waited=0
    until [[ $(scraped) == 3 ]]; do
        ((++waited <= 150)) || prometheus_failed "is not scraped: $(curl -sS "$prometheus/api/v1/targets")"
        sleep 0.2
    done
}

# How many instances have been scraped.
scraped() {
    curl -sSG "$prometheus/api/v1/query" --data-urlencode 'query=count(usage_proxy_build_info)' |
        sed -n 's/.*"value":\[[^,]*,"\([0-9]*\)"\].*/\1/p'
}

# A few hundred requests of every kind, the last of them to a Partner Center on a bad day.
load() {
    local usage=$api/v1/customers/$documented/usage etag
    ask "$usage#[1-200]"
    etag=$(ask -D - "$usage" | sed -n 's/^etag: //Ip' | tr -d '\r')
    ask -H "If-None-Match: $etag" "$usage#[1-50]"
    ask "$api/v1/customers/$documented/analytics/licenses/usage#[1-20]"
    ask "$usage?processedDate=2017-03-09" -H 'Cache-Control: no-cache' "$usage"
    ask "$api/v1/customers/nobody/usage" "$api/nowhere"
    ask "$api/v1/customers/00000000-0000-0000-0000-000000000001/usage#[1-20]"
    shown=wrong ask "$usage#[1-20]"
    curl -sS --max-time 30 -o /dev/null \
        "http://$(told third api)/v1/customers/$documented/usage?processedDate=2017-03-08" ||
        prometheus_failed "cannot be asked for a date that is not stored"
    shown=$little ask "$usage#[1-10]" "$api/v1/customers/00000000-0000-0000-0000-000000000001/usage"

    sleep 2.5
    ask "$usage#[1-20]"
    faults '{"status": 503}'
    sleep 4.5
    ask "$usage#[1-3]"
    ask "$api/v1/customers/00000000-0000-0000-0000-00000000000[2-7]/usage"
    faults '{"status": 429, "retry_after": "2"}'
    sleep 5
    ask "$usage#[1-5]"
    faults '{}'
}

# ask CURL-ARGUMENTS…: as the caller whose key is `shown`, or as the one who may do everything.
ask() {
    local given=("$@") outputs=() each
    for each in "${given[@]}"; do
        [[ $each != https:* ]] || outputs+=(-o /dev/null)
    done
    curl -sS --max-time 30 --cacert "$folder/certificate.pem" -H "Authorization: Bearer ${shown:-$everything}" \
        "${outputs[@]}" "${given[@]}" || prometheus_failed "cannot be asked: $*"
}

faults() {
    curl -sS --fail -o /dev/null -X PUT "$upstream/_simulator/faults" -d "$1" ||
        fail "the stand-in takes no faults: $1"
}

stop_services() {
    stop prometheus "$prometheus_pid"
    stop first "$first"
    stop second "$second"
    stop third "$third"
    stop simulator "$simulator"
    kill "$issuer"
}

prometheus_failed() {
    fail_with prometheus "Prometheus, or what it scrapes, $1"
}
