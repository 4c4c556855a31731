"""Rules for rendered manifests that are specific to Match; each returns one line for each fault.

kube-score, the library of Pod Security and the schemas check the rules for all services.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from checks.memory import NEEDED_MIB, mib
from checks.objects import ECK, ECK_SECRETS, Object, Pod, named, of_kind, pods, selected, selects
from common.config import Settings
from common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SERVICE_IMAGES = ("match-api", "match-worker")
SETTINGS = frozenset(spec.metadata["name"] for spec in fields(Settings))
# Variables of the OpenTelemetry SDK and OpenSSL, and those of flower.
STANDARD = re.compile(r"OTEL_[A-Z_]+|SSL_CERT_FILE")
FLOWER = frozenset({"CELERY_BROKER_URL", "FLOWER_BASIC_AUTH"})
REFERENCE = re.compile(r"\$\(([A-Z_][A-Z0-9_]*)\)")
# Margin above the longest shutdown of the program.
GRACE_S = 5.0
# gunicorn's own margin above `wait` (api/__main__.py).
AFTER_WAIT_S = 5.0
NGINX_STOPS = re.compile(r"^worker_shutdown_timeout (\d+)s;$", re.MULTILINE)
UPSTREAM = re.compile(r"^server ([\w.]+):(\d+)", re.MULTILINE)

# The reader; kind, name and key (None: all keys) of the ConfigMap or Secret; whether it is optional.
Reference = tuple[str, str, str, str | None, bool]
Rule = Callable[[Sequence[Object]], list[str]]


def missing_ports(objects: Sequence[Object]) -> list[str]:
    """Each port of a service, monitor, policy, probe or route exists in its containers."""
    workloads = pods(objects)
    faults = []
    for user, selector, ports in _named_ports(objects):
        for pod in selected(selector, workloads):
            faults += [f"{user}: {pod.owner} has no port {port}" for port in ports if not pod.has_port(port)]
    for user, service, port in _service_ports(objects):
        if not any(port in {entry["name"], entry["port"]} for entry in service["spec"]["ports"]):
            faults.append(f"{user}: {named(service)} has no port {port}")
    return faults + [f"{backend}: unknown service" for backend in _lost_backends(objects)]


def unscraped_monitors(objects: Sequence[Object]) -> list[str]:
    """Each monitor of the Prometheus operator selects pods or services."""
    workloads = pods(objects)
    targets_of = [(thing, selected(thing["spec"]["selector"], workloads)) for thing in of_kind(objects, "PodMonitor")]
    targets_of += [
        (thing, _services(objects, thing["spec"]["selector"])) for thing in of_kind(objects, "ServiceMonitor")
    ]
    return [f"{named(thing)} selects nothing" for thing, targets in targets_of if not targets]


def competing_autoscalers(objects: Sequence[Object]) -> list[str]:
    """A workload has at most one autoscaler of Kubernetes or KEDA."""
    targets = Counter(
        scaler["spec"]["scaleTargetRef"]["name"]
        for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    )
    return [f"{name} has {number} autoscalers" for name, number in targets.items() if number > 1]


def missing_keys(objects: Sequence[Object]) -> list[str]:
    """Each ConfigMap that a pod reads exists; each Secret that exists has the required keys."""
    existing = _existing_keys(objects)
    faults = []
    for reader, kind, name, key, optional in _references(objects):
        if (kind, name) not in existing:
            faults += [f"{reader}: {kind} {name} does not exist"] if kind == "ConfigMap" and not optional else []
        elif key is not None and not optional and key not in existing[kind, name]:
            faults.append(f"{reader}: {kind} {name} has no {key}")
    return faults


def unread_keys(objects: Sequence[Object]) -> list[str]:
    """Each key of a ConfigMap or Secret has a reader."""
    read = {(kind, name, key) for _, kind, name, key, _ in _references(objects)}
    return [
        f"{kind} {name}: no reader of {key}"
        for (kind, name), keys in _existing_keys(objects).items()
        for key in sorted(keys)
        if (kind, name, key) not in read
        and (kind, name, None) not in read
        and not name.startswith(tuple(_eck(objects)))
    ]


def invalid_settings(objects: Sequence[Object]) -> list[str]:
    """The environment of each container of Match consists of settings with valid values."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            image = container["image"].rpartition("/")[2]
            known = SETTINGS if image.startswith(SERVICE_IMAGES) else FLOWER
            if not image.startswith((*SERVICE_IMAGES, "match-flower")):
                continue
            variables = _environment(objects, container)
            used = {name for value in variables.values() for name in REFERENCE.findall(value or "")}
            unknown = [name for name in variables if name not in known | used and not STANDARD.fullmatch(name)]
            faults += [f"{pod.owner}: unknown setting {name}" for name in unknown]
            faults += [f"{pod.owner}: ${{{name}}} is used before {name} is set" for name in _used_too_early(container)]
            faults += [f"{pod.owner}: {error}" for error in _invalid_values(variables)]
    return faults


