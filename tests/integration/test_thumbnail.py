"""GET /images/thumbnail: the bytes, their headers and their absence."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.store.thumbnails import Owner, Thumbnail
from support.records import deletion, record
from support.stores import MemoryStore
from support.thumbnails import MemoryThumbnails

PATH = "/images/thumbnail?filepath=cat.jpg"


@pytest.fixture
def thumbnails(memory_store: MemoryStore) -> MemoryThumbnails:
    """The thumbnail of the stored image."""
    memory_store.put([record("cat.jpg", 7)])
    thumbnails = MemoryThumbnails()
    thumbnails.put([Thumbnail(Owner(seq=7, filepath="cat.jpg"), b"webp")])
    return thumbnails


@pytest.fixture
def site(make_client: Callable[..., FlaskClient], real_redis: Redis, thumbnails: MemoryThumbnails) -> FlaskClient:
    return make_client(real_redis, thumbnails=thumbnails)


def test_thumbnail_is_a_webp_that_runs_nothing(site: FlaskClient) -> None:
    answer = site.get(PATH)

    assert (answer.status_code, answer.data, answer.mimetype) == (200, b"webp", "image/webp")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert {"sandbox", "default-src 'none'"} <= {*answer.headers["Content-Security-Policy"].split("; ")}


def test_unchanged_thumbnail_is_not_sent_again(site: FlaskClient) -> None:
    first = site.get(PATH)

    again = site.get(PATH, headers={"If-None-Match": first.headers["ETag"]})

    assert not first.headers["ETag"].startswith("W/")
    assert (again.status_code, again.data) == (304, b"")


def test_thumbnail_of_a_deleted_image_is_unknown(site: FlaskClient, memory_store: MemoryStore) -> None:
    memory_store.put([deletion("cat.jpg", 8)])

    answer = site.get(PATH)

    assert (answer.status_code, answer.json["code"]) == (404, "unknown_filepath")


def test_thumbnail_of_the_previous_image_is_not_shown(site: FlaskClient, memory_store: MemoryStore) -> None:
    memory_store.put([record("cat.jpg", 8)])

    answer = site.get(PATH)

    assert (answer.status_code, answer.json["code"]) == (404, "no_thumbnail")


def test_without_thumbnails_none_is_kept(client: FlaskClient, thumbnails: MemoryThumbnails) -> None:
    answer = client.get(PATH)

    assert (answer.status_code, answer.json["code"]) == (404, "no_thumbnail")
    assert len(thumbnails.kept) == 1


def test_page_shows_the_thumbnail(site: FlaskClient) -> None:
    assert 'src="/images/thumbnail?filepath=cat.jpg"' in site.get("/web/image?filepath=cat.jpg").text
