"""Uploads: bytes that nobody claims go away, claimed ones stay."""

from redis import Redis

from common.uploads import UNCLAIMED_S, Uploads


def test_bytes_come_back_as_they_were(uploads: Uploads) -> None:
    claim = uploads.put(b"\x00\xff picture")

    assert uploads.get(claim) == b"\x00\xff picture"


def test_unclaimed_bytes_go_by_themselves_and_claimed_ones_stay(fake_redis: Redis, uploads: Uploads) -> None:
    unclaimed, claimed = uploads.put(b"a"), uploads.put(b"b")

    uploads.keep(claimed)

    assert 0 < int(fake_redis.ttl(f"match:upload:{unclaimed}")) <= UNCLAIMED_S
    assert fake_redis.ttl(f"match:upload:{claimed}") == -1


def test_dropped_bytes_are_gone(uploads: Uploads) -> None:
    claims = [uploads.put(b"a"), uploads.put(b"b")]

    uploads.drop(claims)

    assert [uploads.get(claim) for claim in claims] == [None, None]
