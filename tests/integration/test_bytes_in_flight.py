"""Bytes in flight: uploads wait on disk, and requests without memory get a 503."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from urllib3 import encode_multipart_formdata

from common.byte_budget import ByteBudget
from common.config import Settings
from support.images import gradient, upload

BUDGET_BYTES = 200_000
MIB = 1024 * 1024


def form(image: bytes) -> dict[str, Any]:
    """Return the body of an add; Flask's client would leave the file open in which it keeps a large one."""
    body, content_type = encode_multipart_formdata({"image": ("a.png", image), "filepath": "a"})
    return {"data": body, "content_type": content_type}


@pytest.mark.parametrize(("path", "parameters"), [("/add", {"filepath": "a"}), ("/search", {})])
def test_a_request_without_memory_is_rejected(
    make_client: Callable[..., FlaskClient], real_redis: Redis, path: str, parameters: dict[str, Any]
) -> None:
    budget = ByteBudget(BUDGET_BYTES, wait_s=0)
    client = make_client(real_redis, budget=budget)

    with budget.reservation() as other:
        other.resize(BUDGET_BYTES)
        rejected = client.post(path, data={"image": upload(), **parameters})
    accepted = client.post(path, data={"image": upload(), **parameters})

    assert (rejected.status_code, rejected.json["code"]) == (503, "overloaded")
    assert rejected.headers["Retry-After"] == "1"
    assert accepted.status_code in {200, 202}
    assert budget.free_bytes == BUDGET_BYTES


def test_two_images_need_memory_one_after_another(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    image = gradient()
    client = make_client(real_redis, budget=ByteBudget(len(image), wait_s=0))

    answer = client.post("/compare", data={"image1": upload(image), "image2": upload(image)})

    assert [result["score"] for result in answer.json["result"]] == [100.0]


def test_an_upload_on_disk_is_added_whole(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    settings = Settings(max_image_bytes=2 * MIB)
    client = make_client(real_redis, settings=settings, budget=ByteBudget(2 * MIB, wait_s=0))
    large = gradient().ljust(MIB, b"\0")

    answer = client.post("/add", **form(large))

    assert answer.status_code == 202
    [key] = real_redis.scan_iter("*upload:*")
    assert real_redis.get(key) == large


def test_the_error_of_a_large_image_names_the_setting(
    make_client: Callable[..., FlaskClient], real_redis: Redis
) -> None:
    client = make_client(real_redis, settings=Settings(max_image_bytes=MIB))

    answer = client.post("/add", **form(bytes(MIB + 1)))

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")
    assert answer.json["error"] == ["image has 1,048,577 bytes; the limit is 1,048,576 (MATCH_MAX_IMAGE_BYTES)"]
