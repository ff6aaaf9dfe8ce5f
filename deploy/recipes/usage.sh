#!/usr/bin/env bash
# License usage of customers as a table, or as CSV, with curl and jq. Of everybody whom the key may
# see, where no customer is named.
#
#   usage.sh http://127.0.0.1:8080 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
#   KEY_FILE=key usage.sh https://usage.example.com
#   DATE=2017-03-09 FORMAT=csv usage.sh http://127.0.0.1:8080 ID ID > usage.csv
#
# KEY_FILE names the file of the caller's key: it stands in no command line, which others can see.
# Where the service says "later" (429, 503, 504), curl asks again when it said (Retry-After).
set -euo pipefail

url=${1:?usage: usage.sh URL [CUSTOMER...]}
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

headers=$folder/headers
: >"$headers"
[[ -z ${KEY_FILE:-} ]] || (umask 077 && printf 'X-Api-Key: %s\n' "$(<"$KEY_FILE")" >"$headers")

# usage_of CUSTOMER MEDIA-TYPE: one customer's usage
usage_of() {
    get "/v1/customers/$1/usage${DATE:+?processedDate=$DATE}" "$2"
}

# get PATH MEDIA-TYPE: one answer; on failure, why.
get() {
    if ! curl -sS --fail-with-body --compressed --retry 3 --retry-max-time 120 \
        -H @"$headers" -H "Accept: $2" -o "$folder/answer" "$url$1"; then
        echo "usage.sh: $1: $(jq -r '"\(.title): \(.detail)"' "$folder/answer" 2>/dev/null)" >&2
        return 1
    fi
    cat "$folder/answer"
}

if (($# == 0)); then
    everybody=$(get /v1/customers application/json)
    mapfile -t ids < <(jq -r '.items[].id' <<<"$everybody")
    set -- "${ids[@]}"
fi
case ${FORMAT:-table} in
    table)
        for customer; do
            # Assigned first, since a failure in a pipe would be seen too late.
            usage=$(usage_of "$customer" application/json)
            jq -r '"\(.customerName // .customerId), processed \(.processedDate // "never")"' \
                <<<"$usage"
            jq -r '["PRODUCT", "WORKLOAD", "ACTIVE", "OF", "%"],
                   (.products[] as $product | $product.workloads[]
                    | [$product.productName, .workloadName, .licensesActive, .licensesQualified,
                       .usagePercent // "-"])
                   | @tsv' <<<"$usage" | column -t -s $'\t'
            echo
        done
        ;;
    csv)
        header=yes
        for customer; do
            usage=$(usage_of "$customer" text/csv)
            # One header for all.
            if [[ $header == yes ]]; then cat <<<"$usage"; else tail -n +2 <<<"$usage"; fi
            header=no
        done
        ;;
    *)
        echo "usage.sh: FORMAT is $FORMAT; expected table or csv" >&2
        exit 2
        ;;
esac