def unmounted_files(objects: Sequence[Object]) -> list[str]:
    """Each file in a setting is in a volume."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            mounted = set(_mounted_files(pod.spec, container))
            files = {name: value for name, value in _environment(objects, container).items() if name.endswith("_FILE")}
            faults += [f"{pod.owner}: {name} is not mounted" for name, value in files.items() if value not in mounted]
    return faults


def unreached_ports(objects: Sequence[Object]) -> list[str]:
    """Gunicorn listens on loopback at nginx's upstream; a worker's container has the port of its metrics."""
    faults = []
    for pod in pods(objects):
        if pod.component == "api":
            settings = _settings(objects, _container(pod, "api"))
            upstreams = UPSTREAM.findall(_proxy_files(objects)["upstream.conf"])
            if upstreams != [("127.0.0.1", f"{settings.port}")] or settings.listens_on != "127.0.0.1":
                faults.append(f"{pod.owner}: gunicorn does not listen at {upstreams}")
        if pod.component == "worker":
            settings = _settings(objects, _container(pod, "worker"))
            if not pod.has_port(settings.worker_metrics_port):
                faults.append(f"{pod.owner}: no container port for the metrics at {settings.worker_metrics_port}")
    return faults


def short_grace_periods(objects: Sequence[Object]) -> list[str]:
    """The grace period of a pod covers the longest shutdown of its programs."""
    faults = []
    for pod in pods(objects):
        shutdown_s = GRACE_S
        if pod.component == "worker":
            shutdown_s += _settings(objects, _container(pod, "worker")).stop_within_s
        elif pod.component == "api":
            nginx_s = float(NGINX_STOPS.findall(_proxy_files(objects)["nginx.conf"])[0])
            wait_s = _settings(objects, _container(pod, "api")).max_wait_s + AFTER_WAIT_S
            if nginx_s < wait_s:
                faults.append(f"{pod.owner}: nginx exits {wait_s - nginx_s:g} s before the longest wait")
            shutdown_s += nginx_s + _pre_stop_s(_container(pod, "proxy"))
        if pod.spec.get("terminationGracePeriodSeconds", 30) < shutdown_s:
            faults.append(f"{pod.owner}: terminationGracePeriodSeconds is below {shutdown_s:g}")
    return faults


def small_memory_limits(objects: Sequence[Object]) -> list[str]:
    """A container's memory limit covers its processes and their decoders."""
    faults = []
    for pod in pods(objects):
        if pod.component not in NEEDED_MIB:
            continue
        container = _container(pod, pod.component)
        needed = NEEDED_MIB[pod.component](_settings(objects, container))
        if mib(container["resources"]["limits"]["memory"]) < needed:
            faults.append(f"{pod.owner}: the memory limit of {pod.component} is below {needed:g} MiB")
    return faults


def early_shutdowns(objects: Sequence[Object]) -> list[str]:
    """The API's nginx exits after its endpoint is removed, and gunicorn after nginx, except where a probe failed."""
    faults = []
    for pod in pods(objects):
        if pod.component == "api":
            if not _pre_stop_s(_container(pod, "proxy")):
                faults.append(f"{pod.owner}: nginx exits before its endpoint is removed")
            if "nginx.pid" not in str(_container(pod, "api").get("lifecycle")):
                faults.append(f"{pod.owner}: gunicorn exits before nginx")
            probes = (_container(pod, "api")[f"{kind}Probe"] for kind in ("startup", "liveness"))
            if not all("terminationGracePeriodSeconds" in probe for probe in probes):
                faults.append(f"{pod.owner}: a restart of gunicorn waits for nginx")
    return faults


