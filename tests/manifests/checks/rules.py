"""What can be wrong with rendered manifests although an API server takes them: each rule returns a line a fault."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from checks.dockerfile import read_dockerfile
from checks.objects import ECK, ECK_SECRETS, Object, named, of_kind, pods, selected, selects
from common.config import Settings
from common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
OURS = ("match-api", "match-worker")
SETTINGS = frozenset(spec.metadata["name"] for spec in fields(Settings))
# What the SDK that sends traces and OpenSSL read by themselves, and what flower reads.
STANDARD = re.compile(r"OTEL_[A-Z_]+|SSL_CERT_FILE")
FLOWER = frozenset({"CELERY_BROKER_URL", "FLOWER_BASIC_AUTH"})
# The port that each image opens.
EXPOSED = {
    f"match-{name}": int(read_dockerfile(ROOT / f"Dockerfile.{file}").final(target).each("EXPOSE")[0])
    for name, file, target in (("api", "api", None), ("worker", "worker", "worker"), ("flower", "worker", "flower"))
}
REFERENCE = re.compile(r"\$\(([A-Z_][A-Z0-9_]*)\)")
IMAGE = re.compile(
    r"(?P<name>[a-z0-9./_-]+(:[0-9]+/[a-z0-9./_-]+)?)(:(?P<tag>[\w][\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)
# Beyond what the program says it takes.
GRACE_S = 5.0
# gunicorn's own margin above `wait` (api/__main__.py).
AFTER_WAIT_S = 5.0

# Who reads, of which kind and name, which key (None: all), and whether it may be missing.
Reference = tuple[str, str, str, str | None, bool]
Rule = Callable[[Sequence[Object]], list[str]]


def selectors_that_match_nothing(objects: Sequence[Object]) -> list[str]:
    """Every selector finds pods, and a workload's own finds its own."""
    there = pods(objects)
    faults = [f"{who} selects no pod" for who, selector in _pod_selectors(objects) if not selected(selector, there)]
    faults += [
        f"{named(thing)} does not select its own pods"
        for thing in of_kind(objects, "Deployment", "StatefulSet")
        if not selects(thing["spec"]["selector"], thing["spec"]["template"]["metadata"]["labels"])
    ]
    return faults + [
        f"{named(thing)} selects no service"
        for thing in of_kind(objects, "ServiceMonitor")
        if not _services(objects, thing["spec"]["selector"])
    ]


def selectors_that_overlap(objects: Sequence[Object]) -> list[str]:
    """No two workloads, and no two budgets, take the same pods for theirs."""
    there = pods(objects)
    faults = [
        f"{named(thing)} also selects the pods of {pod.owner}"
        for thing in of_kind(objects, "Deployment", "StatefulSet")
        for pod in selected(thing["spec"]["selector"], there)
        if pod.owner != named(thing)
    ]
    budgets = [thing["spec"]["selector"] for thing in of_kind(objects, "PodDisruptionBudget")]
    return faults + [
        f"{pod.owner}: more than one budget, and no pod of it can be evicted"
        for pod in there
        if sum(selects(selector, pod.labels) for selector in budgets) > 1
    ]


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


def ports_that_the_image_does_not_open(objects: Sequence[Object]) -> list[str]:
    """Our containers have the ports that their images expose, and listen on them, for all."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            name = container["image"].rpartition("/")[2].partition(":")[0]
            ports = [port["containerPort"] for port in container.get("ports", [])]
            if name not in EXPOSED or not ports:
                continue
            if ports != [EXPOSED[name]]:
                faults.append(f"{pod.owner}: {name} has no port but {EXPOSED[name]}")
            settings = _settings(objects, container)
            listens = {"api": settings.port, "worker": settings.worker_metrics_port}.get(pod.component)
            if listens not in {None, *ports}:
                faults.append(f"{pod.owner}: it listens on {listens}")
    return faults


def images_without_a_version(objects: Sequence[Object]) -> list[str]:
    """Every image has a tag that says which, or a digest."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            found = IMAGE.fullmatch(container["image"])
            if not found or not (found["digest"] or found["tag"]) or found["tag"] == "latest":
                faults.append(f"{pod.owner}: {container['image']} does not say which")
    return faults


