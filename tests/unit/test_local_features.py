"""Local features: extraction, visual words, the stored form and the verification of geometry."""

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.images.local_features import words
from common.images.local_features.extraction import QUERY, STORED, describe, extract, extract_query
from common.images.local_features.features import MAX_FEATURES, InvalidFeatures, LocalFeatures
from common.images.local_features.geometry import QueryFeatures, Verification, score, surprise
from common.images.local_features.words import Vocabulary, shipped_vocabulary
from common.store.base import WORDS_MAX

Pixels = NDArray[np.uint8]
CUTOFF = 55
ROOT = Path(__file__).resolve().parents[2]
STORED_EARLIER = Path(__file__).parent / "stored_features"
"""Features stored by earlier versions, which detected keypoints at 176 or at 160 px, and described them otherwise."""


def features(pixels: Pixels) -> LocalFeatures:
    return extract(pixels, width=pixels.shape[1], height=pixels.shape[0])


def query_features(pixels: Pixels) -> QueryFeatures:
    return extract_query(pixels, width=pixels.shape[1], height=pixels.shape[0])


def verify(query: Pixels, target: Pixels) -> Verification | None:
    return query_features(query).verify(LocalFeatures.decode(features(target).encode()))


def score_of(verification: Verification | None) -> float:
    return verification.score if verification else 0.0


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 10, height // 6, width * 9 // 10, height))


