# shellcheck shell=bash
# A PostgreSQL server and PgBouncer (pooling by transaction) for tests, on free ports of the loopback, with
# all files in a temporary folder. Prints "POSTGRES_PORT PGBOUNCER_PORT FOLDER" once both answer. The user
# `postgres` needs no password; others need TLS and one. PostgreSQL has a certificate of the CA
# FOLDER/ca.pem, PgBouncer one that is a CA's itself, FOLDER/self.pem, as `openssl req -x509` makes it.
# Ends with all that it made when standard input closes: so also when the tests die.
# `tests/postgres/server.rs` runs it; neither server runs as root.
set -euo pipefail
cd /

folder=$(mktemp -d "${TMPDIR:-/tmp}/usage-proxy-postgres.XXXXXX")
running=()
end() {
    local pid
    # At once: nothing is needed any more. A shell's background lets PgBouncer ignore QUIT, and TERM makes
    # its newer versions wait for clients; it has no files and no children.
    for pid in "${running[@]}"; do
        case $(<"/proc/$pid/comm") in
            pgbouncer) kill -KILL "$pid" ;;
            *) kill -QUIT "$pid" ;;
        esac 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 1' TERM INT

# The newest version of Debian's packages, or whatever the PATH has.
bin=$(find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
PATH=${bin:+$(dirname "$bin"):}$PATH:/usr/sbin

fail() {
    cat "$folder"/*.log >&2
    echo "tests need a PostgreSQL server and PgBouncer (Debian: postgresql, pgbouncer): $1" >&2
    exit 1
}

# serve NAME COMMAND…: starts a server, whose last argument is a free port. Sets `port`.
serve() {
    local name=$1 attempt waited pid
    for ((attempt = 0; attempt < 5; attempt++)); do
        port=$((20000 + RANDOM % 12000))
        "${@:2}" "$port" </dev/null >"$folder/$name.log" 2>&1 &
        pid=$!
        for ((waited = 0; waited < 600; waited++)); do
            if psql -h 127.0.0.1 -p "$port" -U postgres -d postgres -Atqc 'SELECT 1' >/dev/null 2>&1 &&
                kill -0 "$pid" 2>/dev/null; then
                running=("$pid" "${running[@]}")
                return
            fi
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.05
        done
        kill -KILL "$pid"
    done
    fail "$name did not start"
}

# certificate NAME ARGUMENTS…: makes NAME.pem and NAME.key for localhost.
certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$folder/$1.key" -out "$folder/$1.pem" "${@:2}" 2>>"$folder/openssl.log" ||
        fail "openssl fails"
    chmod 600 "$folder/$1.key"
}

server() {
    exec postgres -D "$folder/data" -p "$1" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c max_connections=300 -c shared_buffers=64MB -c fsync=on -c ssl=on \
        -c ssl_cert_file="$folder/server.pem" -c ssl_key_file="$folder/server.key"
}

pooler() {
    echo "listen_port = $1" | cat "$folder/pooler" - >"$folder/pooler.ini"
    exec pgbouncer -q "$folder/pooler.ini"
}

initdb -D "$folder/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
    >"$folder/initdb.log" 2>&1 || fail "initdb fails"
cat >"$folder/data/pg_hba.conf" <<HBA
host all postgres 127.0.0.1/32 trust
hostssl all all 127.0.0.1/32 scram-sha-256
HBA
names=subjectAltName=DNS:localhost
certificate ca
certificate self -addext "$names"
certificate server -addext "$names" -addext basicConstraints=critical,CA:FALSE \
    -CA "$folder/ca.pem" -CAkey "$folder/ca.key"
chmod 755 "$folder"
serve postgres server
server=$port
echo '"postgres" ""' >"$folder/users"
cat >"$folder/pooler" <<INI
[databases]
* = host=127.0.0.1 port=$server
[pgbouncer]
listen_addr = 127.0.0.1
unix_socket_dir =
auth_type = trust
auth_file = $folder/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 500
client_tls_sslmode = allow
client_tls_cert_file = $folder/self.pem
client_tls_key_file = $folder/self.key
INI
serve pgbouncer pooler
echo "$server $port $folder"
# Nothing is ever written to it.
read -r _ || true
