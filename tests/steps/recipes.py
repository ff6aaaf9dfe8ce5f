"""What the recipes get, compared with what the service answers.

recipes.py grafana FOLDER URL CUSTOMER [KEY-FILE]   the panels, by the requests that Infinity makes
recipes.py whole CSV URL [KEY-FILE]                 the rows of all customers, none missing
recipes.py table QUERY-RESULT CSV                   the result of a query of Power Query
recipes.py same CSV CSV                             two files have the same rows
"""

import csv
import datetime
import io
import json
import re
import sys
from pathlib import Path

import httpx
import pandas as pd
import yaml

# What Infinity sends by itself, by the type of the query (pkg/infinity/headers.go, Go's net/http).
INFINITY = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
ACCEPT = {"json": "application/json;q=0.9,text/plain", "csv": "text/csv; charset=utf-8"}
TYPES = {
    "string": lambda value: isinstance(value, str),
    # A number that is not known is null, in CSV an empty cell.
    "number": lambda value: value in (None, "") or float(value) >= 0,
    "timestamp": datetime.date.fromisoformat,
}


def headers_of(files):
    return {"X-Api-Key": Path(files[0]).read_text().strip()} if files else {}


def get(url, files):
    answer = httpx.get(url, headers=headers_of(files))
    answer.raise_for_status()
    return answer.json()


def grafana(folder, url, customer, *key_file):
    """Fills the files in as Grafana does, asks as Infinity does, and applies each selector."""
    folder = Path(folder)
    variables = {"USAGE_PROXY_URL": url, "USAGE_PROXY_KEY": headers_of(key_file).get("X-Api-Key", "")}
    text = (folder / "datasource.yml").read_text()
    text = re.sub(r"\$([A-Z_]+)", lambda match: variables[match[1]], text)
    [source] = yaml.safe_load(text)["datasources"]
    options = source["jsonData"]
    assert (options["auth_method"], options["apiKeyType"]) == ("apiKey", "header"), options
    headers = INFINITY | {options["apiKeyKey"]: source["secureJsonData"]["apiKeyValue"] or ""}
    health = httpx.get(options["customHealthCheckUrl"], headers=headers)
    assert health.status_code == 200, health.text

    dashboard = json.loads((folder / "dashboard.json").read_text())
    usage = get(f"{url}/v1/usage", key_file)
    total = usage["customers"]["total"]
    own = get(f"{url}/v1/customers/{customer}/usage", key_file)
    [variable] = dashboard["templating"]["list"]
    query = variable["query"]["infinityQuery"]
    answer = httpx.get(source["url"] + query["url"], headers=headers | {"Accept": ACCEPT["json"]})
    choice = {row["__value"]: row["__text"] for row in selected(query, answer)}
    assert len(choice) == total and customer in choice, choice
    print(f"{variable['label']}: {len(choice)} to choose from")
    frames = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for named in (panel["datasource"], target["datasource"]):
                assert named == {"type": source["type"], "uid": source["uid"]}, panel["title"]
            # The address of the data source and that of the query are put together as text.
            address = source["url"] + target["url"].replace("${customer}", customer)
            address = address.replace("${__from:date:YYYY-MM-DD}", "2026-01-01")
            allowed = [host for host in options["allowedHosts"] if address.startswith(host)]
            assert allowed, f"{address} is not among the allowed hosts"
            accept = {"Accept": ACCEPT[target["type"]]}
            answer = httpx.get(address, headers=headers | accept)
            assert answer.status_code == 200, f"{panel['title']}: {answer.text}"
            frame = frames[target["url"], target["root_selector"]] = selected(target, answer)
            print(f"{panel['title']}: {len(frame)} rows of {target['type']}, each as it should be")
    [newest] = frames["/v1/usage", ""]
    assert newest["All"] == total, newest
    customers = frames["/v1/usage/customers", ""]
    unused = sum(int(row["Unused"] or 0) for row in customers)
    assert (len(customers), unused) == (total, usage["totals"]["licensesUnused"]), customers
    history = get(f"{url}/v1/usage/history?from=2026-01-01", key_file)["items"]
    assert len(frames["/v1/usage/history?from=${__from:date:YYYY-MM-DD}", "items"]) == len(history)
    assert frames["/v1/usage/unused?limit=100", ""]
    assert len(frames["/v1/customers/${customer}/usage", "workloads"]) == len(own["workloads"])


def selected(target, answer):
    """The frame that Infinity makes of an answer: a column for each selector."""
    if target["type"] == "csv":
        assert answer.headers["Content-Type"].startswith("text/csv"), answer.headers
        found = list(csv.DictReader(io.StringIO(answer.text)))
    else:
        assert answer.headers["Content-Type"].startswith("application/json"), answer.headers
        document = answer.json()
        root = target["root_selector"]
        found = document[root] if root else [document]
    for row in found:
        for column in target["columns"]:
            value = at(row, column["selector"])
            assert TYPES[column["type"]](value), f"{column}: {value!r}"
    return [{c["text"]: at(row, c["selector"]) for c in target["columns"]} for row in found]


def at(row, selector):
    """What a selector with dots leads to."""
    for part in selector.split("."):
        row = row[part]
    return row


def whole(file, url, *key_file):
    """The rows of a file add up to the totals of all customers."""
    usage, rows = get(f"{url}/v1/usage", key_file), pd.read_csv(file)
    for name in ("licensesQualified", "licensesActive", "licensesUnused"):
        assert rows[name].sum() == usage["totals"][name], name
    assert rows["licensesUnused"].is_monotonic_decreasing and len(rows) > 0


def table(result, file):
    """A query came to the rows of the CSV form."""
    found = json.loads(Path(result).read_text())
    with open(file, newline="", encoding="utf-8") as lines:
        expected = list(csv.DictReader(lines))
    assert len(found) == len(expected), found
    for row, line in zip(found, expected):
        assert list(row) == list(line), row
        for name, value in row.items():
            assert value == (line[name] if isinstance(value, str) else float(line[name])), row


def same(one, other):
    one, other = pd.read_csv(one), pd.read_csv(other)
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"grafana": grafana, "whole": whole, "table": table, "same": same}[what](*rest)
