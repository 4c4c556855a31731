"""The network policies allow the required connections, and no others."""

import ipaddress
from collections.abc import Iterator, Sequence
from copy import deepcopy

import pytest

from api.routes import ENDPOINTS
from api.web import ENDPOINTS as PAGES
from checks.network import NAME, Peer, between, may_receive, may_send
from checks.objects import ECK, Object, Pod, of_kind, one, pods
from checks.render import DEV, FULL, PROD, Combination, Rendered, overlays
from common.net.addresses import DEFAULT_PORTS, is_public

# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

ECK_NODES = Combination("prod", ("eck",))
DNS = Peer({"k8s-app": "kube-dns"}, namespace="kube-system")
WEB = "93.184.215.14"
PRIVATE = ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.100.100.200", "169.254.169.254", "127.0.0.1", "fd00::1", "::1")
# The label with which an operator permits calls to the API (k8s/README.md).
CLIENT = {"match-client": "allowed"}


def pod(objects: Sequence[Object], component: str) -> Pod:
    (pod,) = (pod for pod in pods(objects) if pod.component == component)
    return pod


@pytest.mark.parametrize("overlay", overlays())
def test_unlabelled_peers_reach_no_pod(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]

    reached = [
        target.owner
        for target in pods(objects)
        for peer in (Peer({"app": "other"}), Peer({"app": "other"}, namespace="elsewhere"), Peer(address=WEB))
        if any(may_receive(objects, target, peer, port) for port in {*target.numbers, 1})
    ]

    assert reached == []


@pytest.mark.parametrize("component", ["api", "worker", "flower", "prepare"])
@pytest.mark.parametrize("overlay", overlays())
def test_pods_reach_the_dns_service(rendered: Rendered, overlay: str, component: str) -> None:
    objects = rendered[Combination(overlay)]
    source = pod(objects, component)

    assert may_send(objects, source, DNS, 53, protocol="UDP")
    assert may_send(objects, source, DNS, 53)
    assert may_send(objects, source, Peer(address="169.254.20.10"), 53, protocol="UDP")


def test_each_pod_reaches_its_stores_in_dev(rendered: Rendered) -> None:
    objects = rendered[DEV]

    connections = {
        (source, target)
        for source in ("api", "worker", "flower", "prepare", "redis", "elasticsearch")
        for target, port in (("redis", 6379), ("elasticsearch", 9200))
        if between(objects, pod(objects, source), pod(objects, target), port)
    }

    assert connections == {
        ("api", "redis"),
        ("worker", "redis"),
        ("flower", "redis"),
        ("api", "elasticsearch"),
        ("worker", "elasticsearch"),
        ("prepare", "elasticsearch"),
    }


def test_each_pod_reaches_its_stores_in_prod(rendered: Rendered) -> None:
    objects = rendered[PROD]

    connections = {
        (source, port)
        for source in ("api", "worker", "flower", "prepare")
        for port in (6379, 26379, 9200, 9300, 22)
        if may_send(objects, pod(objects, source), Peer(address="10.1.2.3"), port)
    }

    redis = {(source, port) for source in ("api", "worker", "flower") for port in (6379, 26379)}
    assert connections == redis | {("api", 9200), ("worker", 9200), ("prepare", 9200)}


def test_elasticsearch_nodes_accept_match_and_each_other(rendered: Rendered) -> None:
    objects = rendered[ECK_NODES]
    (node,) = (node for node in pods(objects) if f"{ECK}/cluster-name" in node.labels)

    connections = [
        source
        for source in ("api", "worker", "flower", "prepare")
        if between(objects, pod(objects, source), node, 9200)
    ]

    assert connections == ["api", "worker", "prepare"]
    assert between(objects, node, node, 9300)
    assert may_receive(objects, node, Peer(namespace="elastic-system"), 9200)
    assert not between(objects, pod(objects, "api"), node, 9300)


