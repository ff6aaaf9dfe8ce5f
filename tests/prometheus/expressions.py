"""The PromQL that deploy/ ships: in rules, in panels, in runbooks."""

import json
import re
from pathlib import Path

import yaml

DEPLOY = Path("deploy")
RULES = DEPLOY / "prometheus/usage-proxy.rules.yml"
RULE_TESTS = sorted(DEPLOY.glob("prometheus/*.test.yml"))
RUNBOOKS = DEPLOY / "prometheus/RUNBOOKS.md"
DASHBOARD = DEPLOY / "grafana/dashboards/usage-proxy.json"

# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "5m", "$job": "usage-proxy", "$instance": ".*"}

WORDS = {"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "group_left", "group_right", "offset"}


def rules():
    """Every rule, as the file has it."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    """Every panel that is no row, those of collapsed rows too."""
    for panel in dashboard()["panels"]:
        yield from (inner for inner in [panel, *panel.get("panels", [])] if inner["type"] != "row")


def of_panels():
    """Of each panel and each of its targets: where it stands, and the expression with values for variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield f'panel "{panel["title"]}" {target["refId"]}', with_values(target["expr"])


def of_annotations():
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield f'annotation "{annotation["name"]}"', with_values(annotation["expr"])


def of_recordings():
    for rule in rules():
        if "record" in rule:
            yield f'recording {rule["record"]}', rule["expr"]


def of_alerts():
    for rule in alerts():
        yield f'alert {rule["alert"]} ({rule["labels"]["severity"]})', rule["expr"]


def of_runbooks():
    section = ""
    for heading, expression in re.findall(r"^## (\w+)$|^```promql\n(.*?)```", RUNBOOKS.read_text(), re.M | re.S):
        section = heading or section
        if expression:
            yield f"runbook {section}", expression.strip()


def with_values(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        raise ValueError(f"a variable that has no value here: {expression}")
    return expression


def selectors(expression):
    """The vector selectors of an expression, label matchers and all, without ranges."""
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expression)
    found = re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(\s*\()?|\[[^\]]*\]|\"[^\"]*\"|[0-9.][\w.]*", bare)
    for match in found:
        name, matchers, is_function = match.groups()
        if name and not is_function and name not in WORDS:
            yield name + (matchers or "")


def metric(selector):
    return selector.split("{")[0]