def caption(image: Image.Image) -> Image.Image:
    result = Image.new("RGB", (image.width, image.height * 5 // 4), "white")
    result.paste(image)
    ImageDraw.Draw(result).text((20, image.height + 10), "When you find the original", "black", font_size=24)
    return result


def turned_screenshot(image: Image.Image) -> Image.Image:
    screen = Image.new("RGB", (540, 1170), "white")
    screen.paste(image.resize((540, 540 * image.height // image.width)), (0, 190))
    ImageDraw.Draw(screen).text((20, 900), "1,204 likes", "black", font_size=24)
    return screen.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(90, expand=True)


EDITS = {"crop": crop, "caption": caption, "mirrored and rotated screenshot": turned_screenshot}


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
@pytest.mark.parametrize("edit", EDITS)
def test_edited_photograph_scores_above_the_cutoff(name: str, edit: str) -> None:
    photo = getattr(skimage.data, name)()
    query = np.asarray(EDITS[edit](Image.fromarray(photo)))

    verification = verify(query, photo)

    assert score_of(verification) > CUTOFF


@pytest.mark.parametrize(("name", "top", "left", "share"), [("coffee", 160, 240, 0.6), ("rocket", 248, 0, 0.42)])
def test_small_part_of_a_photograph_is_recognised(name: str, top: int, left: int, share: float) -> None:
    photo = getattr(skimage.data, name)()
    height, width = (int(length * share) for length in photo.shape[:2])

    verification = verify(photo[top : top + height, left : left + width], photo)

    assert score_of(verification) > CUTOFF


def test_screenshot_of_a_captioned_crop_is_recognised() -> None:
    photo = skimage.data.chelsea()
    query = np.asarray(turned_screenshot(caption(crop(Image.fromarray(photo)))))

    assert score_of(verify(query, photo)) > CUTOFF


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
@pytest.mark.parametrize("version", ["176px", "160px"])
def test_images_stored_by_an_earlier_detection_are_found(version: str, name: str, edit: str) -> None:
    stored = LocalFeatures.decode((STORED_EARLIER / version / f"{name}.features").read_bytes())
    query = np.asarray(EDITS[edit](Image.fromarray(getattr(skimage.data, name)())))

    verification = query_features(query).verify(stored)

    assert score_of(verification) > CUTOFF


def test_unrelated_photographs_score_far_below_the_cutoff(other_photo: Pixels) -> None:
    names = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "retina")
    photos = [other_photo[:500, :500], *(getattr(skimage.data, name)()[:600, :600] for name in names)]
    stored = [features(photo) for photo in photos]
    queries = [query_features(photo) for photo in photos]

    scores = np.array([[score_of(query.verify(target)) for target in stored] for query in queries])

    assert scores[~np.eye(len(photos), dtype=bool)].max() < 35


def test_real_photographs_are_distinguished(real_photos: list[Path]) -> None:
    images = [Image.open(path).convert("RGB") for path in real_photos[:8]]
    stored = [features(np.asarray(image)) for image in images]
    queries = [query_features(np.asarray(crop(image))) for image in images]

    scores = np.array([[score_of(query.verify(target)) for target in stored] for query in queries])

    assert (np.diag(scores) > CUTOFF).all()
    assert scores[~np.eye(len(images), dtype=bool)].max() < 35


def test_images_verified_together_have_their_own_results() -> None:
    photos = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    stored = [features(photo) for photo in photos]
    query = query_features(np.concatenate([photos[1][:, ::-1], photos[3][:400, :600]]))

    together = query.verify_all(stored)

    assert together == [query.verify(target) for target in stored]
    assert [score_of(result) > CUTOFF for result in together] == [False, True, False, True]
    assert query.verify_all([]) == []


def test_images_below_the_least_score_are_omitted() -> None:
    photos = [getattr(skimage.data, name)() for name in ("astronaut", "coffee")]
    query = query_features(np.concatenate([photos[0][:, :400], photos[1][:250, :400]]))
    scores = [score_of(query.verify(features(photo))) for photo in photos]

    results = query.verify_all([features(photo) for photo in photos], least_score=max(scores))

    assert max(scores) > min(scores) > CUTOFF
    assert [score_of(result) for result in results] == [one if one == max(scores) else 0 for one in scores]


def test_mirror_image_is_reported_as_mirrored(photo: Pixels) -> None:
    stored = features(photo)

    results = [query_features(each).verify(stored) for each in (photo, photo[:, ::-1], photo[::-1])]

    assert [result and result.mirrored for result in results] == [False, True, True]


def test_transform_maps_pixels_at_full_size() -> None:
    photo = skimage.data.astronaut()
    # At twice the size, without 100 columns on the left and 40 rows above.
    query = np.asarray(Image.fromarray(photo[40:, 100:]).resize((824, 944)))

    verification = verify(query, photo)

    assert verification is not None
    t = verification.transform
    for x, y in ((100, 40), (500, 40), (100, 500), (300, 300)):
        mapped = t.m11 * x + t.m12 * y + t.m13, t.m21 * x + t.m22 * y + t.m23
        assert mapped == pytest.approx((2 * (x - 100), 2 * (y - 40)), abs=10)


def test_transform_refers_to_the_declared_size() -> None:
    photo = skimage.data.astronaut()
    draft = LocalFeatures.decode(extract(photo, width=2048, height=2048).encode())

    verification = extract_query(photo, width=512, height=512).verify(draft)

    assert verification is not None
    assert verification.transform.m11 == pytest.approx(0.25, abs=0.005)
    assert verification.transform.m22 == pytest.approx(0.25, abs=0.005)


def test_overlaps_are_shares_of_area() -> None:
    photo = skimage.data.astronaut()
    captioned = np.pad(photo[:, :256], ((0, 512), (0, 0), (0, 0)), constant_values=255)

    verification = verify(captioned, photo)

    assert verification is not None
    assert verification.query_overlap_percent == pytest.approx(50, abs=4)
    assert verification.target_overlap_percent == pytest.approx(50, abs=4)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 900), (700, 2), (16, 16), (40, 30)])
@pytest.mark.parametrize("grain", [0, 255])
def test_images_of_any_size_have_features(size: tuple[int, int], grain: int) -> None:
    pixels = np.random.default_rng(1).integers(0, grain + 1, (*size, 3), dtype=np.uint8)

    stored = features(pixels)

    assert len(LocalFeatures.decode(stored.encode()).words) == len(stored.words) <= MAX_FEATURES
    assert verify(pixels, pixels) is None or score_of(verify(pixels, pixels)) >= 0


def test_features_of_the_longest_line_are_valid() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 2000, 3), dtype=np.uint8)

    stored = extract(pixels, width=2**31 - 1, height=1)

    assert LocalFeatures.decode(stored.encode()).width == stored.width


def test_flat_image_has_few_features() -> None:
    flat, photo = np.full((200, 300, 3), 90, dtype=np.uint8), skimage.data.astronaut()

    assert (features(flat).are_few, features(photo).are_few) == (True, False)


def test_stored_form_is_at_most_1090_bytes() -> None:
    assert len(features(skimage.data.chelsea()).encode()) <= 1090


def test_stored_form_keeps_places_to_a_step(photo: Pixels) -> None:
    before = features(photo)

    after = LocalFeatures.decode(before.encode())

    side = max(before.width, before.height)
    assert np.abs(after.keypoints.x - before.keypoints.x).max() <= before.width / 256
    assert np.abs(after.keypoints.y - before.keypoints.y).max() <= before.height / 256
    assert np.abs(np.log2(after.keypoints.size / before.keypoints.size)).max() <= 1 / 4.5
    assert np.abs(np.exp(1j * after.keypoints.angle) - np.exp(1j * before.keypoints.angle)).max() <= 2 * np.pi / 64
    assert side == max(after.width, after.height)


def test_encoding_decoded_features_returns_the_same_bytes(photo: Pixels) -> None:
    data = features(photo).encode()

    assert LocalFeatures.decode(data).encode() == data