def expensive_probes(objects: Sequence[Object]) -> list[str]:
    """No probe sends messages through the queue, and liveness checks only the process."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            if "celery" in str([container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")]):
                faults.append(f"{pod.owner}: a probe sends messages through the queue")
            if "/readyz" in str([container.get("startupProbe"), container.get("livenessProbe")]):
                faults.append(f"{pod.owner}: an outage of the store restarts it")
    return faults


def cluster_variables(objects: Sequence[Object]) -> list[str]:
    """No pod has a token for the cluster's API, or variables of services, which resemble settings."""
    return [
        f"{pod.owner}: {name} is not false"
        for pod in pods(objects)
        for name in ("automountServiceAccountToken", "enableServiceLinks")
        if pod.spec and pod.spec.get(name) is not False
    ]


def missing_labels(objects: Sequence[Object]) -> list[str]:
    """Each object has the labels of Match."""
    labels = ("app.kubernetes.io/name", "app.kubernetes.io/component")
    return [
        f"{named(thing)} has no label {label}"
        for thing in objects
        for label in labels
        if label not in thing["metadata"].get("labels", {})
    ]


def keys_of_secrets(objects: Sequence[Object]) -> set[tuple[str, str]]:
    """Return each key of the Secrets that pods read, except Secrets that an operator creates."""
    operators = tuple(_eck(objects))
    references = _references(objects)
    return {
        (name, key or "")
        for _, kind, name, key, _ in references
        if kind == "Secret" and not (operators and name.startswith(operators))
    }


RULES: tuple[Rule, ...] = (
    missing_ports,
    unscraped_monitors,
    competing_autoscalers,
    missing_keys,
    invalid_settings,
    unmounted_files,
    unreached_ports,
    short_grace_periods,
    small_memory_limits,
    early_shutdowns,
    expensive_probes,
    cluster_variables,
    missing_labels,
)


def _container(pod: Pod, name: str) -> Object:
    (container,) = (container for container in pod.containers if container["name"] == name)
    return container


def _proxy_files(objects: Sequence[Object]) -> Mapping[str, str]:
    (files,) = (thing["data"] for thing in of_kind(objects, "ConfigMap") if "nginx.conf" in thing["data"])
    return files


