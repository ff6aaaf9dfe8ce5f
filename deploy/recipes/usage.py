#!/usr/bin/env python3
"""Licenses that nobody uses, over all customers that the key may see, as one pandas table: a row for
each customer and product, the most unused licenses first.

    pip install pandas urllib3
    python3 usage.py http://127.0.0.1:8080 min_unused=5
    python3 usage.py https://usage.example.com "group=Key accounts" --key-file key --csv unused.csv

NAME=VALUE are parameters of /v1/usage/unused (API.md). If customers are missing, standard error says
how many, and why.

From a notebook: `import usage; frame = usage.read(url)`. Any other path that has CSV works too:
`usage.read(url, "/v1/usage/history", {"from": "2026-01-01"})`.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import pandas as pd
import urllib3

# After these the service says when to retry (Retry-After), and urllib3 waits for it.
RETRIES = urllib3.Retry(3, status_forcelist=[429, 503, 504], raise_on_status=False)
HTTP = urllib3.PoolManager(retries=RETRIES, timeout=60)


class Refused(Exception):
    """The service answered with a problem document (RFC 9457)."""


def read(url, path="/v1/usage/unused", query=(), key=None):
    """The rows of a path as a table. A cell without a value is NaN, never 0."""
    body = get(url, path, query, key, "text/csv")
    # A customer can be called "NA".
    frame = pd.read_csv(io.BytesIO(body), keep_default_na=False, na_values=[""])
    for name in frame.columns.intersection(["processedDate", "fetchedAt"]):
        frame[name] = pd.to_datetime(frame[name])
    return frame


def missing(url, query=(), key=None):
    """What to know of customers that do not count, or count with older data; a line for each fact."""
    answer = json.loads(get(url, "/v1/usage/unused", query, key, "application/json"))
    if answer["complete"]:
        return []
    counts = "of {total} customers, {stale} with older data, {failed} failed, {notFetched} not fetched yet"
    failed = (f"{one.get('customerName', one['customerId'])}: {one['reason']}" for one in answer["failed"])
    return ["incomplete: " + counts.format(**answer["customers"]), *failed]


def get(url, path, query, key, media_type):
    """The body of one answer."""
    headers = {"Accept": media_type, "Accept-Encoding": "gzip"} | ({"X-Api-Key": key} if key else {})
    answer = HTTP.request("GET", url + path, fields=query, headers=headers)
    if answer.status == 200:
        return answer.data
    if not answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        raise Refused(f"{url}{path}: status {answer.status}")
    problem = answer.json()
    raise Refused(f"{problem['title']}: {problem['detail']} (request {problem['requestId']})")


def main():
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("url", help="where usage-proxy is, such as http://127.0.0.1:8080")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as min_unused=5")
    parser.add_argument("--key-file", type=Path, help="file with the caller's key")
    parser.add_argument("--csv", type=Path, help="write a file in place of a table")
    args = parser.parse_intermixed_args()
    query = [parameter.partition("=")[::2] for parameter in args.parameters]
    try:
        key = args.key_file.read_text().strip() if args.key_file else None
        frame = read(args.url, query=query, key=key)
        for line in missing(args.url, query, key):
            print(f"{parser.prog}: {line}", file=sys.stderr)
        if args.csv:
            frame.to_csv(args.csv, index=False)
        else:
            print(frame.drop(columns=["customerId", "productName"]).to_string(index=False))
    except (Refused, urllib3.exceptions.HTTPError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