def scalers_without_a_target(objects: Sequence[Object]) -> list[str]:
    """Whoever scales, scales something that is there, alone, and finds what it needs."""
    there = {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}
    faults = []
    scaled = Counter()
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        reference = scaler["spec"]["scaleTargetRef"]
        key = (reference.get("kind", "Deployment"), reference["name"])
        if key not in there:
            faults.append(f"{named(scaler)} scales {' '.join(key)}, which is not there")
            continue
        scaled[key] += 1
        faults += _faults_of_target(scaler, there[key])
        for trigger in scaler["spec"].get("triggers", []):
            asked = trigger.get("authenticationRef")
            if asked and ("TriggerAuthentication", asked["name"]) not in there:
                faults.append(f"{named(scaler)}: there is no TriggerAuthentication {asked['name']}")
    return faults + [f"{' '.join(key)} is scaled by more than one" for key, number in scaled.items() if number > 1]


def rollouts_that_cannot_move(objects: Sequence[Object]) -> list[str]:
    """A rolling update may add a pod or take one away, and so may a drain."""
    none = {"0", "0%"}
    updates = {named(thing): thing["spec"].get("strategy", {}) for thing in of_kind(objects, "Deployment")}
    faults = [
        f"{who}: maxSurge and maxUnavailable are both 0"
        for who, strategy in updates.items()
        if {str(strategy.get("rollingUpdate", {}).get(way, 1)) for way in ("maxSurge", "maxUnavailable")} <= none
    ]
    return faults + [
        f"{named(thing)}: no node could be drained"
        for thing in of_kind(objects, "PodDisruptionBudget")
        if str(thing["spec"].get("maxUnavailable")) in none or str(thing["spec"].get("minAvailable")) == "100%"
    ]


def pods_that_are_not_restricted(objects: Sequence[Object]) -> list[str]:
    """Each pod is as the Pod Security Standard `restricted` asks for, and ours cannot write but where they must."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            security = {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})}
            faults += [f"{pod.owner}, {container['name']}: {wrong}" for wrong in _loose(security, container["image"])]
        if pod.spec and pod.spec.get("automountServiceAccountToken") is not False:
            faults.append(f"{pod.owner}: has a token for the cluster's API")
        if pod.spec and pod.spec.get("enableServiceLinks") is not False:
            faults.append(f"{pod.owner}: is given variables that look like settings")
        hosts = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name)]
        faults += [f"{pod.owner}: {name}" for name in hosts]
        faults += [
            f"{pod.owner}: mounts the host's {one['hostPath']}"
            for one in pod.spec.get("volumes", [])
            if "hostPath" in one
        ]
    return faults


def mounts_that_lead_nowhere(objects: Sequence[Object]) -> list[str]:
    """What is mounted is a volume, and what is a volume is mounted."""
    claims = {
        named(thing): {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
        for thing in of_kind(objects, "StatefulSet")
    }
    faults = []
    for pod in pods(objects):
        there = {one["name"] for one in pod.spec.get("volumes", [])} | claims.get(pod.owner, set())
        mounted = {one["name"] for container in pod.containers for one in container.get("volumeMounts", [])}
        faults += [f"{pod.owner}: {name} is mounted and no volume" for name in sorted(mounted - there)]
        faults += [f"{pod.owner}: {name} is never mounted" for name in sorted(there - mounted)]
    return faults


def pods_ended_too_soon(objects: Sequence[Object]) -> list[str]:
    """A pod that is told to end has the time that its program may take."""
    faults = []
    for pod in pods(objects):
        if pod.component not in {"api", "worker"}:
            continue
        (container,) = pod.spec["containers"]
        settings = _settings(objects, container)
        needed = settings.stop_within_s if pod.component == "worker" else settings.max_wait_s + AFTER_WAIT_S
        needed += _pause_before_end_s(container) + GRACE_S
        if pod.component == "api" and not _pause_before_end_s(container):
            faults.append(f"{pod.owner}: ends before proxies know of it")
        if pod.spec.get("terminationGracePeriodSeconds", 30) < needed:
            faults.append(f"{pod.owner}: terminationGracePeriodSeconds is less than the {needed:g} that it may take")
    return faults


def probes_that_cost(objects: Sequence[Object]) -> list[str]:
    """No probe asks over the queue; each program of ours has all three, and liveness asks nobody else."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            commands = " ".join(str(container.get(f"{kind}Probe", {})) for kind in ("startup", "liveness", "readiness"))
            if "celery" in commands:
                faults.append(f"{pod.owner}: a probe that asks over the queue")
        if pod.component in {"api", "worker", "flower"}:
            (container,) = pod.spec["containers"]
            faults += [
                f"{pod.owner}: no {kind} probe"
                for kind in ("startup", "liveness", "readiness")
                if f"{kind}Probe" not in container
            ]
        if pod.component == "api" and "/readyz" in str(pod.spec["containers"][0].get("livenessProbe")):
            faults.append(f"{pod.owner}: is restarted when its store is away")
    return faults