def test_opensearch_replaces_elasticsearch_for_its_readers(rendered: Rendered) -> None:
    objects = rendered[Combination("dev", ("opensearch",))]
    node = pod(objects, "opensearch")

    connections = [
        source
        for source in ("api", "worker", "flower", "prepare")
        if between(objects, pod(objects, source), node, 9200)
    ]

    assert connections == ["api", "worker", "prepare"]
    assert not any(thing["metadata"]["name"].endswith("elasticsearch") for thing in objects)
    assert {
        variable["value"]
        for one_pod in pods(objects)
        for container in one_pod.containers
        for variable in container.get("env", [])
        if variable["name"] == "ELASTICSEARCH_URL"
    } == {"http://opensearch:9200"}


def test_amazon_opensearch_is_reached_with_a_role(rendered: Rendered) -> None:
    objects = rendered[Combination("prod", ("amazon-opensearch",))]
    # A domain in the VPC, and the agent of Pod Identity.
    addresses = {("10.1.2.3", 443), ("169.254.170.23", 80)}

    accounts = {source: pod(objects, source).spec.get("serviceAccountName") for source in ("api", "worker", "prepare")}
    reached = {
        source: {
            (address, port)
            for address, port in addresses
            if may_send(objects, pod(objects, source), Peer(address=address), port)
        }
        for source in ("api", "worker", "prepare", "flower")
    }

    assert set(accounts.values()) == {"match-opensearch"}
    assert reached == dict.fromkeys(accounts, addresses) | {"flower": set()}
    # The metadata of the machine, and with them its role.
    assert not may_send(objects, pod(objects, "api"), Peer(address="169.254.169.254"), 80)


@pytest.mark.parametrize("component", ["api", "worker"])
@pytest.mark.parametrize("overlay", overlays())
def test_downloads_reach_only_public_addresses(rendered: Rendered, overlay: str, component: str) -> None:
    objects = rendered[Combination(overlay)]
    source = pod(objects, component)

    assert all(
        may_send(objects, source, Peer(address=address), port)
        for address in (WEB, "2606:4700::1")
        for port in (80, 443)
    )
    assert not any(
        may_send(objects, source, Peer(address=address), port) for address in PRIVATE for port in (80, 443, 8080)
    )
    assert not may_send(objects, source, Peer(address=WEB), 22)
    assert not may_send(objects, source, Peer({"app": "other"}, namespace="elsewhere"), 80)


@pytest.mark.parametrize("component", ["flower", "prepare", "redis", "elasticsearch"])
def test_other_pods_do_not_reach_the_internet(rendered: Rendered, component: str) -> None:
    objects = rendered[DEV]

    assert not may_send(objects, pod(objects, component), Peer(address=WEB), 443)


def test_policy_and_service_agree_on_public_addresses(rendered: Rendered) -> None:
    policy = one(rendered[PROD], "NetworkPolicy", "match-internet")
    (rule,) = policy["spec"]["egress"]
    addresses = [
        address for block in rule["to"] for network in block["ipBlock"]["except"] for address in edges(network)
    ]

    api = pod(rendered[PROD], "api")
    differ = [
        address for address in addresses if is_public(address) != may_send([policy], api, Peer(address=address), 443)
    ]

    assert differ == []
    assert {port["port"] for port in rule["ports"]} == set(DEFAULT_PORTS.values())


def edges(network: str) -> list[str]:
    """Return the first and last address of a network, and those next to them."""
    net = ipaddress.ip_network(network)
    space = 2**net.max_prefixlen
    numbers = [int(net[0]) - 1, int(net[0]), int(net[-1]), int(net[-1]) + 1]
    return [str(type(net[0])(number)) for number in numbers if 0 <= number < space]