def _named_ports(objects: Sequence[Object]) -> Iterator[tuple[str, Mapping[str, Any], list[str | int]]]:
    """Yield each object that refers to ports of pods, with the pods' selector and the ports."""
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
        probed = [(probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port") for probe in probes]
        yield f"{pod.owner}, a probe", {"matchLabels": pod.labels}, [port for port in probed if port is not None]


def _service_ports(objects: Sequence[Object]) -> Iterator[tuple[str, Object, str | int]]:
    """Yield each object that refers to a port of an existing service."""
    services = {service["metadata"]["name"]: service for service in of_kind(objects, "Service")}
    for user, name, port in _backends(objects):
        if service := services.get(name):
            yield user, service, port
    for monitor in of_kind(objects, "ServiceMonitor"):
        for service in _services(objects, monitor["spec"]["selector"]):
            for end in monitor["spec"]["endpoints"]:
                yield named(monitor), service, end["port"]


def _lost_backends(objects: Sequence[Object]) -> list[str]:
    services = {service["metadata"]["name"] for service in of_kind(objects, "Service")}
    return [f"{user}, {name}" for user, name, _ in _backends(objects) if name not in services]


def _backends(objects: Sequence[Object]) -> Iterator[tuple[str, str, str | int]]:
    """Yield each path of an Ingress or HTTPRoute, with its service and the service's port."""
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
    services = of_kind(objects, "Service")
    return [service for service in services if selects(selector, service["metadata"].get("labels", {}))]


def _eck(objects: Sequence[Object]) -> list[str]:
    return [f"{thing['metadata']['name']}-es-" for thing in objects if thing["apiVersion"].startswith(f"{ECK}/")]


def _existing_keys(objects: Sequence[Object]) -> dict[tuple[str, str], set[str]]:
    """Return the keys of each ConfigMap and Secret, including those that an operator creates."""
    existing = {
        (thing["kind"], thing["metadata"]["name"]): {*thing.get("data", {}), *thing.get("stringData", {})}
        for thing in of_kind(objects, "ConfigMap", "Secret")
    }
    for thing in objects:
        if thing["apiVersion"].startswith(f"{ECK}/"):
            existing |= {("Secret", f"{thing['metadata']['name']}-{name}"): keys for name, keys in ECK_SECRETS.items()}
    return existing


def _references(objects: Sequence[Object]) -> Iterator[Reference]:
    """Yield each reference to a ConfigMap or Secret."""
    for pod in pods(objects):
        for container in pod.containers:
            yield from _references_of_container(pod.owner, container)
        for volume in pod.spec.get("volumes", []):
            yield from _references_of_volume(pod.owner, volume)
    for thing in of_kind(objects, "TriggerAuthentication"):
        for ref in thing["spec"]["secretTargetRef"]:
            # For KEDA a missing key is an empty one. Only the address is required.
            yield named(thing), "Secret", ref["name"], ref["key"], ref["parameter"] != "address"
    for thing in of_kind(objects, "ServiceMonitor"):
        for end in thing["spec"]["endpoints"]:
            if ref := end.get("authorization", {}).get("credentials"):
                yield named(thing), "Secret", ref["name"], ref["key"], False


def _references_of_container(reader: str, container: Object) -> Iterator[Reference]:
    for variable in container.get("env", []):
        for way, ref in variable.get("valueFrom", {}).items():
            if kind := {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}.get(way):
                yield reader, kind, ref["name"], ref["key"], ref.get("optional", False)
    for source in container.get("envFrom", []):
        for way, ref in source.items():
            if kind := {"configMapRef": "ConfigMap", "secretRef": "Secret"}.get(way):
                yield reader, kind, ref["name"], None, ref.get("optional", False)


def _references_of_volume(reader: str, volume: Object) -> Iterator[Reference]:
    for way, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
        if source := volume.get(way):
            for key in [item["key"] for item in source.get("items", [])] or [None]:
                yield reader, kind, source[name], key, source.get("optional", False)


def _mounted_files(spec: Mapping[str, Any], container: Object) -> Iterator[str]:
    """Yield the paths of files that a container's volumes mount from single keys of Secrets and ConfigMaps."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        volume = volumes.get(mount["name"], {})
        for item in (volume.get("secret") or volume.get("configMap") or {}).get("items", []):
            yield f"{mount['mountPath']}/{item['path']}"


def _environment(objects: Sequence[Object], container: Object) -> dict[str, str | None]:
    """Return the environment of a container, with None for values from Secrets."""
    maps = {thing["metadata"]["name"]: thing.get("data", {}) for thing in of_kind(objects, "ConfigMap")}
    variables: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        variables |= maps.get(source.get("configMapRef", {}).get("name"), {})
    return variables | {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def _used_too_early(container: Object) -> list[str]:
    """Return the variables that an earlier variable refers to: Kubernetes would not expand the reference."""
    before: set[str] = set()
    early = []
    for variable in container.get("env", []):
        early += [name for name in REFERENCE.findall(variable.get("value", "")) if name not in before]
        before.add(variable["name"])
    return early


def _literals(variables: Mapping[str, str | None]) -> dict[str, str]:
    # Files of the container do not exist on this machine, and values of Secrets are unknown here.
    return {
        name: value
        for name, value in variables.items()
        if value is not None and not REFERENCE.search(value) and not name.endswith("_FILE")
    }


def _invalid_values(variables: Mapping[str, str | None]) -> list[str]:
    try:
        Settings.from_env(_literals(variables))
    except ConfigError as error:
        return [str(error)]
    return []


def _settings(objects: Sequence[Object], container: Object) -> Settings:
    return Settings.from_env(_literals(_environment(objects, container)))


def _pre_stop_s(container: Object) -> float:
    before = container.get("lifecycle", {}).get("preStop", {})
    command = before.get("exec", {}).get("command", [])
    return float(command[1]) if command[:1] == ["sleep"] else float(before.get("sleep", {}).get("seconds", 0))
