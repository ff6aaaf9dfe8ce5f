"""What the recipes get, compared with what the service tells.

recipes.py grafana FOLDER URL CUSTOMER [KEY-FILE]   the panels, by the requests that Infinity makes
recipes.py table QUERY-RESULT URL CUSTOMER [KEY-FILE]   what a query of Power Query came to
recipes.py same CSV CSV                             two files tell of the same
"""

import csv
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
    "string": lambda value: isinstance(value, str) and value != "",
    "number": lambda value: float(value) >= 0,
}


def key_of(files):
    return Path(files[0]).read_text().strip() if files else ""


def told(url, customer, key):
    """Each product and workload with its counts, as the JSON form has them."""
    path = f"{url}/v1/customers/{customer}/usage"
    answer = httpx.get(path, headers={"X-Api-Key": key} if key else {})
    answer.raise_for_status()
    usage = answer.json()
    return usage, {
        (product["productName"], workload["workloadName"]): (
            workload["licensesActive"],
            workload["licensesQualified"],
        )
        for product in usage["products"]
        for workload in product["workloads"]
    }


def grafana(folder, url, customer, *key_file):
    """Fills the files in as Grafana does, asks as Infinity does, and applies each selector."""
    key, folder = key_of(key_file), Path(folder)
    variables = {
        "USAGE_PROXY_URL": url,
        "USAGE_PROXY_KEY": key,
        "USAGE_PROXY_CUSTOMER": customer,
    }
    text = (folder / "datasource.yml").read_text()
    text = re.sub(r"\$([A-Z_]+)", lambda match: variables[match[1]], text)
    [source] = yaml.safe_load(text)["datasources"]
    options = source["jsonData"]
    assert (options["auth_method"], options["apiKeyType"]) == ("apiKey", "header"), options
    headers = INFINITY | {options["apiKeyKey"]: source["secureJsonData"]["apiKeyValue"] or ""}
    health = httpx.get(options["customHealthCheckUrl"], headers=headers)
    assert health.status_code == 200, health.text

    dashboard = json.loads((folder / "dashboard.json").read_text())
    usage, rows = told(url, customer, key)
    everybody = httpx.get(f"{url}/v1/customers", headers={"X-Api-Key": key} if key else {}).json()
    [variable] = dashboard["templating"]["list"]
    query = variable["query"]["infinityQuery"]
    answer = httpx.get(source["url"] + query["url"], headers=headers | {"Accept": ACCEPT["json"]})
    choice = {row["__value"]: row["__text"] for row in selected(query, answer)}
    assert len(choice) == everybody["totalCount"] and customer in choice, choice
    print(f"{variable['label']}: {len(choice)} to choose from")
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for named in (panel["datasource"], target["datasource"]):
                assert named == {"type": source["type"], "uid": source["uid"]}, panel["title"]
            # The address of the data source and that of the query are put together as text.
            address = source["url"] + target["url"].replace("${customer}", customer)
            allowed = [host for host in options["allowedHosts"] if address.startswith(host)]
            assert allowed, f"{address} is not among the allowed hosts"
            accept = {"Accept": ACCEPT[target["type"]]}
            answer = httpx.get(address, headers=headers | accept)
            assert answer.status_code == 200, f"{panel['title']}: {answer.text}"
            frame = selected(target, answer)
            whole = {"": 1, "workloads": len(usage["workloads"])}
            expected = len(rows) if target["type"] == "csv" else whole[target["root_selector"]]
            assert len(frame) == expected, f"{panel['title']}: {frame}"
            print(f"{panel['title']}: {len(frame)} rows of {target['type']}, each as it should be")


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


def table(result, url, customer, *key_file):
    """The rows that a query came to are those of the JSON form, under one set of names or another."""
    _, rows = told(url, customer, key_of(key_file))
    found = json.loads(Path(result).read_text())
    names = [("Product", "Workload", "Active", "Qualified")]
    names += [("productName", "workloadName", "licensesActive", "licensesQualified")]
    [names] = [these for these in names if these[0] in found[0]]
    got = {(row[names[0]], row[names[1]]): (row[names[2]], row[names[3]]) for row in found}
    assert got == rows, f"{got}\nis not\n{rows}"


def same(one, other):
    """The frame's file has fewer columns than the service's CSV, and the same in them."""
    one, other = pd.read_csv(one), pd.read_csv(other)
    common = list(other.columns)
    assert len(common) >= 8, common
    one = one[common].drop_duplicates().reset_index(drop=True)
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"grafana": grafana, "table": table, "same": same}[what](*rest)
