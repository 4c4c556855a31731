"""Rules for rendered manifests that only Match has; each returns one line per fault.

What is right for any service is checked by kube-score, by the library of Pod Security and by the schemas.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from checks.objects import ECK, ECK_SECRETS, Object, Pod, named, of_kind, pods, selected, selects
from common.config import Settings
from common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
OURS = ("match-api", "match-worker")
SETTINGS = frozenset(spec.metadata["name"] for spec in fields(Settings))
# What the SDK that sends traces and OpenSSL read by themselves, and what flower reads.
STANDARD = re.compile(r"OTEL_[A-Z_]+|SSL_CERT_FILE")
FLOWER = frozenset({"CELERY_BROKER_URL", "FLOWER_BASIC_AUTH"})
REFERENCE = re.compile(r"\$\(([A-Z_][A-Z0-9_]*)\)")
# Beyond what the program says it takes.
GRACE_S = 5.0
# gunicorn's own margin above `wait` (api/__main__.py).
AFTER_WAIT_S = 5.0
NGINX_STOPS = re.compile(r"^worker_shutdown_timeout (\d+)s;$", re.MULTILINE)
UPSTREAM = re.compile(r"^server ([\w.]+):(\d+)", re.MULTILINE)

# Who reads, of which kind and name, which key (None: all), and whether it may be missing.
Reference = tuple[str, str, str, str | None, bool]
Rule = Callable[[Sequence[Object]], list[str]]


def ports_that_nobody_has(objects: Sequence[Object]) -> list[str]:
    """Whoever names a port names one that the containers behind it have."""
    there = pods(objects)
    faults = []
    for who, selector, ports in _named_ports(objects):
        for pod in selected(selector, there):
            faults += [f"{who}: {pod.owner} has no port {port}" for port in ports if not pod.has_port(port)]
    for who, service, port in _service_ports(objects):
        if not any(port in {entry["name"], entry["port"]} for entry in service["spec"]["ports"]):
            faults.append(f"{who}: {named(service)} has no port {port}")
    return faults + [f"{who}: there is no such service" for who in _lost_backends(objects)]


def unscraped_monitors(objects: Sequence[Object]) -> list[str]:
    """Each monitor of the Prometheus operator selects something."""
    there = pods(objects)
    found = [(thing, selected(thing["spec"]["selector"], there)) for thing in of_kind(objects, "PodMonitor")]
    found += [(thing, _services(objects, thing["spec"]["selector"])) for thing in of_kind(objects, "ServiceMonitor")]
    return [f"{named(thing)} selects nothing" for thing, targets in found if not targets]


def competing_autoscalers(objects: Sequence[Object]) -> list[str]:
    """At most one autoscaler, of Kubernetes or of KEDA, decides the replicas of a workload."""
    targets = Counter(
        scaler["spec"]["scaleTargetRef"]["name"]
        for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    )
    return [f"{name} has {number} autoscalers" for name, number in targets.items() if number > 1]


def keys_that_are_missing(objects: Sequence[Object]) -> list[str]:
    """Every ConfigMap that is read is there; a Secret that is there has the keys that must be."""
    kept = _kept_keys(objects)
    faults = []
    for who, kind, name, key, optional in _references(objects):
        if (kind, name) not in kept:
            faults += [f"{who}: there is no {kind} {name}"] if kind == "ConfigMap" and not optional else []
        elif key is not None and not optional and key not in kept[kind, name]:
            faults.append(f"{who}: {kind} {name} has no {key}")
    return faults


def keys_that_nobody_reads(objects: Sequence[Object]) -> list[str]:
    """Each key of a ConfigMap or Secret that is there is read by somebody."""
    read = {(kind, name, key) for _, kind, name, key, _ in _references(objects)}
    return [
        f"{kind} {name}: nobody reads {key}"
        for (kind, name), keys in _kept_keys(objects).items()
        for key in sorted(keys)
        if (kind, name, key) not in read
        and (kind, name, None) not in read
        and not name.startswith(tuple(_eck(objects)))
    ]


def settings_that_are_unknown(objects: Sequence[Object]) -> list[str]:
    """What our containers are given in their environment are settings, with values that they take."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            image = container["image"].rpartition("/")[2]
            known = SETTINGS if image.startswith(OURS) else FLOWER
            if not image.startswith((*OURS, "match-flower")):
                continue
            given = _environment(objects, container)
            used = {name for value in given.values() for name in REFERENCE.findall(value or "")}
            unknown = [name for name in given if name not in known | used and not STANDARD.fullmatch(name)]
            faults += [f"{pod.owner}: no setting is called {name}" for name in unknown]
            faults += [f"{pod.owner}: ${{{name}}} stands before {name}" for name in _used_too_soon(container)]
            faults += [f"{pod.owner}: {said}" for said in _refused(given)]
    return faults


