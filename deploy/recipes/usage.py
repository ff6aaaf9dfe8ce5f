#!/usr/bin/env python3
"""License usage of customers as one pandas table: a row for each product and workload.

    pip install httpx pandas
    python3 usage.py http://127.0.0.1:8080 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
    python3 usage.py https://usage.example.com --customers-file customers.txt \\
        --key-file key --cache ~/.cache/usage --csv usage.csv

Or from a notebook: `import usage; frame = usage.fetch(url, customers)`. Without customers, it is
everybody whom the key may see, less those who have none of that date, or with whom the partner has
no relationship (404, 403), of whom standard error tells.

What did not change since the last time is not sent again (ETag, with --cache), and where the service
says "later" (429, 503, 504), it is asked again when it said (Retry-After).
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import httpx
import pandas as pd

# Asked again, when the answer says so; all others are final.
LATER = {429, 503, 504}
# The longest pause that is waited for, in seconds, and how often.
PATIENCE, ATTEMPTS = 120, 4
COLUMNS = {
    "customerId": "string",
    "customerName": "string",
    "productName": "string",
    "workloadName": "string",
    "licensesActive": "Int64",
    "licensesQualified": "Int64",
    "usagePercent": "Float64",
    "processedDate": "string",
}


class Refused(Exception):
    """The service answered with a problem document (RFC 9457)."""


class Nothing(Refused):
    """There is nothing to be had of this customer, or of this date: 403, 404."""


def fetch(url, customers=None, *, date=None, key=None, cache=None):
    """The usage of these customers, or, where they are None, of all that the key may see.

    It is of the newest processed date, or of `date` (YYYY-MM-DD).
    """
    headers = {"Accept": "application/json"} | ({"X-Api-Key": key} if key else {})
    query = {"processedDate": date} if date else {}
    rows = []
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for customer in everybody(client, cache) if customers is None else customers:
            try:
                rows += flat(get(client, f"/v1/customers/{customer}/usage", query, cache))
            except Nothing as nothing:
                # Who was named is missed.
                if customers is not None:
                    raise
                print(f"left out: {nothing}", file=sys.stderr)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def everybody(client, cache):
    """The ids of all customers that the key may see."""
    return [customer["id"] for customer in get(client, "/v1/customers", {}, cache)["items"]]


def get(client, path, query, cache):
    """One document, from the cache where the service says that it is still the same."""
    request = client.build_request("GET", path, params=query)
    held = Held(cache, request) if cache else None
    if held and held.etag:
        request.headers["If-None-Match"] = held.etag
    for attempt in range(1, ATTEMPTS + 1):
        answer = client.send(request)
        pause = int(answer.headers.get("Retry-After", "1"))
        if answer.status_code not in LATER or attempt == ATTEMPTS or pause > PATIENCE:
            break
        time.sleep(pause)
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return held.document
    if answer.status_code in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        raise Nothing(reason(answer))
    if answer.status_code != httpx.codes.OK:
        raise Refused(reason(answer))
    if held:
        held.keep(answer)
    return answer.json()


def reason(answer):
    """What went wrong, in the service's own words."""
    if not answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        return f"{answer.url}: status {answer.status_code}"
    problem = answer.json()
    return f"{problem['title']}: {problem['detail']} (request {problem.get('requestId')})"


def flat(usage):
    """A row for each product and workload; `null` stays nothing and becomes no zero."""
    for product in usage["products"]:
        for workload in product["workloads"]:
            yield {
                "customerId": usage["customerId"],
                "customerName": usage.get("customerName"),
                "productName": product["productName"],
                **{name: workload[name] for name in COLUMNS if name in workload},
            }


class Held:
    """What was told of one address, with its ETag, in a file of its own."""

    def __init__(self, folder, request):
        # What a caller may see depends on who it is.
        who = request.headers.get("X-Api-Key", "")
        name = hashlib.sha256(f"{request.url}\n{who}".encode()).hexdigest()
        self.file = Path(folder).expanduser() / f"{name}.json"
        try:
            held = json.loads(self.file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            held = {}
        self.etag, self.document = held.get("etag"), held.get("document")

    def keep(self, answer):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        held = {"etag": answer.headers.get("ETag"), "document": answer.json()}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(held))
        fresh.replace(self.file)


def main():
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("url", help="where usage-proxy is, such as http://127.0.0.1:8080")
    parser.add_argument("customers", nargs="*", help="ids (GUIDs); all if left out")
    parser.add_argument("--customers-file", type=Path, help="more ids, one a line")
    parser.add_argument("--date", help="processed date, YYYY-MM-DD; the newest if left out")
    parser.add_argument("--key-file", type=Path, help="file with the caller's key")
    parser.add_argument("--cache", type=Path, help="folder that remembers answers")
    parser.add_argument("--csv", type=Path, help="write a file in place of a table")
    args = parser.parse_args()
    try:
        key = args.key_file.read_text().strip() if args.key_file else None
        usage = fetch(args.url, named(args), date=args.date, key=key, cache=args.cache)
        if args.csv:
            usage.to_csv(args.csv, index=False)
        else:
            print(usage.drop(columns="customerId").to_string(index=False))
    except (Refused, httpx.HTTPError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"{parser.prog}: {error}")


def named(args):
    """The customers that were named, be they none; None where there is no list of them."""
    if not args.customers and not args.customers_file:
        return None
    listed = args.customers_file.read_text().split() if args.customers_file else []
    return [*args.customers, *listed]


if __name__ == "__main__":
    main()
