"""What every place for uploads promises: one suite for all."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from common.errors import Overloaded, QueueUnavailable
from common.queue.admission import Admission
from common.queue.keys import UPLOAD_ENDS
from common.redis.client import connect
from common.uploads import FolderUploads, RedisUploads, Uploads
from common.uploads.base import new_upload_id
from support.waiting import wait_until

Make = Callable[..., Uploads]


@pytest.fixture(params=["redis", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Open the same place; a second one stands for another process."""
    redis: Redis | None = request.getfixturevalue("real_redis") if request.param == "redis" else None

    def make(*, max_bytes: int = 1000, **more: Any) -> Uploads:
        if redis is None:
            return FolderUploads(tmp_path / "uploads", max_bytes=max_bytes, **more)
        return RedisUploads(redis, admission=Admission(redis, max_percent=80), max_bytes=max_bytes, **more)

    return make


@pytest.fixture
def uploads(make: Make) -> Uploads:
    return make()


def test_bytes_come_back_as_they_were_in_every_process(uploads: Uploads, make: Make) -> None:
    upload_id = uploads.put(b"\x00\xff picture")

    assert make().get(upload_id) == b"\x00\xff picture"


def test_each_upload_has_a_claim_of_its_own(uploads: Uploads) -> None:
    upload_ids = {uploads.put(b"same") for _ in range(5)}

    assert len(upload_ids) == 5


def test_what_is_never_kept_goes_by_itself_and_what_is_stays(make: Make) -> None:
    uploads = make(ttl_s=0.3)
    unclaimed, kept = uploads.put(b"a"), uploads.put(b"b")
    uploads.keep(kept)

    wait_until(lambda: uploads.get(unclaimed) is None)

    uploads.purge()
    assert uploads.get(kept) == b"b"
    wait_until(lambda: make().stored_bytes() == 1)


def test_dropped_bytes_are_gone_for_every_process(uploads: Uploads, make: Make) -> None:
    upload_ids = [uploads.put(b"a"), uploads.put(b"b")]

    uploads.drop(upload_ids)

    assert [make().get(upload_id) for upload_id in upload_ids] == [None, None]
    assert make().stored_bytes() == 0


def test_what_is_dropped_later_is_there_until_then(uploads: Uploads) -> None:
    upload_id = uploads.put(b"a")
    uploads.keep(upload_id)

    uploads.drop([upload_id], after_s=0.3)

    assert uploads.get(upload_id) == b"a"
    wait_until(lambda: uploads.get(upload_id) is None)


def test_what_was_to_be_dropped_may_be_kept_after_all(uploads: Uploads) -> None:
    upload_id, other = uploads.put(b"a"), uploads.put(b"b")
    uploads.drop([upload_id, other], after_s=0.3)

    uploads.keep(upload_id)

    wait_until(lambda: uploads.get(other) is None)
    uploads.purge()
    assert uploads.get(upload_id) == b"a"


def test_claims_that_are_there_are_told_from_others(uploads: Uploads) -> None:
    here, gone = uploads.put(b"a"), uploads.put(b"b")
    uploads.drop([gone])

    assert uploads.existing([here, gone, new_upload_id()]) == {here}
    assert uploads.existing([]) == set()


def test_all_held_bytes_are_counted_whoever_put_them(make: Make) -> None:
    first, second = make(), make()
    first.put(b"a" * 100)
    upload_id = second.put(b"b" * 20)
    second.keep(upload_id)

    assert make().stored_bytes() == 120


def test_bytes_dropped_twice_are_taken_off_once(uploads: Uploads, make: Make) -> None:
    upload_id, _ = uploads.put(b"a" * 10), uploads.put(b"b" * 5)

    uploads.drop([upload_id])
    uploads.drop([upload_id], after_s=60)
    uploads.drop([upload_id])

    assert make().stored_bytes() == 5


def test_more_than_may_be_held_is_refused_and_leaves_nothing(make: Make) -> None:
    uploads = make(max_bytes=100)
    uploads.put(b"a" * 60)

    with pytest.raises(Overloaded) as refused:
        uploads.put(b"b" * 41)

    assert refused.value.retry_after > 0
    assert make().stored_bytes() == 60