def files_that_are_not_mounted(objects: Sequence[Object]) -> list[str]:
    """A file that a setting names is in a volume."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            mounted = set(_mounted_files(pod.spec, container))
            files = {name: value for name, value in _environment(objects, container).items() if name.endswith("_FILE")}
            faults += [f"{pod.owner}: {name} is not mounted" for name, value in files.items() if value not in mounted]
    return faults


def unreached_ports(objects: Sequence[Object]) -> list[str]:
    """The address of gunicorn is nginx's upstream, on loopback; a worker's metrics are at its container's port."""
    faults = []
    for pod in pods(objects):
        if pod.component == "api":
            settings = _settings(objects, _container(pod, "api"))
            upstreams = UPSTREAM.findall(_proxy_files(objects)["upstream.conf"])
            if upstreams != [("127.0.0.1", f"{settings.port}")] or settings.listens_on != "127.0.0.1":
                faults.append(f"{pod.owner}: nginx looks for gunicorn at {upstreams}")
        if pod.component == "worker":
            settings = _settings(objects, _container(pod, "worker"))
            if not pod.has_port(settings.worker_metrics_port):
                faults.append(f"{pod.owner}: metrics are at port {settings.worker_metrics_port}")
    return faults


def short_grace_periods(objects: Sequence[Object]) -> list[str]:
    """A pod that is to end has the time that its programs may take."""
    faults = []
    for pod in pods(objects):
        needed = GRACE_S
        if pod.component == "worker":
            needed += _settings(objects, _container(pod, "worker")).stop_within_s
        elif pod.component == "api":
            nginx_s = float(NGINX_STOPS.findall(_proxy_files(objects)["nginx.conf"])[0])
            wait_s = _settings(objects, _container(pod, "api")).max_wait_s + AFTER_WAIT_S
            if nginx_s < wait_s:
                faults.append(f"{pod.owner}: nginx ends {wait_s - nginx_s:g} s before the longest wait")
            needed += nginx_s + _pause_before_end_s(_container(pod, "proxy"))
        if pod.spec.get("terminationGracePeriodSeconds", 30) < needed:
            faults.append(f"{pod.owner}: terminationGracePeriodSeconds is less than the {needed:g} that it may take")
    return faults


def early_ends(objects: Sequence[Object]) -> list[str]:
    """The end of nginx waits until its endpoint is removed, that of gunicorn until nginx has ended."""
    faults = []
    for pod in pods(objects):
        if pod.component == "api":
            if not _pause_before_end_s(_container(pod, "proxy")):
                faults.append(f"{pod.owner}: nginx ends before its endpoint is removed")
            if "nginx.pid" not in str(_container(pod, "api").get("lifecycle")):
                faults.append(f"{pod.owner}: gunicorn ends before nginx")
    return faults


def expensive_probes(objects: Sequence[Object]) -> list[str]:
    """No probe asks over the queue, and liveness asks nobody else."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            if "celery" in str([container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")]):
                faults.append(f"{pod.owner}: a probe that asks over the queue")
            if "/readyz" in str([container.get("startupProbe"), container.get("livenessProbe")]):
                faults.append(f"{pod.owner}: is restarted when its store is away")
    return faults


def variables_of_the_cluster(objects: Sequence[Object]) -> list[str]:
    """No pod has a token for the cluster's API, or variables of services, which look like settings."""
    return [
        f"{pod.owner}: {name} is not false"
        for pod in pods(objects)
        for name in ("automountServiceAccountToken", "enableServiceLinks")
        if pod.spec and pod.spec.get(name) is not False
    ]


