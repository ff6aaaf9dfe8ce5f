"""Asks a running Prometheus whether everything that deploy/ ships has data, until it has.

    live.py URL SECONDS
"""

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import expressions

# Prometheus makes it of alerts, and has none of those that do not fire.
OF_ALERTS = "ALERTS"

# What alerts come to with the three instances of tests/steps/prometheus.sh, of which one is refused.
STATES = {"UsageProxyWatchdog": {"firing"}, "UsageProxyCredentialsRefused": {"pending", "firing"}}


class Prometheus:
    def __init__(self, url):
        self.url = url

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            raise ValueError(json.load(refusal)["error"]) from None

    def values(self, expression):
        return [float(sample["value"][1]) for sample in self.get("query", query=expression)["result"]]


def faults(prometheus):
    yield from of_targets(prometheus)
    yield from of_rules(prometheus)
    shown = [*expressions.of_panels(), *expressions.of_recordings(), *expressions.of_runbooks()]
    for where, expression in shown:
        yield from without_data(prometheus, where, expression)
    used = set()
    for where, expression in [*shown, *expressions.of_annotations(), *expressions.of_alerts()]:
        for selector in expressions.selectors(expression):
            used.add(expressions.metric(selector))
            yield from without_series(prometheus, where, selector)
    yield from unused(prometheus, used)


def of_targets(prometheus):
    for target in prometheus.get("targets")["activeTargets"]:
        if target["health"] != "up":
            yield f"{target['scrapeUrl']} is {target['health']}: {target['lastError']}"


def of_rules(prometheus):
    """Every rule is loaded, has been evaluated, and without an error."""
    loaded = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    if len(loaded) != len(expressions.rules()):
        yield f"{len(loaded)} rules are loaded of {len(expressions.rules())}"
    for rule in loaded:
        if rule["health"] != "ok":
            yield f"rule {rule['name']} is {rule['health']}: {rule.get('lastError', '')}"
        if rule.get("state") not in STATES.get(rule["name"], {rule.get("state")}):
            yield f"{rule['name']} is {rule['state']}"


def without_data(prometheus, where, expression):
    try:
        values = prometheus.values(expression)
    except ValueError as error:
        yield f"{where}: {error}"
        return
    if not any(math.isfinite(value) for value in values):
        yield f"{where}: {'only NaN' if values else 'no data'}: {expression}"


def without_series(prometheus, where, selector):
    if expressions.metric(selector) == OF_ALERTS:
        return
    try:
        known = prometheus.values(f"count({selector})")
    except ValueError as error:
        yield f"{where}: {error}"
        return
    if not known:
        yield f"{where}: there is no series {selector}"


def unused(prometheus, used):
    """Whatever the service tells of itself is shown or watched somewhere."""
    for name in prometheus.get("label/__name__/values"):
        parts = (name, name.removesuffix("_count"), name.removesuffix("_sum"), name.removesuffix("_bucket"))
        families = {part for part in parts} | {f"{part}_bucket" for part in parts}
        if name.startswith("usage_proxy_") and not families & used:
            yield f"{name} stands in no panel and no rule"


def main(url, seconds):
    prometheus, deadline = Prometheus(url), time.monotonic() + seconds
    while found := list(faults(prometheus)):
        if time.monotonic() > deadline:
            for fault in dict.fromkeys(found):
                print(fault, file=sys.stderr)
            sys.exit(1)
        time.sleep(1)
    counts = {
        "panel targets": len(list(expressions.of_panels())),
        "recording rules": len(list(expressions.of_recordings())),
        "queries of runbooks": len(list(expressions.of_runbooks())),
    }
    print("every one has data: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"{len(expressions.alerts())} alert rules are evaluated, and name no series that is not there")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
