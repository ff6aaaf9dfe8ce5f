# shellcheck shell=bash
# What several steps need: the program, servers that are started and end with the run, and tools
# that are no packages of Debian's.

# Servers started and not stopped yet, by process id.
running=()

# For how long, in seconds, the service hands over its last traces once it has drained: FLUSH_TIMEOUT
# of src/observability/traces/exporter.rs.
# shellcheck disable=SC2034  # the steps use it
last_traces=$(sed -n 's/^const FLUSH_TIMEOUT: .*from_secs(\([0-9]*\));$/\1/p' src/observability/traces/exporter.rs)

# The program, as the Rust tests have it. `cargo build` would leave out what only tests need of the
# crates that both use, and so compile most of them once more.
build() {
    need cc gcc libc6-dev
    cargo test --locked --quiet --no-run --test soak
}

# start NAME PATTERN COMMAND…: runs a server until PATTERN stands in what it prints, which goes to
# "$scratch/NAME.out" and "$scratch/NAME.err". Sets `started` to its process id.
start() {
    local name=$1 pattern=$2 waited=0
    # Emptied here: the pattern must not be found in what an earlier server of this name printed.
    : >"$scratch/$name.out"
    : >"$scratch/$name.err"
    "${@:3}" >"$scratch/$name.out" 2>"$scratch/$name.err" &
    started=$!
    running+=("$started")
    until grep -q -e "$pattern" "$scratch/$name.out" "$scratch/$name.err"; do
        kill -0 "$started" 2>/dev/null || fail_with "$name" "$name ended at its start"
        ((++waited <= 300)) || fail_with "$name" "$name did not start within 30 s"
        sleep 0.1
    done
}

# stop NAME PID: ends a server by SIGTERM; it has to obey within 30 s, and to end with 0.
stop() {
    local name=$1 pid=$2 waited=0 code=0 left=() other
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        ((++waited <= 300)) || fail_with "$name" "$name did not end within 30 s of SIGTERM"
        sleep 0.1
    done
    wait "$pid" || code=$?
    for other in "${running[@]}"; do
        ((other == pid)) || left+=("$other")
    done
    running=("${left[@]}")
    ((code == 0)) || fail_with "$name" "$name ended with $code after SIGTERM"
}

# fail_with NAME MESSAGE: fails, after what the server printed.
fail_with() {
    cat "$scratch/$1.out" "$scratch/$1.err" >&2
    fail "$2"
}

# Starts the demo on free ports. Sets `demo` to its process id, `api` and `admin` to its URLs.
start_demo() {
    start demo 'Ctrl-C' "$binary" demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
    demo=$started
    api=$(sed -n 's/^API \(http:[^ ,]*\).*/\1/p' "$scratch/demo.out")
    admin=$(sed -n 's/.*admin \(http:[^ ]*\).*/\1/p' "$scratch/demo.out")
    [[ -n $api && -n $admin ]] || fail_with demo "the demo does not say where it listens"
}

# Prometheus and promtool. Debian 13 has a package of promtool, but both have Prometheus, which
# would start a server when installed: so the package is only unpacked.
need_prometheus() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null && return
    local folder=$target/tools/prometheus package
    PATH=$folder/usr/bin:$PATH
    [[ -x $folder/usr/bin/prometheus && -x $folder/usr/bin/promtool ]] && return
    apt_lists prometheus
    echo "unpacking Prometheus"
    mkdir -p "$folder"
    (
        cd "$folder" || exit
        for package in prometheus promtool; do
            [[ -n $(apt-cache madison "$package") ]] || continue
            # Root would otherwise download as a user who may not write here.
            apt-get download -qq -o APT::Sandbox::User=root "$package"
            dpkg-deb --extract "$package"_*.deb .
        done
    )
}

# PostgreSQL and PgBouncer, whose servers the tests start themselves (tests/postgres).
need_postgres() {
    local settings=/etc/postgresql-common
    need openssl openssl
    need setpriv util-linux
    [[ -x /usr/sbin/pgbouncer ]] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    # Debian would make a database of its own, and start it.
    if [[ ! -e $settings/createcluster.conf ]]; then
        as_root mkdir -p "$settings"
        echo 'create_main_cluster = false' | as_root tee "$settings/createcluster.conf" >/dev/null
    fi
    apt_install postgresql pgbouncer
}

# Starts PostgreSQL. Sets `postgres_port`, and `postgres_folder`, which has its CA as `ca.pem`. It ends with
# this shell, whose end closes its standard input.
start_postgres() {
    need_postgres
    local command=(bash -c "$(<tests/postgres/server.sh)")
    # It refuses to run as root.
    ((EUID != 0)) || command=(setpriv --reuid=postgres --regid=postgres --init-groups "${command[@]}")
    coproc postgres { exec "${command[@]}" 2>"$scratch/postgres.err"; }
    # shellcheck disable=SC2034  # the steps use them
    read -r postgres_port _ postgres_folder <&"${postgres[0]}" ||
        fail "PostgreSQL did not start: $(<"$scratch/postgres.err")"
}

# A folder with a Debian of this machine's own release, downloaded once; `debian_base` names it.
need_debian() {
    local release mirror
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    debian_base=$target/tools/debian-$release
    [[ ! -d $debian_base ]] || return 0
    need debootstrap debootstrap
    # This machine's own, and where it tells none, debootstrap's.
    mirror=$(apt-cache policy base-files |
        sed -n "s#^ *[0-9]* \\(http[^ ]*\\) $release/main .*#\\1#p" | head -n 1)
    echo "installing Debian $release into a folder, which takes a minute or two"
    as_root debootstrap --variant=minbase --include=ca-certificates,systemd,systemd-sysv,dbus \
        "$release" "$debian_base.new" ${mirror:+"$mirror"} \
        >"$scratch/debootstrap" || fail "debootstrap fails: $(tail -n 5 "$scratch/debootstrap")"
    as_root mv "$debian_base.new" "$debian_base"
}

clean_up() {
    local pid
    forget_counted || true
    for pid in "${running[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