def objects_without_our_labels(objects: Sequence[Object]) -> list[str]:
    """Everything can be found by the labels of the service."""
    ours = ("app.kubernetes.io/name", "app.kubernetes.io/component")
    return [
        f"{named(thing)} has no label {label}"
        for thing in objects
        for label in ours
        if label not in thing["metadata"].get("labels", {})
    ]


def keys_of_secrets(objects: Sequence[Object]) -> set[tuple[str, str]]:
    """Return the Secrets that are read and no operator makes, with each key."""
    made = tuple(_eck(objects))
    references = _references(objects)
    return {
        (name, key or "")
        for _, kind, name, key, _ in references
        if kind == "Secret" and not (made and name.startswith(made))
    }


RULES: tuple[Rule, ...] = (
    ports_that_nobody_has,
    unscraped_monitors,
    competing_autoscalers,
    keys_that_are_missing,
    settings_that_are_unknown,
    files_that_are_not_mounted,
    unreached_ports,
    short_grace_periods,
    early_ends,
    expensive_probes,
    variables_of_the_cluster,
    objects_without_our_labels,
)


def _container(pod: Pod, name: str) -> Object:
    (found,) = (one for one in pod.containers if one["name"] == name)
    return found


def _proxy_files(objects: Sequence[Object]) -> Mapping[str, str]:
    (found,) = (one for one in of_kind(objects, "ConfigMap") if "nginx.conf" in one["data"])
    return found["data"]


