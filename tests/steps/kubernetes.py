"""What the manifests say, beside what they must: kubernetes.py STOP_SECONDS MANIFESTS...

Schemas say what may stand in a manifest; this says what has to, and what has to agree with what.
"""

import sys
import tomllib
from urllib.parse import parse_qs, urlsplit

import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator


def main():
    stop_seconds = int(sys.argv[1])
    faults = []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            resources = [resource for resource in yaml.safe_load_all(file) if resource]
        faults += [f"{path}: {fault}" for fault in look_at(resources, stop_seconds)]
    sys.exit("\n".join(faults) or 0)


def look_at(resources, stop_seconds):
    by_kind = {}
    for resource in resources:
        by_kind.setdefault(resource["kind"], []).append(resource)
    for kind in ("ServiceMonitor", "PrometheusRule"):
        for resource in by_kind.get(kind, []):
            yield from is_taken_by_the_operator(kind, resource)
    for deployment in by_kind.get("Deployment", []):
        pod = deployment["spec"]["template"]["spec"]
        yield from is_confined(pod)
        yield from ends_in_time(pod, stop_seconds)
        yield from listens_where_it_says(pod, by_kind)
        yield from is_found(deployment, by_kind)
        yield from has_its_files(pod, configuration(pod, by_kind))
        yield from keeps_running(deployment, by_kind)


def is_taken_by_the_operator(kind, resource):
    """The operator's own types drop what they do not know: nothing may be dropped."""
    model = getattr(prometheus_operator, kind).model_validate(resource)
    kept = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    for key in lost(resource["spec"], kept["spec"]):
        yield f"{kind}: spec{key} is nothing that the operator knows"


def lost(stated, kept, path=""):
    if isinstance(stated, dict):
        for key, value in stated.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{path}.{key}"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(stated, list):
        for index, value in enumerate(stated):
            yield from lost(value, kept[index], f"{path}[{index}]")


def is_confined(pod):
    """What the restricted Pod Security Standard asks for, and a root file system that stays."""
    wanted = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    for key, value in wanted.items():
        if pod["securityContext"].get(key) != value:
            yield f"pod: {key} is not {value}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "pod: has the token of its service account"
    wanted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for container in pod["containers"] + pod.get("initContainers", []):
        if container.get("securityContext") != wanted:
            yield f"{container['name']}: its security context is not {wanted}"
        if "memory" not in container["resources"]["limits"]:
            yield f"{container['name']}: may take all memory"


def ends_in_time(pod, stop_seconds):
    (container,) = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    if pod["terminationGracePeriodSeconds"] <= before + stop_seconds:
        yield f"pod: is killed while it may stop for {before} + {stop_seconds} s"


def configuration(pod, by_kind):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    maps = {config["metadata"]["name"]: config["data"] for config in by_kind["ConfigMap"]}
    return tomllib.loads(maps[volumes["config"]["configMap"]["name"]]["usage-proxy.toml"])


def listens_where_it_says(pod, by_kind):
    """The configuration's addresses, the container's ports, the services' and the policy's."""
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = configuration(pod, by_kind)
    for listener, table in (("api", "server"), ("admin", "admin")):
        if config[table]["listen"] != f"0.0.0.0:{ports[listener]}":
            yield f"{table}.listen is not the port {listener}"
    named = [port["targetPort"] for service in by_kind["Service"] for port in service["spec"]["ports"]]
    for policy in by_kind["NetworkPolicy"]:
        named += [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    probes = [container[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    for probe in probes:
        named.append(probe["httpGet"]["port"])
        if probe["httpGet"]["port"] != "admin":
            yield "a probe does not ask the admin listener"
    for monitor in by_kind.get("ServiceMonitor", []):
        (admin,) = (s for s in by_kind["Service"] if s["metadata"]["name"] == "usage-proxy-admin")
        if not monitor["spec"]["selector"]["matchLabels"].items() <= admin["metadata"]["labels"].items():
            yield "the ServiceMonitor does not select the service of the admin listener"
        exported = [port["name"] for port in admin["spec"]["ports"]]
        if any(endpoint["port"] not in exported for endpoint in monitor["spec"]["endpoints"]):
            yield "the ServiceMonitor names a port that the service does not have"
    yield from (f"no port is named {name}" for name in named if name not in ports)


def is_found(deployment, by_kind):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in by_kind["Service"]]
    selectors += [policy["spec"]["podSelector"].get("matchLabels") for policy in by_kind["NetworkPolicy"]]
    budgets = by_kind["PodDisruptionBudget"]
    selectors += [budget["spec"].get("selector", {}).get("matchLabels") for budget in budgets]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    for selector in selectors:
        if not selector or not selector.items() <= labels.items():
            yield f"{selector} does not select the pods"


def has_its_files(pod, config):
    """Each file of the configuration is in a mounted folder. Secrets are read only by the service's group."""
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for file in files(config):
        mount = mounts.get(file.rpartition("/")[0])
        if not mount:
            yield f"{file} is in no folder that is mounted"
        elif "persistentVolumeClaim" in volumes[mount["name"]]:
            continue
        elif not mount.get("readOnly") or "subPath" in mount:
            yield f"{mount['mountPath']} is not a read-only folder"
        elif "secret" not in volumes[mount["name"]]:
            yield f"{file} is in no secret"
    for volume in volumes.values():
        if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
            yield f"{volume['name']}: its files do not have the mode 0440"


def files(table):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from files(value)
        elif key == "file" or key.endswith("_file"):
            yield value


def keeps_running(deployment, by_kind):
    """An update and the drain of a node leave a pod that serves, except where a token is on a volume."""
    config = configuration(deployment["spec"]["template"]["spec"], by_kind)
    url = urlsplit(config.get("store", {}).get("url", ""))
    replicas, strategy = deployment["spec"]["replicas"], deployment["spec"]["strategy"]
    if url.scheme == "postgres":
        yield from reaches_the_database(url, by_kind)
    elif config["upstream"]["auth"]["kind"] == "refresh_token" or url.scheme == "sqlite":
        if replicas != 1 or strategy != {"type": "Recreate"}:
            yield "two pods may have the refresh token at once"
        claims = by_kind.get("PersistentVolumeClaim", [])
        if [claim["spec"]["accessModes"] for claim in claims] != [["ReadWriteOncePod"]]:
            yield "two pods may mount the refresh token"
        return
    if by_kind.get("PersistentVolumeClaim"):
        yield "replicas share a volume"
    if replicas < 2:
        yield "one replica, where nothing forbids two"
    if strategy != {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}:
        yield "an update ends a pod before a new one is ready"
    (budget,) = by_kind["PodDisruptionBudget"]
    if budget["spec"].get("maxUnavailable") != 1:
        yield "the drain of a node may end all pods"
    if not deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        yield "all pods may be on one node"


def reaches_the_database(url, by_kind):
    if parse_qs(url.query).get("sslmode") != ["verify-full"] or url.password:
        yield "store.url does not verify the server, or has a password"
    allowed = [
        port["port"]
        for policy in by_kind["NetworkPolicy"]
        for rule in policy["spec"]["egress"]
        for port in rule["ports"]
    ]
    if (url.port or 5432) not in allowed:
        yield "no egress to the port of the database"


main()
