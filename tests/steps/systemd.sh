# shellcheck shell=bash
# systemd

unit=deploy/systemd/usage-proxy.service
socket=deploy/systemd/usage-proxy.socket
# Tenths, as systemd-analyze counts. What is left are network access, a /proc that metrics need, and
# the call that lowers the priority of CPU-bound work.
exposure=12

step_systemd() {
    need systemd-analyze systemd
    build

    # A copy: the program stands elsewhere here, and must exist.
    local copy=$scratch/usage-proxy.service said
    sed "s#^ExecStart=[^ ]*#ExecStart=$binary#" "$unit" | install -m 644 /dev/stdin "$copy"
    # Unknown keys are told of, yet the exit code is 0.
    said=$(systemd-analyze verify --man=no --recursive-errors=no "$copy" 2>&1) || fail "$said"
    [[ -z $said ]] || fail "$said"
    echo "$unit is well-formed"
    # The socket unit names the service by its own name, so it is looked at beside it.
    install -m 644 "$socket" "$scratch/"
    said=$(SYSTEMD_UNIT_PATH="$scratch:" systemd-analyze verify --man=no --recursive-errors=no \
        "$scratch/usage-proxy.socket" 2>&1) || fail "$said"
    [[ -z $said ]] || fail "$said"
    echo "$socket is well-formed"
    systemd-analyze security --no-pager --offline=yes --threshold="$exposure" "$copy" \
        >"$scratch/security" || fail "$(grep -a '✗' "$scratch/security")"
    tail -n 1 "$scratch/security"

    local variables
    mapfile -t variables < <(sed -n 's/^Environment=//p' "$unit" | sed 's#%d#/run/credentials#')
    check_config config/examples/app-user.toml "${variables[@]}"

    local drain stop
    drain=$(sed -n 's/^drain_timeout = "\([0-9]*\)s"$/\1/p' config/usage-proxy.toml)
    stop=$(sed -n 's/^TimeoutStopSec=\([0-9]*\)s$/\1/p' "$unit")
    ((stop > drain + last_traces)) ||
        fail "$unit stops after ${stop:-?} s what may drain for ${drain:-?} s, and then export traces"
    echo "stops after $stop s what may drain for $drain s"
}