@given(data=st.binary(max_size=64))
def test_hostile_bytes_raise_one_error(data: bytes) -> None:
    try:
        decoded = LocalFeatures.decode(data)
    except InvalidFeatures:
        return

    assert decoded.encode() == data


def _header(version: int = 2, count: int = 0, width: int = 10, height: int = 10) -> bytes:
    return struct.pack(">BBII", version, count, width, height)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _header()[:-1],
        _header(version=0),
        _header(version=1),
        _header(version=3),
        _header(count=1),
        _header() + bytes(7),
        _header(count=181) + bytes(6 * 181),
        _header(width=0),
        _header(height=2**32 - 1),
        _header(count=2) + b"\0\0\0\0\0\x02" + b"\0\0\0\0\0\x01",
    ],
)
def test_malformed_features_are_rejected(data: bytes) -> None:
    with pytest.raises(InvalidFeatures):
        LocalFeatures.decode(data)


@pytest.fixture(scope="module")
def cat() -> tuple[QueryFeatures, bytes]:
    """The query features of a photograph, and one of the words of its stored features."""
    return query_features(skimage.data.chelsea()), features(skimage.data.chelsea()).encode()[12:16]


@given(rows=st.lists(st.tuples(st.binary(min_size=2, max_size=2), st.integers(0, 2**11 - 1)), min_size=3, max_size=40))
@settings(max_examples=50)
def test_any_stored_features_can_be_verified(cat: tuple[QueryFeatures, bytes], rows: list[tuple[bytes, int]]) -> None:
    query, word = cat
    named = int.from_bytes(word) & 0x1FFFFF
    body = b"".join(xy + (rest << 21 | named).to_bytes(4) for xy, rest in rows)
    data = _header(count=len(rows), width=451, height=300) + body

    verification = query.verify(LocalFeatures.decode(data))

    assert verification is None or 0 <= verification.score < CUTOFF


def test_mirrored_patch_has_the_same_word() -> None:
    pixels = skimage.data.astronaut()
    described = describe(pixels, STORED, width=512, height=512).descriptors
    mirror = described[:, words._MIRROR]

    (own, own_mirrored), (mirrored, mirrored_too) = (shipped_vocabulary().words(each) for each in (described, mirror))

    assert np.array_equal(own, mirrored)
    assert (own_mirrored != mirrored_too).mean() > 0.99


def test_own_word_is_among_the_words_looked_up() -> None:
    descriptors = describe(skimage.data.coffee(), QUERY, width=600, height=400).descriptors
    vocabulary = shipped_vocabulary()

    own, _ = vocabulary.words(descriptors)
    lookup = vocabulary.lookup_words(descriptors)

    assert np.array_equal(lookup.own, own)
    asked = set(zip(lookup.feature.tolist(), lookup.word.tolist(), strict=True))
    assert set(enumerate(own.tolist())) <= asked
    assert lookup.word.max() < words.WORDS


def test_queries_have_at_most_the_accepted_words() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cluttered = np.asarray(Image.fromarray(pixels).resize((800, 600), Image.Resampling.BICUBIC))

    words = query_features(cluttered).words

    assert 0 < len(words) <= sum(detection.features for detection in QUERY.detections) <= WORDS_MAX


def test_patches_are_described_alike_at_another_size() -> None:
    photo = skimage.data.coffee()
    # Enlarged to the size of the whole, its patches are 1.7 times as large.
    part = photo[100:340, 150:510]

    verification = verify(part, photo)

    assert verification is not None
    assert verification.agreeing > 16


def test_centres_of_another_shape_are_rejected() -> None:
    with pytest.raises(ValueError, match="centres must be uint8"):
        Vocabulary(np.zeros((2, 10, 64), dtype=np.uint8))


def test_features_are_equal_in_another_process() -> None:
    script = (
        "import hashlib, skimage.data as data\n"
        "from common.images.local_features.extraction import extract\n"
        "print(hashlib.sha256(extract(data.coffee(), width=600, height=400).encode()).hexdigest())"
    )
    expected = hashlib.sha256(features(skimage.data.coffee()).encode()).hexdigest()

    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )

    assert other.stdout.strip() == expected


@pytest.mark.parametrize(
    ("agreeing", "matched", "above"), [(3, 300, False), (5, 5, True), (8, 40, True), (6, 200, False)]
)
def test_surprise_weighs_agreement_against_the_tries(agreeing: int, matched: int, *, above: bool) -> None:
    assert (score(surprise(agreeing, matched)) > CUTOFF) == above


def test_surprise_of_8_scores_55() -> None:
    assert score(8) == pytest.approx(55)
