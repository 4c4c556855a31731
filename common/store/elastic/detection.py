"""The product of a server: its response to `GET /`, or else the mapping of the existing index."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from common.errors import StoreError
from common.store.elastic.dialects import Dialect, ElasticsearchDialect, OpenSearchDialect
from common.store.elastic.mapping import VECTORS

# The client supports servers of its own major version and later; bit vectors need only 8.15.
OLDEST_ELASTICSEARCH = 9
# The first version whose Lucene engine has binary vectors.
OLDEST_OPENSEARCH: Final = (2, 19)
KNN_PLUGIN = "opensearch-knn"

# Returns the body of the response to a GET, None if the server rejects the request.
Get: TypeAlias = Callable[[str], object]

_ELASTICSEARCH, _OPENSEARCH = ElasticsearchDialect(), OpenSearchDialect()


def detect(get: Get, index: str) -> Dialect | None:
    """Return the server's dialect, None if it is not known yet. Raises StoreError if the server is unsupported."""
    info = get("/")
    if info is None:
        # Not authorized for this request, or not available.
        return _dialect_of(get(f"/{index}?ignore_unavailable=true"))
    if is_opensearch(info):
        if reason := why_opensearch_unsupported(info, get("/_cat/plugins?format=json&h=component,version")):
            raise StoreError(reason)
        return _OPENSEARCH
    if reason := why_unsupported(info):
        raise StoreError(reason)
    return _ELASTICSEARCH


def is_opensearch(info: object) -> bool:
    """Return whether the response to `GET /` is that of OpenSearch."""
    version = _version(info)
    return version.get("distribution") == "opensearch"


def why_opensearch_unsupported(info: object, plugins: object) -> str:
    """Return the reason why an OpenSearch cannot be used, or ""; `plugins` is a list of them, None if unknown.

    The plugin's version is that of the server, which may report a version of Elasticsearch for old clients.

    >>> why_opensearch_unsupported({"version": {"distribution": "opensearch", "number": "2.17.0"}}, None)
    'OpenSearch 2.17.0 is too old: Match needs 2.19 or later'
    >>> why_opensearch_unsupported({"version": {"distribution": "opensearch", "number": "3.5.0"}}, [])
    'OpenSearch 3.5.0 has no k-NN plugin, which Match needs'
    """
    number = str(_version(info).get("number"))
    if isinstance(plugins, Sequence):
        versions = [str(plugin.get("version")) for plugin in plugins if plugin.get("component") == KNN_PLUGIN]
        if not versions:
            return f"OpenSearch {number} has no k-NN plugin, which Match needs"
        # Four numbers: the last is the plugin's own.
        number = min(versions, key=_numbers).rpartition(".")[0]
    if _numbers(number) < OLDEST_OPENSEARCH:
        return f"OpenSearch {number} is too old: Match needs {'.'.join(map(str, OLDEST_OPENSEARCH))} or later"
    return ""


def why_unsupported(info: object) -> str:
    """Return the reason why another server than OpenSearch cannot be used, or ""."""
    number = str(_version(info).get("number"))
    if not number[:1].isdigit():
        return "the server is neither Elasticsearch nor OpenSearch"
    if distribution := _version(info).get("distribution"):
        return f"the server is {distribution} {number}: Match needs Elasticsearch or OpenSearch"
    if _numbers(number) < (OLDEST_ELASTICSEARCH,):
        return f"Elasticsearch {number} is too old: Match needs {OLDEST_ELASTICSEARCH} or later"
    return ""


def _dialect_of(indices: object) -> Dialect | None:
    """Return the dialect in which an index was created, None if it has no vectors of Match."""
    for details in indices.values() if isinstance(indices, Mapping) else ():
        vector = details["mappings"].get("properties", {}).get(VECTORS[0], {})
        for dialect in (_ELASTICSEARCH, _OPENSEARCH):
            if dialect.vector["type"] == vector.get("type"):
                return dialect
    return None


def _version(info: object) -> Mapping[str, object]:
    version = info.get("version") if isinstance(info, Mapping) else None
    return version if isinstance(version, Mapping) else {}


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version.

    >>> _numbers("3.0.0-beta1")
    (3, 0, 0)
    """
    return tuple(int(number) for number in version.partition("-")[0].split(".") if number.isdigit())