def pods_without_bounds(objects: Sequence[Object]) -> list[str]:
    """Each container asks for CPU and memory, and may not take all memory of its node."""
    faults = []
    for pod in pods(objects):
        for container in pod.containers:
            resources = container.get("resources", {})
            asked, most = resources.get("requests", {}), resources.get("limits", {})
            if not {"cpu", "memory"} <= asked.keys() or "memory" not in most:
                faults.append(f"{pod.owner}, {container['name']}: no requests of CPU and memory, or no limit of memory")
    return faults


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
    selectors_that_match_nothing,
    selectors_that_overlap,
    ports_that_nobody_has,
    keys_that_are_missing,
    settings_that_are_unknown,
    files_that_are_not_mounted,
    ports_that_the_image_does_not_open,
    images_without_a_version,
    scalers_without_a_target,
    rollouts_that_cannot_move,
    pods_that_are_not_restricted,
    mounts_that_lead_nowhere,
    pods_ended_too_soon,
    probes_that_cost,
    pods_without_bounds,
    objects_without_our_labels,
)


def _pod_selectors(objects: Sequence[Object]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return whoever selects pods, and how."""
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "Service" and "selector" in spec:
            yield named(thing), {"matchLabels": spec["selector"]}
        if thing["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            yield named(thing), spec["selector"]
        if thing["kind"] == "NetworkPolicy":
            yield named(thing), spec["podSelector"]
            for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
                for peer in [*rule.get("from", []), *rule.get("to", [])]:
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        yield f"{named(thing)}, a peer", peer["podSelector"]
    for pod in pods(objects):
        for spread in pod.spec.get("topologySpreadConstraints", []):
            yield f"{pod.owner}, its spread", spread["labelSelector"]


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
    for who, backend in _backends(objects):
        if service := services.get(backend["name"]):
            yield who, service, backend["port"].get("name") or backend["port"].get("number")
    for monitor in of_kind(objects, "ServiceMonitor"):
        for service in _services(objects, monitor["spec"]["selector"]):
            for end in monitor["spec"]["endpoints"]:
                yield named(monitor), service, end["port"]


def _lost_backends(objects: Sequence[Object]) -> list[str]:
    services = {service["metadata"]["name"] for service in of_kind(objects, "Service")}
    return [f"{who}, {backend['name']}" for who, backend in _backends(objects) if backend["name"] not in services]


def _backends(objects: Sequence[Object]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                yield f"{named(ingress)} {path['path']}", path["backend"]["service"]


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


def _faults_of_target(scaler: Object, target: Object) -> list[str]:
    faults = []
    if "replicas" in target["spec"]:
        faults.append(f"{named(target)} says how many it has, which {named(scaler)} decides")
    wanted = [
        metric["resource"]["name"] for metric in scaler["spec"].get("metrics", []) if metric["type"] == "Resource"
    ]
    for container in target["spec"]["template"]["spec"]["containers"]:
        asked = container.get("resources", {}).get("requests", {})
        faults += [f"{named(scaler)}: {named(target)} requests no {name}" for name in wanted if name not in asked]
    return faults


def _loose(security: Mapping[str, Any], image: str) -> Iterator[str]:
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
        yield "may run as root"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may gain privileges"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security["capabilities"].get("add"):
        yield "keeps capabilities"
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccomp profile"
    # Elasticsearch's image writes into its own folders when it starts.
    if security.get("readOnlyRootFilesystem") is not True and not image.startswith("elasticsearch:"):
        yield "may write to its root file system"
