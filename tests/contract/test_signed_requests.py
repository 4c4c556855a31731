"""Requests that are signed for Amazon OpenSearch Service, through a server that recomputes every signature."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from common.errors import StoreError, StoreUnavailable
from common.store.base import Selection, Verdict
from common.store.elastic import ElasticStore, ElasticThumbnails, Shape
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
from common.store.elastic.signing import AwsSigner
from common.store.thumbnails import Owner, Thumbnail
from support.aws import MISMATCH, UNKNOWN, Accounts, CredentialsEndpoint, Key, Request, SigningProxy, expected_signature
from support.http_servers import serving
from support.records import deletion, features_of, patch, record, signature

REGION, SERVICE = "eu-central-1", "es"
TOKEN = "session/token+of=the-role"  # noqa: S105 - of accounts that exist only here
SECRET = "secret-of-the-key"  # noqa: S105 - the same


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of this machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def role(no_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - these replace none
    """Temporary credentials with a session token."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAROLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(REGION, SERVICE, {"ASIAROLE": Key(SECRET, TOKEN)})


@pytest.fixture
def domain(opensearch_url: str, accounts: Accounts) -> Iterator[SigningProxy]:
    with serving(SigningProxy(opensearch_url, accounts)) as proxy:
        yield proxy


@pytest.fixture
def index(opensearch_url: str) -> Iterator[str]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    yield index
    with closing(Connection(opensearch_url, index=index, timeout_s=20)) as connection:
        cluster = connection.cluster()
        if names := cluster.get(f"/{index}*", ignore_unavailable="true"):
            cluster.delete(f"/{','.join(names)}")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def store(domain: SigningProxy, index: str, opened: ExitStack) -> ElasticStore:
    signer, shape = AwsSigner(region=REGION, service=SERVICE), Shape(shards=2)
    return opened.enter_context(
        closing(ElasticStore(domain.url, index=index, timeout_s=20, signer=signer, shape=shape))
    )


@pytest.fixture
def connection(domain: SigningProxy, index: str, opened: ExitStack) -> Connection:
    signer = AwsSigner(region=REGION, service=SERVICE)
    return opened.enter_context(closing(Connection(domain.url, index=index, timeout_s=20, signer=signer)))


def use(store: ElasticStore) -> None:
    """Call all operations of a store, and check their results."""
    store.prepare()
    store.put_collection("shop", max_images=5)
    store.put([record(f"{seq}.jpg", seq, metadata={"n": f"é {seq}"}) for seq in range(1, 80)])
    store.put(
        [record("words.jpg", 80, features=features_of(1, 2)), patch("7.jpg", 81, {"a": 1}), deletion("5.jpg", 82)]
    )
    store.refresh()
    near = store.candidates(np.array([signature(seq) for seq in range(1, 70)]), limit=1)
    assert [candidates[0].filepath for candidates in near[5:9]] == ["6.jpg", "7.jpg", "8.jpg", "9.jpg"]
    assert [one.filepath for one in store.candidates_by_words(np.array([2], np.uint32), limit=9)] == ["words.jpg"]
    assert store.metadata(["7.jpg"]) == {"7.jpg": {"n": "é 7", "a": 1}}
    assert list(store.records(["5.jpg", "9.jpg"])) == ["9.jpg"]
    some = Selection(where={"n": "é 9"}, filepath_prefix="9")
    assert store.filepaths(offset=0, limit=9, selection=some).filepaths == ["9.jpg"]
    assert store.count() == 79
    assert [collection.name for collection in store.collections()] == ["default", "shop"]
    assert store.purge(before=2**50, limit=10) == 2
    assert (store.health().reads, store.health().writes) == (True, True)


@pytest.mark.opensearch
@pytest.mark.usefixtures("role")
def test_every_request_of_a_store_has_a_valid_signature(
    store: ElasticStore, connection: Connection, domain: SigningProxy, index: str
) -> None:
    thumbnails = ElasticThumbnails(connection, index=index, shape=Shape(replicas="0"))

    use(store)
    thumbnails.put([Thumbnail(Owner(seq=1, collection="default", filepath="1.jpg"), b"webp")])
    copied = Copying(connection.cluster(), index, shape=Shape(vectors="flat"), grace_s=0).run()

    assert (thumbnails.get(1), copied) == (b"webp", 80)
    assert store.candidates(signature(9)[None], limit=1)[0][0].filepath == "9.jpg"
    assert domain.rejected == []
    assert len(domain.used) > 30


@pytest.mark.opensearch
@pytest.mark.usefixtures("role")
def test_parameters_of_signed_posts_are_not_needed(
    store: ElasticStore, connection: Connection, domain: SigningProxy, index: str
) -> None:
    domain.ignores_parameters = True
    store.prepare()

    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 40)])
    store.put([patch("7.jpg", 81, {"a": 1}), deletion("5.jpg", 82)])
    Copying(connection.cluster(), index, shape=Shape(), batch=10, grace_s=0).run()

    store.refresh()
    assert store.count() == 38
    assert store.metadata(["7.jpg"]) == {"7.jpg": {"a": 1}}
    assert store.candidates(signature(9)[None], limit=1)[0][0].filepath == "9.jpg"


@pytest.mark.opensearch
def test_temporary_credentials_are_renewed(
    store: ElasticStore, accounts: Accounts, domain: SigningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(CredentialsEndpoint(accounts)) as endpoint:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/role")

        store.prepare()
        written = store.put([record("cat.jpg", 1)])

    assert [one.verdict for one in written] == [Verdict.STORED]
    assert domain.rejected == []
    assert len(set(domain.used)) > 3


@pytest.mark.opensearch
@pytest.mark.usefixtures("role")
@pytest.mark.parametrize(
    ("key", "reason"),
    [(Key("another secret", TOKEN), MISMATCH), (Key(SECRET, "another token"), UNKNOWN), (Key(SECRET), UNKNOWN)],
    ids=["another secret", "another token", "no token"],
)
def test_rejected_signature_is_reported_in_one_line(
    store: ElasticStore, accounts: Accounts, key: Key, reason: str
) -> None:
    accounts.keys["ASIAROLE"] = key

    with pytest.raises(StoreUnavailable) as raised:
        store.prepare()

    assert str(raised.value) == store.health().detail == f"the index server returned 403: {reason}"


def test_missing_credentials_are_reported_in_one_line() -> None:
    signer = AwsSigner(region=REGION, service=SERVICE)
    store = ElasticStore("http://127.0.0.1:9", index="images", timeout_s=2, signer=signer)

    with closing(store), pytest.raises(StoreError, match=r"^no AWS credentials to sign requests$"):
        store.prepare()


@pytest.mark.usefixtures("role")
def test_secrets_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    headers = AwsSigner(region=REGION, service=SERVICE).headers("GET", "https://domain.example/", b"", None)

    assert headers["X-Amz-Security-Token"] == TOKEN
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text


def test_recomputed_signature_is_that_of_the_published_example() -> None:
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": "iam.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
    }
    request = Request("GET", "/?Action=ListUsers&Version=2010-05-08", headers, b"")

    # The example of Amazon's manual.
    computed = expected_signature(
        request,
        secret="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",  # noqa: S106 - published
        scope="20150830/us-east-1/iam/aws4_request",
        signed=sorted(headers),
    )

    assert computed == "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
