#!/usr/bin/env bash
# License usage of customers as a table, or as CSV, with curl and jq. Of everybody whom the key may
# see, where no customer is named: without those who have none of that date, or with whom the
# partner has no relationship (404, 403), of whom standard error tells.
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

# get PATH MEDIA-TYPE: one answer; on failure, why. It ends with 3 where the service answers that
# there is nothing to be had (404, 403).
get() {
    local status
    status=$(curl -sS --compressed --retry 3 --retry-max-time 120 \
        -H @"$headers" -H "Accept: $2" -o "$folder/answer" -w '%{http_code}' "$url$1") || return 1
    if [[ $status == 200 ]]; then
        cat "$folder/answer"
        return
    fi
    echo "usage.sh: $1: $(jq -r '"\(.title): \(.detail)"' "$folder/answer" 2>/dev/null ||
        echo "status $status")" >&2
    [[ $status != 40[34] ]] || return 3
    return 1
}

# may_skip CODE: whether to go on without this customer; else that is the end.
may_skip() {
    [[ $everybody == yes && $1 == 3 ]] || exit 1
}

everybody=no
if (($# == 0)); then
    everybody=yes
    customers=$(get /v1/customers application/json) || exit 1
    mapfile -t ids < <(jq -r '.items[].id' <<<"$customers")
    set -- "${ids[@]}"
fi
case ${FORMAT:-table} in
    table)
        for customer; do
            # Assigned first, since a failure in a pipe would be seen too late.
            usage=$(usage_of "$customer" application/json) || { may_skip $? && continue; }
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
            usage=$(usage_of "$customer" text/csv) || { may_skip $? && continue; }
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
