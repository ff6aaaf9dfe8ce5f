# shellcheck shell=bash
# The Debian package, installed into a Debian in a folder, which is booted for it. Around the debug
# build, which is quick; `DEB_PROFILE=release tests/run debian` tries the one that ships.

step_debian() {
    # A shell of its own: what it boots ends with it, whatever becomes of it.
    (
        trap debian_ends EXIT
        need dpkg-shlibdeps dpkg-dev
        need lintian lintian
        need systemd-nspawn systemd-container
        need curl curl ca-certificates
        need jq jq
        need_cargo deb 3.8.0
        package_is_built
        debian_boots
        package_installs
        service_runs
        sockets_are_held
        package_updates
        package_goes
    )
}

package_is_built() {
    local version
    build
    package=$(DEB_PROFILE=${DEB_PROFILE:-dev} deploy/debian/build)
    version=$(dpkg-deb --field "$package" Version)
    [[ $version == "$(sed -n '1s/.*(\(.*\)).*/\1/p' deploy/debian/changelog)" ]] ||
        fail "deploy/debian/changelog does not begin with $version"
    lintian --allow-root --fail-on error,warning "$package" || fail "lintian objects to $package"
    echo "lintian has no objection to ${package##*/}"
}

# A copy of that Debian, booted: systemd is its first process. It has a network of its own, in which
# there is only a loopback.
debian_boots() {
    local options=(--quiet --private-network --console=pipe) waited=0
    need_debian
    debian=$scratch/debian
    as_root cp --archive --reflink=auto "$debian_base" "$debian"
    # Without a systemd around it there is nobody to register with.
    [[ -d /run/systemd/system ]] || options+=(--register=no --keep-unit)
    as_root systemd-nspawn "${options[@]}" --directory="$debian" --boot \
        >"$scratch/boot.out" 2>"$scratch/boot.err" </dev/null &
    running+=("$!")
    until leader=$(debian_leader) && [[ $(inside systemctl is-system-running 2>/dev/null) == running ]]; do
        ((++waited <= 600)) || fail_with boot "Debian does not boot in a folder here within 60 s: \
$(inside systemctl --no-pager --failed 2>&1)"
        sleep 0.1
    done
    echo "${debian_base##*/} has booted in a folder"
}

# Its first process, as this machine counts: the child of systemd-nspawn.
debian_leader() {
    local nspawn
    nspawn=$(pgrep --oldest --full "^systemd-nspawn .*--directory=$debian ") &&
        pgrep --oldest --parent "$nspawn"
}

# inside COMMAND…: runs it in that Debian, as its root.
inside() {
    as_root nsenter --target "$leader" --all "$@"
}

# Has to hold within 60 s: the command and what it says are told otherwise.
eventually() {
    local waited=0
    until "$@" >"$scratch/said" 2>&1; do
        ((++waited <= 300)) || service_failed "$*: $(<"$scratch/said")"
        sleep 0.2
    done
}

service_failed() {
    inside journalctl --no-pager --output=cat >&2
    fail "$1"
}

debian_ends() {
    # By its first process: with systemd-nspawn alone, the rest would live on.
    [[ -z ${leader:-} ]] || as_root kill -KILL "$leader" 2>/dev/null || true
    [[ -z ${debian:-} ]] || {
        wait 2>/dev/null || true
        as_root rm -rf "$debian"
    }
}

package_installs() {
    as_root install -m 644 "$package" "$debian/root/usage-proxy.deb"
    inside dpkg --install /root/usage-proxy.deb >"$scratch/dpkg" 2>&1 ||
        fail "the package does not install: $(<"$scratch/dpkg")"
    local state
    state=$(inside systemctl is-enabled usage-proxy.service usage-proxy.socket) || true
    [[ $state == $'disabled\ndisabled' ]] || fail "installed, and enabled by itself: $state"
    ! inside systemctl --quiet is-active usage-proxy || fail "started before it is configured"
    state=$(inside stat --format='%U %a' /var/lib/usage-proxy)
    [[ $state == "usage-proxy 700" ]] || fail "/var/lib/usage-proxy is of $state"
    inside test -s /usr/share/man/man1/usage-proxy.1.gz -a \
        -s /usr/share/bash-completion/completions/usage-proxy || fail "pages or completions are missing"
    echo "it installs, makes its user and that user's directory, and starts nothing"
}