def _named_ports(objects: Sequence[Object]) -> Iterator[tuple[str, Mapping[str, Any], list[str | int]]]:
    """Return whoever names ports of pods: who, which pods, which ports."""
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "Service":
            ports = [port.get("targetPort", port["port"]) for port in spec["ports"]]
            yield named(thing), {"matchLabels": spec["selector"]}, ports
        if thing["kind"] == "PodMonitor":
            yield named(thing), spec["selector"], [end["port"] for end in spec["podMetricsEndpoints"]]
        if thing["kind"] == "NetworkPolicy":
            for rule in spec.get("ingress", []):
                yield named(thing), spec["podSelector"], [port["port"] for port in rule.get("ports", [])]
            for rule in spec.get("egress", []):
                for peer in rule.get("to", []):
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        yield named(thing), peer["podSelector"], [port["port"] for port in rule.get("ports", [])]
    for pod in pods(objects):
        probes = [probe for container in pod.containers for name, probe in container.items() if name.endswith("Probe")]
        asked = [(probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port") for probe in probes]
        yield f"{pod.owner}, a probe", {"matchLabels": pod.labels}, [port for port in asked if port is not None]


def _service_ports(objects: Sequence[Object]) -> Iterator[tuple[str, Object, str | int]]:
    """Return whoever names a port of a service that is there."""
    services = {service["metadata"]["name"]: service for service in of_kind(objects, "Service")}
    for who, name, port in _backends(objects):
        if service := services.get(name):
            yield who, service, port
    for monitor in of_kind(objects, "ServiceMonitor"):
        for service in _services(objects, monitor["spec"]["selector"]):
            for end in monitor["spec"]["endpoints"]:
                yield named(monitor), service, end["port"]


def _lost_backends(objects: Sequence[Object]) -> list[str]:
    services = {service["metadata"]["name"] for service in of_kind(objects, "Service")}
    return [f"{who}, {name}" for who, name, _ in _backends(objects) if name not in services]


def _backends(objects: Sequence[Object]) -> Iterator[tuple[str, str, str | int]]:
    """Return each path of an Ingress or HTTPRoute, with its service and the service's port."""
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield f"{named(ingress)} {path['path']}", service["name"], service["port"]["name"]
    for route in of_kind(objects, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield f"{named(route)} {rule['matches'][0]['path']['value']}", backend["name"], backend["port"]


def _services(objects: Sequence[Object], selector: Mapping[str, Any]) -> list[Object]:
    return [one for one in of_kind(objects, "Service") if selects(selector, one["metadata"].get("labels", {}))]


def _eck(objects: Sequence[Object]) -> list[str]:
    return [f"{thing['metadata']['name']}-es-" for thing in objects if thing["apiVersion"].startswith(f"{ECK}/")]


def _kept_keys(objects: Sequence[Object]) -> dict[tuple[str, str], set[str]]:
    """Return the keys of each ConfigMap and Secret that is there, those included that an operator makes."""
    kept = {
        (thing["kind"], thing["metadata"]["name"]): {*thing.get("data", {}), *thing.get("stringData", {})}
        for thing in of_kind(objects, "ConfigMap", "Secret")
    }
    for thing in objects:
        if thing["apiVersion"].startswith(f"{ECK}/"):
            kept |= {("Secret", f"{thing['metadata']['name']}-{name}"): keys for name, keys in ECK_SECRETS.items()}
    return kept


def _references(objects: Sequence[Object]) -> Iterator[Reference]:
    """Return whoever reads ConfigMaps and Secrets, and what."""
    for pod in pods(objects):
        for container in pod.containers:
            yield from _references_of_container(pod.owner, container)
        for volume in pod.spec.get("volumes", []):
            yield from _references_of_volume(pod.owner, volume)
    for thing in of_kind(objects, "TriggerAuthentication"):
        for ref in thing["spec"]["secretTargetRef"]:
            # KEDA takes a key that is missing for an empty one; the address alone it cannot do without.
            yield named(thing), "Secret", ref["name"], ref["key"], ref["parameter"] != "address"
    for thing in of_kind(objects, "ServiceMonitor"):
        for end in thing["spec"]["endpoints"]:
            if ref := end.get("authorization", {}).get("credentials"):
                yield named(thing), "Secret", ref["name"], ref["key"], False


def _references_of_container(who: str, container: Object) -> Iterator[Reference]:
    for variable in container.get("env", []):
        for way, ref in variable.get("valueFrom", {}).items():
            if kind := {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}.get(way):
                yield who, kind, ref["name"], ref["key"], ref.get("optional", False)
    for source in container.get("envFrom", []):
        for way, ref in source.items():
            if kind := {"configMapRef": "ConfigMap", "secretRef": "Secret"}.get(way):
                yield who, kind, ref["name"], None, ref.get("optional", False)


def _references_of_volume(who: str, volume: Object) -> Iterator[Reference]:
    for way, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
        if source := volume.get(way):
            for key in [item["key"] for item in source.get("items", [])] or [None]:
                yield who, kind, source[name], key, source.get("optional", False)


def _mounted_files(spec: Mapping[str, Any], container: Object) -> Iterator[str]:
    """Return where a container finds the files of Secrets and ConfigMaps that its volumes name one by one."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        volume = volumes.get(mount["name"], {})
        for item in (volume.get("secret") or volume.get("configMap") or {}).get("items", []):
            yield f"{mount['mountPath']}/{item['path']}"


def _environment(objects: Sequence[Object], container: Object) -> dict[str, str | None]:
    """Return the environment of a container; None for what a Secret says."""
    maps = {thing["metadata"]["name"]: thing.get("data", {}) for thing in of_kind(objects, "ConfigMap")}
    given: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        given |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return given | {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def _used_too_soon(container: Object) -> list[str]:
    """Return the variables that an earlier one refers to: it would hold the reference as it stands."""
    before: set[str] = set()
    found = []
    for variable in container.get("env", []):
        found += [name for name in REFERENCE.findall(variable.get("value", "")) if name not in before]
        before.add(variable["name"])
    return found


def _literal(given: Mapping[str, str | None]) -> dict[str, str]:
    # A file named here is in the container, not on this machine; what a Secret says is not known here either.
    return {
        name: value
        for name, value in given.items()
        if value is not None and not REFERENCE.search(value) and not name.endswith("_FILE")
    }


def _refused(given: Mapping[str, str | None]) -> list[str]:
    try:
        Settings.from_env(_literal(given))
    except ConfigError as error:
        return [str(error)]
    return []


def _settings(objects: Sequence[Object], container: Object) -> Settings:
    return Settings.from_env(_literal(_environment(objects, container)))


def _pause_before_end_s(container: Object) -> float:
    before = container.get("lifecycle", {}).get("preStop", {})
    command = before.get("exec", {}).get("command", [])
    return float(command[1]) if command[:1] == ["sleep"] else float(before.get("sleep", {}).get("seconds", 0))
