"""The network policies leave open the ways that are needed, and no other."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import pytest

from api.routes import ENDPOINTS
from checks.network import NAME, Peer, between, may_receive, may_send
from checks.objects import ECK, Object, Pod, of_kind, one, pods
from checks.render import Combination, overlays
from common.net.addresses import DEFAULT_PORTS, is_public

# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

Rendered = Mapping[Combination, Sequence[Object]]

TRIED = Combination("dev")
EARNEST = Combination("prod")
NODES = Combination("prod", ("eck",))
DNS = Peer({"k8s-app": "kube-dns"}, namespace="kube-system")
WEB = "93.184.215.14"
PRIVATE = ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.100.100.200", "169.254.169.254", "127.0.0.1", "fd00::1", "::1")
ALL = Combination("prod", ("keda", "eck", "gateway", "ingress", "prometheus", "real-ip", "api-keys"))
# What an operator sets on those who may call the API (k8s/README.md).
CLIENT = {"match-client": "allowed"}


def pod(objects: Sequence[Object], component: str) -> Pod:
    (found,) = (one for one in pods(objects) if one.component == component)
    return found


@pytest.mark.parametrize("overlay", overlays())
def test_every_pod_of_ours_is_shut_where_nothing_opens_it(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]

    reached = [
        found.owner
        for found in pods(objects)
        for peer in (Peer({"app": "stranger"}), Peer({"app": "stranger"}, namespace="elsewhere"), Peer(address=WEB))
        if any(may_receive(objects, found, peer, port) for port in {*found.numbers, 1})
    ]

    assert reached == []


@pytest.mark.parametrize("component", ["api", "worker", "flower", "prepare"])
@pytest.mark.parametrize("overlay", overlays())
def test_names_are_resolved(rendered: Rendered, overlay: str, component: str) -> None:
    objects = rendered[Combination(overlay)]
    asking = pod(objects, component)

    assert may_send(objects, asking, DNS, 53, protocol="UDP")
    assert may_send(objects, asking, DNS, 53)
    assert may_send(objects, asking, Peer(address="169.254.20.10"), 53, protocol="UDP")


def test_each_finds_the_stores_that_it_needs_where_one_tries_it(rendered: Rendered) -> None:
    objects = rendered[TRIED]

    ways = {
        (source, target)
        for source in ("api", "worker", "flower", "prepare", "redis", "elasticsearch")
        for target, port in (("redis", 6379), ("elasticsearch", 9200))
        if between(objects, pod(objects, source), pod(objects, target), port)
    }

    assert ways == {
        ("api", "redis"),
        ("worker", "redis"),
        ("flower", "redis"),
        ("api", "elasticsearch"),
        ("worker", "elasticsearch"),
        ("prepare", "elasticsearch"),
    }


def test_each_finds_the_stores_that_it_needs_in_earnest(rendered: Rendered) -> None:
    objects = rendered[EARNEST]

    ways = {
        (source, port)
        for source in ("api", "worker", "flower", "prepare")
        for port in (6379, 26379, 9200, 9300, 22)
        if may_send(objects, pod(objects, source), Peer(address="10.1.2.3"), port)
    }

    redis = {(source, port) for source in ("api", "worker", "flower") for port in (6379, 26379)}
    assert ways == redis | {("api", 9200), ("worker", 9200), ("prepare", 9200)}


def test_nodes_of_an_operator_answer_us_and_each_other(rendered: Rendered) -> None:
    objects = rendered[NODES]
    (node,) = (found for found in pods(objects) if f"{ECK}/cluster-name" in found.labels)

    ways = [
        source
        for source in ("api", "worker", "flower", "prepare")
        if between(objects, pod(objects, source), node, 9200)
    ]

    assert ways == ["api", "worker", "prepare"]
    assert between(objects, node, node, 9300)
    assert may_receive(objects, node, Peer(namespace="elastic-system"), 9200)
    assert not between(objects, pod(objects, "api"), node, 9300)


@pytest.mark.parametrize("component", ["api", "worker"])
@pytest.mark.parametrize("overlay", overlays())
def test_pictures_come_from_the_public_internet_alone(rendered: Rendered, overlay: str, component: str) -> None:
    objects = rendered[Combination(overlay)]
    asking = pod(objects, component)

    assert all(
        may_send(objects, asking, Peer(address=where), port) for where in (WEB, "2606:4700::1") for port in (80, 443)
    )
    assert not any(
        may_send(objects, asking, Peer(address=where), port) for where in PRIVATE for port in (80, 443, 8080)
    )
    assert not may_send(objects, asking, Peer(address=WEB), 22)
    assert not may_send(objects, asking, Peer({"app": "stranger"}, namespace="elsewhere"), 80)


@pytest.mark.parametrize("component", ["flower", "prepare", "redis", "elasticsearch"])
def test_nobody_else_reaches_the_internet(rendered: Rendered, component: str) -> None:
    objects = rendered[TRIED]

    assert not may_send(objects, pod(objects, component), Peer(address=WEB), 443)


def test_the_policy_and_the_service_call_the_same_addresses_public(rendered: Rendered) -> None:
    policy = one(rendered[EARNEST], "NetworkPolicy", "match-internet")
    (rule,) = policy["spec"]["egress"]
    edges = [edge for block in rule["to"] for network in block["ipBlock"]["except"] for edge in ends(network)]

    api = pod(rendered[EARNEST], "api")
    differ = [at for at in edges if is_public(at) != may_send([policy], api, Peer(address=at), 443)]

    assert differ == []
    assert {port["port"] for port in rule["ports"]} == set(DEFAULT_PORTS.values())


def ends(network: str) -> list[str]:
    """Return the first and last address of a network, and their neighbours."""
    net = ipaddress.ip_network(network)
    space = 2**net.max_prefixlen
    numbers = [int(net[0]) - 1, int(net[0]), int(net[-1]), int(net[-1]) + 1]
    return [str(type(net[0])(number)) for number in numbers if 0 <= number < space]


@pytest.mark.parametrize("overlay", overlays())
def test_labelled_callers_reach_nginx_and_nothing_else(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]
    api = pod(objects, "api")
    callers = [Peer(CLIENT), Peer(namespace="gateway", marks=CLIENT), Peer(namespace="monitoring")]

    reached = {port for peer in callers for port in (8080, 8081, 8888) if may_receive(objects, api, peer, port)}

    assert reached == {8080}
    assert all(may_receive(objects, api, peer, 8080) for peer in callers)
    # A label of its own must not be enough for a pod of any namespace.
    assert not may_receive(objects, api, Peer(CLIENT, namespace="elsewhere"), 8080)


@pytest.mark.parametrize("overlay", overlays())
def test_only_prometheus_reaches_a_worker(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]
    prometheus, stranger = Peer(namespace="monitoring"), Peer(namespace="elsewhere")

    assert may_receive(objects, pod(objects, "worker"), prometheus, 9464)
    assert not may_receive(objects, pod(objects, "worker"), stranger, 9464)
    assert not between(objects, pod(objects, "api"), pod(objects, "worker"), 9464)
    assert not may_receive(objects, pod(objects, "flower"), prometheus, 5555)


def test_what_scales_the_workers_may_ask_redis(rendered: Rendered) -> None:
    objects = rendered[TRIED]

    assert may_receive(objects, pod(objects, "redis"), Peer(namespace="keda"), 6379)
    assert not may_receive(objects, pod(objects, "elasticsearch"), Peer(namespace="keda"), 9200)


@pytest.mark.parametrize("name", ["match-names", "match-internet", "match-to-redis", "match-to-elasticsearch"])
def test_a_way_that_is_taken_away_is_missed(rendered: Rendered, name: str) -> None:
    ways = {
        "match-names": (DNS, 53),
        "match-internet": (Peer(address=WEB), 443),
        "match-to-redis": (Peer(address="10.1.2.3"), 6379),
        "match-to-elasticsearch": (Peer(address="10.1.2.3"), 9200),
    }
    objects = list(rendered[EARNEST])
    before = may_send(objects, pod(objects, "worker"), *ways[name])

    objects.remove(one(objects, "NetworkPolicy", name))

    assert (before, may_send(objects, pod(objects, "worker"), *ways[name])) == (True, False)


def test_labels_that_a_tool_adds_to_every_selector_would_shut_the_way_to_names(rendered: Rendered) -> None:
    objects = deepcopy(list(rendered[EARNEST]))
    (rule,) = one(objects, "NetworkPolicy", "match-names")["spec"]["egress"]
    rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/part-of"] = "match"

    assert not may_send(objects, pod(objects, "api"), DNS, 53, protocol="UDP")


def test_without_the_policy_that_shuts_strangers_reach_flower(rendered: Rendered) -> None:
    objects = [thing for thing in rendered[EARNEST] if thing["metadata"]["name"] != "match-shut"]

    assert may_receive(objects, pod(objects, "flower"), Peer(namespace="elsewhere"), 5555)


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_a_way_in_leads_to_client_endpoints_only(rendered: Rendered, kind: str) -> None:
    (way,) = of_kind(rendered[ALL], kind)
    paths = list(paths_of(way))
    inside = {"/metrics", "/livez", "/readyz"}

    shut = {endpoint.path for endpoint in ENDPOINTS if not any(leads(path, endpoint.path) for path in paths)}

    assert shut == inside & {endpoint.path for endpoint in ENDPOINTS}
    assert not any(leads(path, where) for path in paths for where in (*inside, "/", "/flower", "/_authorize"))


def paths_of(way: Object) -> Iterator[tuple[str, str]]:
    """Return type and value of each path of an Ingress or HTTPRoute."""
    for rule in way["spec"]["rules"]:
        for path in rule.get("http", {}).get("paths", []):
            yield path["pathType"], path["path"]
        for match in rule.get("matches", []):
            yield match["path"]["type"], match["path"]["value"]


def leads(path: tuple[str, str], where: str) -> bool:
    kind, value = path
    return where == value or (kind in {"Prefix", "PathPrefix"} and where.startswith(f"{value}/"))


def test_namespaces_are_selected_by_name_or_client_label(rendered: Rendered) -> None:
    selectors = [
        peer["namespaceSelector"]
        for objects in rendered.values()
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        for peer in [*rule.get("from", []), *rule.get("to", [])]
        if "namespaceSelector" in peer
    ]

    assert all(selector["matchLabels"].keys() == {NAME} or selector["matchLabels"] == CLIENT for selector in selectors)