# By the lines that the package's README has for an administrator, before the stand-in.
service_runs() {
    local lines config=$debian/etc/usage-proxy/usage-proxy.toml made
    lines=$(sed -n '/^cp .*examples/,/^usage-proxy healthcheck/p' deploy/debian/README.md)
    as_root tee "$debian/root/client_secret" "$debian/root/refresh_token" <<<first >/dev/null
    inside sh -euc "cd /root; ${lines%%systemctl*}" >"$scratch/configured" 2>&1 ||
        fail "the lines of deploy/debian/README.md fail: $(<"$scratch/configured")"

    inside systemd-run --quiet --unit=partner-center --property=DynamicUser=yes \
        usage-proxy simulate --listen 127.0.0.1:7070
    as_root sed -i -e 's#^token_url = .*#token_url = "http://127.0.0.1:7070/tenant/oauth2/v2.0/token"#' \
        -e 's#^listen = .*#listen = "127.0.0.1:8080"#' "$config"
    as_root tee --append "$config" <<<$'[upstream]\nbase_url = "http://127.0.0.1:7070"' >/dev/null
    made=$("$binary" hash-key 2>/dev/null)
    key=$(sed -n 's/^key = "\(.*\)"/\1/p' <<<"$made")
    as_root tee --append "$debian/etc/usage-proxy/callers.toml" >/dev/null <<END
[[caller]]
name = "test"
key_sha256 = [$(sed -n 's/^key_sha256 = //p' <<<"$made")]
customers = ["*"]
scopes = ["usage:read"]
END
    inside sh -euc "$(grep '^systemctl' <<<"$lines")" >"$scratch/enabled" 2>&1 ||
        service_failed "it does not start: $(<"$scratch/enabled")"
    eventually usage_is_served
    eventually healthy --ready

    # The secret is root's and the service is not, so systemd has passed it on; and the token was
    # replaced, so the one directory that the service may write to can be written to.
    [[ $(inside stat --format='%U %a' /etc/usage-proxy/client_secret) == "root 600" ]] ||
        fail "the client secret is not root's alone"
    [[ $(inside stat --format=%U "/proc/$(main_pid)") == usage-proxy ]] ||
        fail "the service does not run as its own user"
    [[ $(inside cat /var/lib/usage-proxy/refresh_token) != first ]] ||
        service_failed "the refresh token was not replaced"
    echo "it runs by the lines of its README, with a credential and a directory of its own"
}

# With systemd's sockets a connection starts the service, and a restart refuses nobody.
sockets_are_held() {
    local asking before answers
    inside systemctl --quiet disable --now usage-proxy
    inside systemctl --quiet enable --now usage-proxy.socket
    ! inside systemctl --quiet is-active usage-proxy || fail "it runs before anybody connects"
    usage_is_served || service_failed "a connection does not start it"
    before=$(main_pid)
    (for _ in {1..40}; do asked; done) >"$scratch/asked" 2>&1 &
    asking=$!
    inside systemctl restart usage-proxy
    wait "$asking" || true
    [[ $(main_pid) != "$before" ]] || fail "it was not restarted"
    answers=$(sort "$scratch/asked" | uniq -c)
    [[ $answers =~ ^\ *40\ 200$ ]] || service_failed "a restart cost somebody an answer: $answers"
    echo "systemd starts it by a connection, and 40 of 40 requests around a restart are answered"
}

# A package whose own configuration is another; what was edited stays, and what runs is restarted.
package_updates() {
    local tree=$scratch/update before edited config=/etc/usage-proxy/usage-proxy.toml
    dpkg-deb --raw-extract "$package" "$tree"
    sed -i 's/^Version: .*/&+update/' "$tree/DEBIAN/control"
    echo '# of the update' >>"$tree$config"
    as_root dpkg-deb --root-owner-group -Znone --build "$tree" "$debian/root/update.deb" >/dev/null
    before=$(main_pid) edited=$(inside cat "$config")
    inside dpkg --force-confold --install /root/update.deb >"$scratch/dpkg" 2>&1 ||
        fail "the update does not install: $(<"$scratch/dpkg")"
    [[ $(inside cat "$config") == "$edited" ]] || fail "the update undid what was edited"
    inside grep -q 'of the update' "$config.dpkg-dist" || fail "the update's own configuration is lost"
    eventually usage_is_served
    [[ $(main_pid) != "$before" ]] || fail "the update did not restart what ran"
    echo "an update keeps what was edited, and restarts the service"
}

package_goes() {
    local left
    inside dpkg --remove usage-proxy >"$scratch/dpkg" 2>&1 || fail "it stays: $(<"$scratch/dpkg")"
    ! inside systemctl --quiet is-active usage-proxy.service usage-proxy.socket ||
        fail "removed, and runs"
    inside test -s /etc/usage-proxy/usage-proxy.toml -a -s /var/lib/usage-proxy/refresh_token ||
        fail "removing it took the configuration or the token"
    inside dpkg --purge usage-proxy >"$scratch/dpkg" 2>&1 || fail "it stays: $(<"$scratch/dpkg")"
    left=$(inside find /etc /usr /var/lib -path /var/lib/dpkg -prune -o -name '*usage-proxy*' -print)
    [[ -z $left ]] || fail "purged, and left: $left"
    echo "removed, it keeps configuration and token; purged, it leaves nothing"
}

usage_is_served() {
    [[ $(asked) == 200 ]]
}

# Asks for usage, from this machine in that Debian's network, and says the status.
asked() {
    as_root nsenter --target "$leader" --net curl --noproxy '*' -sS --max-time 20 --output /dev/null \
        --write-out '%{http_code}\n' --header "Authorization: Bearer $key" \
        http://127.0.0.1:8080/v1/customers/4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04/usage
}

healthy() {
    inside usage-proxy healthcheck --config /etc/usage-proxy/usage-proxy.toml "$@"
}

main_pid() {
    inside systemctl show --property=MainPID --value usage-proxy
}
