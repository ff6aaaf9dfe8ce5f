#!/usr/bin/env bash
# Licenses that nobody uses, over all customers that the key may see, as a table or as CSV, with curl
# and jq: a row for each customer and product, the most unused licenses first.
#
#   usage.sh http://127.0.0.1:8080 min_unused=5
#   KEY_FILE=key usage.sh https://usage.example.com 'group=Key accounts'
#   FORMAT=csv usage.sh http://127.0.0.1:8080 >unused.csv
#
# NAME=VALUE are parameters of /v1/usage/unused (API.md). The table has the first 100 rows, or `limit`;
# CSV has all. If customers are missing, standard error says how many, and why.
#
# KEY_FILE names the file with the caller's key, so that the key is not in the command line, which
# other users can see. After 429, 503 and 504 curl retries once Retry-After is over.
set -euo pipefail

url=${1:?usage: usage.sh URL [NAME=VALUE...]}
parameters=()
for parameter in "${@:2}"; do
    parameters+=(--data-urlencode "$parameter")
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

headers=$folder/headers
: >"$headers"
[[ -z ${KEY_FILE:-} ]] || (umask 077 && printf 'X-Api-Key: %s\n' "$(<"$KEY_FILE")" >"$headers")

# get MEDIA-TYPE: the rows; on failure, the reason.
get() {
    local status
    status=$(curl -sS --compressed --retry 3 --retry-max-time 120 --get -H @"$headers" -H "Accept: $1" \
        "${parameters[@]}" -o "$folder/answer" -w '%{http_code}' \
        "$url/v1/usage/unused") || return
    [[ $status != 200 ]] || { cat "$folder/answer" && return; }
    echo "usage.sh: $(jq -r '"\(.title): \(.detail)"' "$folder/answer" 2>/dev/null || echo "status $status")" >&2
    return 1
}

json=$(get application/json)
jq -r 'if .complete then empty else
    "usage.sh: incomplete: of \(.customers.total) customers, \(.customers.stale) with older data, " +
    "\(.customers.failed) failed, \(.customers.notFetched) not fetched yet",
    (.failed[] | "usage.sh: \(.customerName // .customerId): \(.reason)") end' <<<"$json" >&2
case ${FORMAT:-table} in
    table)
        jq -r '["CUSTOMER", "PRODUCT", "UNUSED", "OF", "%", "PROCESSED"],
               (.items[] | [.customerName // .customerId, .displayName, .licensesUnused, .licensesQualified,
                            .usagePercent // "-", .processedDate])
               | @tsv' <<<"$json" | column -t -s $'\t'
        ;;
    csv) get text/csv ;;
    *)
        echo "usage.sh: FORMAT is $FORMAT; expected table or csv" >&2
        exit 2
        ;;
esac