def test_what_was_dropped_makes_room(make: Make) -> None:
    uploads = make(max_bytes=100)
    uploads.drop([uploads.put(b"a" * 100)])

    # A folder is counted now and then: another process sees it at once.
    assert make(max_bytes=100).put(b"b" * 100)


def test_nearly_full_is_nearly_full(make: Make) -> None:
    uploads = make(max_bytes=100)
    before = uploads.is_nearly_full()

    uploads.put(b"a" * 95)

    assert [before, uploads.is_nearly_full()] == [False, True]


@pytest.mark.parametrize("upload_id", ["", "../secret", "/etc/passwd", "a" * 32 + "/../x", "A" * 32, "." * 32, "x\0y"])
def test_what_is_no_upload_id_reaches_nothing(uploads: Uploads, upload_id: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")

    uploads.keep(upload_id)
    uploads.drop([upload_id])

    assert uploads.get(upload_id) is None
    assert uploads.existing([upload_id]) == set()
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_many_at_once_are_all_there(make: Make) -> None:
    uploads = make(max_bytes=100_000)
    with ThreadPoolExecutor(8) as pool:
        upload_ids = list(pool.map(lambda n: uploads.put(f"{n}".encode()), range(100)))

    assert [uploads.get(upload_id) for upload_id in upload_ids] == [f"{n}".encode() for n in range(100)]


def test_a_place_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    nowhere = connect("redis://127.0.0.1:1/0")
    (tmp_path / "file").touch()
    places: list[Uploads] = [
        RedisUploads(nowhere, admission=Admission(nowhere, max_percent=80), max_bytes=10),
        FolderUploads(tmp_path / "file", max_bytes=10),
    ]

    for place in places:
        with pytest.raises(QueueUnavailable):
            place.put(b"a")


def test_a_folder_shows_no_half_written_file_and_purges_what_a_death_left(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path, max_bytes=100, ttl_s=60)
    upload_id = new_upload_id()
    part = tmp_path / f"{upload_id}.part"
    part.write_bytes(b"half")
    fresh = uploads.existing([upload_id])
    uploads.purge()
    kept_while_young = part.exists()
    os.utime(part, (1, 1))

    uploads.purge()

    assert (fresh, kept_while_young, part.exists()) == (set(), True, False)


def test_a_folder_that_is_not_there_any_more_has_lost_nothing(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path / "share" / "uploads", max_bytes=100)
    upload_id = uploads.put(b"a")
    (tmp_path / "share").rename(tmp_path / "not mounted")

    for ask in (
        uploads.get,
        lambda upload_id: uploads.existing([upload_id]),
        lambda upload_id: uploads.drop([upload_id], after_s=60),
    ):
        with pytest.raises(QueueUnavailable):
            ask(upload_id)

    (tmp_path / "not mounted").rename(tmp_path / "share")
    assert uploads.get(upload_id) == b"a"


def test_a_folder_leaves_files_of_others_alone(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path, max_bytes=100)
    stranger = tmp_path / "readme.txt"
    stranger.write_text("not ours")
    os.utime(stranger, (1, 1))

    uploads.purge()

    assert stranger.exists()
    assert uploads.stored_bytes() == 0


def test_a_folders_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    uploads = FolderUploads(tmp_path / "new", max_bytes=100)

    upload_id = uploads.put(b"a")

    assert (tmp_path / "new" / upload_id).stat().st_mode & 0o777 == 0o600


def test_what_expires_in_redis_is_taken_off_the_sum(real_redis: Redis) -> None:
    room = Admission(real_redis, max_percent=80)
    uploads = RedisUploads(real_redis, admission=room, max_bytes=100, ttl_s=0.1)
    uploads.put(b"a" * 100)

    wait_until(lambda: uploads.stored_bytes() == 0)

    assert uploads.put(b"b" * 100)
    assert real_redis.zcard(UPLOAD_ENDS) == 1
