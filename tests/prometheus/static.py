"""What can be said of rules, runbooks and dashboard without a Prometheus."""

import re
import sys

import yaml

import expressions


def faults():
    yield from of_annotations()
    yield from of_runbooks()
    yield from of_tests()
    yield from of_dashboard()


def of_annotations():
    for rule in expressions.alerts():
        name, annotations = rule["alert"], rule["annotations"]
        if rule["labels"]["severity"] not in ("page", "ticket", "none"):
            yield f"{name}: nobody knows the severity {rule['labels']['severity']}"
        for wanted in ("summary", "description", "runbook_url"):
            if not annotations.get(wanted):
                yield f"{name}: it has no {wanted}"
        if not annotations.get("runbook_url", "").endswith(f"#{name.lower()}"):
            yield f"{name}: runbook_url leads to another section"
        if "{{" not in annotations.get("description", ""):
            yield f"{name}: its description has no value in it"


def of_runbooks():
    """A section for each alert and none besides, in the same order, and no link into nothing."""
    text = expressions.RUNBOOKS.read_text()
    sections = re.findall(r"^## (.+)$", text, re.M)
    named = list(dict.fromkeys(rule["alert"] for rule in expressions.alerts()))
    if sections != named:
        yield f"RUNBOOKS.md has other sections, or in another order, than alerts: {set(sections) ^ set(named)}"
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        for part in ("**Means.**", "**Look", "**Do.**", "**Over**"):
            if part not in section:
                yield f"RUNBOOKS.md: {section.splitlines()[0]} does not say {part}"
    anchors = {heading.lower() for heading in sections}
    for link in re.findall(r"\]\(#([^)]*)\)", text):
        if link not in anchors:
            yield f"RUNBOOKS.md: #{link} leads nowhere"


def of_tests():
    """Each alert, at each severity and window, fires in some test; and in some it does not."""
    fires, quiet = set(), set()
    for file in expressions.RULE_TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected = case.get("exp_alerts") or []
                fires |= {identity(case["alertname"], alert["exp_labels"]) for alert in expected}
                quiet |= set() if expected else {case["alertname"]}
    for rule in expressions.alerts():
        if identity(rule["alert"], rule["labels"]) not in fires:
            yield f"{rule['alert']} {rule['labels']}: no test has it fire"
        if rule["alert"] not in quiet:
            yield f"{rule['alert']}: no test has it stay quiet"


def identity(alert, labels):
    return alert, labels["severity"], labels.get("window")


def of_dashboard():
    ids, titles = [], []
    for panel in expressions.panels():
        ids.append(panel["id"])
        titles.append(panel["title"])
        if not panel.get("description"):
            yield f"panel \"{panel['title']}\" has no description"
        if "unit" not in panel["fieldConfig"]["defaults"]:
            yield f"panel \"{panel['title']}\" has no unit"
        if panel["datasource"]["uid"] != "${datasource}":
            yield f"panel \"{panel['title']}\" has a data source of its own"
    if len(set(ids)) != len(ids) or len(set(titles)) != len(titles):
        yield "two panels have one id or title"
    yield from overlapping()


def overlapping():
    taken = {}
    for panel in expressions.dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if x >= 24 or taken.setdefault((x, y), panel["id"]) != panel["id"]:
                    yield f"panel \"{panel['title']}\" lies upon another, or beside the page"
                    return


if __name__ == "__main__":
    found = list(faults())
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        sys.exit(1)
    alerts = {rule["alert"] for rule in expressions.alerts()}
    print(f"{len(alerts)} alerts each have a runbook, a test that they fire and one that they do not")
    print(f"{len(list(expressions.panels()))} panels each have a unit, a description and a place")