@pytest.mark.parametrize("overlay", overlays())
def test_labelled_callers_reach_nginx_and_nothing_else(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]
    api = pod(objects, "api")
    callers = [Peer(CLIENT), Peer(namespace="gateway", namespace_labels=CLIENT), Peer(namespace="monitoring")]

    reached = {port for peer in callers for port in (8080, 8081, 8888) if may_receive(objects, api, peer, port)}

    assert reached == {8080}
    assert all(may_receive(objects, api, peer, 8080) for peer in callers)
    # The label of a pod in another namespace must not be enough.
    assert not may_receive(objects, api, Peer(CLIENT, namespace="elsewhere"), 8080)


@pytest.mark.parametrize("overlay", overlays())
def test_only_prometheus_reaches_a_worker(rendered: Rendered, overlay: str) -> None:
    objects = rendered[Combination(overlay)]
    prometheus, other = Peer(namespace="monitoring"), Peer(namespace="elsewhere")

    assert may_receive(objects, pod(objects, "worker"), prometheus, 9464)
    assert not may_receive(objects, pod(objects, "worker"), other, 9464)
    assert not between(objects, pod(objects, "api"), pod(objects, "worker"), 9464)
    assert not may_receive(objects, pod(objects, "flower"), prometheus, 5555)


def test_keda_reaches_redis_only(rendered: Rendered) -> None:
    objects = rendered[DEV]

    assert may_receive(objects, pod(objects, "redis"), Peer(namespace="keda"), 6379)
    assert not may_receive(objects, pod(objects, "elasticsearch"), Peer(namespace="keda"), 9200)


@pytest.mark.parametrize("name", ["match-names", "match-internet", "match-to-redis", "match-to-elasticsearch"])
def test_each_policy_is_required(rendered: Rendered, name: str) -> None:
    connections = {
        "match-names": (DNS, 53),
        "match-internet": (Peer(address=WEB), 443),
        "match-to-redis": (Peer(address="10.1.2.3"), 6379),
        "match-to-elasticsearch": (Peer(address="10.1.2.3"), 9200),
    }
    objects = list(rendered[PROD])
    before = may_send(objects, pod(objects, "worker"), *connections[name])

    objects.remove(one(objects, "NetworkPolicy", name))

    assert (before, may_send(objects, pod(objects, "worker"), *connections[name])) == (True, False)


def test_labels_added_to_every_selector_would_block_dns(rendered: Rendered) -> None:
    objects = deepcopy(list(rendered[PROD]))
    (rule,) = one(objects, "NetworkPolicy", "match-names")["spec"]["egress"]
    rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/part-of"] = "match"

    assert not may_send(objects, pod(objects, "api"), DNS, 53, protocol="UDP")


def test_without_the_default_policy_flower_is_open(rendered: Rendered) -> None:
    objects = [thing for thing in rendered[PROD] if thing["metadata"]["name"] != "match-shut"]

    assert may_receive(objects, pod(objects, "flower"), Peer(namespace="elsewhere"), 5555)


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_routes_lead_to_client_endpoints_only(rendered: Rendered, kind: str) -> None:
    (route,) = of_kind(rendered[FULL], kind)
    paths = list(paths_of(route))
    internal = {"/metrics", "/livez", "/readyz"}

    every = {endpoint.path for endpoint in (*ENDPOINTS, *PAGES)}
    unrouted = {target for target in every if not any(leads(path, target) for path in paths)}

    assert unrouted == internal & {endpoint.path for endpoint in ENDPOINTS}
    assert not any(
        leads(path, target) for path in paths for target in (*internal, "/nowhere", "/flower", "/_authorize")
    )


def paths_of(route: Object) -> Iterator[tuple[str, str]]:
    """Yield type and value of each path of an Ingress or HTTPRoute."""
    for rule in route["spec"]["rules"]:
        for path in rule.get("http", {}).get("paths", []):
            yield path["pathType"], path["path"]
        for match in rule.get("matches", []):
            yield match["path"]["type"], match["path"]["value"]


def leads(path: tuple[str, str], target: str) -> bool:
    kind, value = path
    return target == value or (kind in {"Prefix", "PathPrefix"} and target.startswith(f"{value}/"))


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
