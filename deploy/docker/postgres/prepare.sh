#!/bin/sh
# Makes the files that PostgreSQL and the service need to trust each other. What exists stays.
#
#   prepare.sh SERVER_FOLDER SERVER_GROUP CLIENT_FOLDER CLIENT_GROUP HOST
#
# Each file is readable by one group. The key of the CA is not kept: a new certificate has a new CA.
set -eu
server=$1 server_group=$2 client=$3 client_group=$4 host=$5
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# give FILE FOLDER GROUP: puts a copy of a file of $work into place, whole.
give() {
    rm -f "$2/.new"
    cp "$work/$1" "$2/.new"
    chgrp "$3" "$2/.new"
    chmod 0440 "$2/.new"
    mv "$2/.new" "$2/$1"
}

# Letters and digits only, so that it needs no escapes anywhere.
if ! [ -s "$client/password" ] || ! cmp -s "$client/password" "$server/password"; then
    if [ -s "$client/password" ]; then
        cp "$client/password" "$work/password"
    else
        openssl rand -hex 32 >"$work/password"
    fi
    give password "$client" "$client_group"
    give password "$server" "$server_group"
fi

if ! [ -s "$client/encryption_key" ]; then
    openssl rand -base64 32 >"$work/encryption_key"
    give encryption_key "$client" "$client_group"
fi

in_a_month=$(($(date +%s) + 30 * 86400))
if ! [ -s "$server/server.key" ] || ! openssl verify -attime "$in_a_month" -verify_hostname "$host" \
    -CAfile "$client/ca.pem" "$server/server.pem" >/dev/null 2>&1; then
    ec="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650"
    # shellcheck disable=SC2086  # several words
    openssl req -x509 $ec -subj "/CN=usage-proxy store CA" -addext keyUsage=critical,keyCertSign \
        -keyout "$work/ca.key" -out "$work/ca.pem" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    # shellcheck disable=SC2086
    openssl req -x509 $ec -subj "/CN=$host" -addext "subjectAltName=DNS:$host" \
        -addext basicConstraints=critical,CA:FALSE -CA "$work/ca.pem" -CAkey "$work/ca.key" \
        -keyout "$work/server.key" -out "$work/server.pem" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    give ca.pem "$client" "$client_group"
    give server.key "$server" "$server_group"
    # The last one: it makes the three a set.
    give server.pem "$server" "$server_group"
    echo "made a certificate for $host, valid for 10 years: a PostgreSQL that runs needs a restart"
fi
