"""Sketches of drawn images: their stored form, and the score of a query that shows the same, or another text."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from common.images.flatness import drawn_score
from common.images.local_features.drawing import draw, is_drawn, shrink
from common.images.local_features.extraction import extract, extract_query
from common.images.local_features.features import LocalFeatures
from common.images.local_features.sketches import InvalidSketch, Sketch
from common.images.orientations import ORIENTATIONS
from support.scenes import page

Pixels = NDArray[np.uint8]
CUTOFF = 55
NOTHING = extract(np.full((40, 90, 3), 255, np.uint8), width=90, height=40)
SMALL_COPY = shrink(skimage.data.chelsea(), width=451, height=300)


def form(text: str, colour: str = "#cc3311", amount: str = "1,250.00") -> Image.Image:
    """Draw a form: all have the same frame, and differ in their text."""
    image = Image.new("RGB", (500, 640), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 500, 60), fill=colour)
    for nth in range(8):
        draw.line((40, 200 + 40 * nth, 460, 200 + 40 * nth), fill="#999999")
    draw.text((40, 90), "INVOICE", "black", font_size=30)
    for nth in range(6):
        draw.text((45, 204 + 40 * nth), text, "black", font_size=24)
    draw.text((300, 560), amount, "black", font_size=30)
    return image


def badge(text: str) -> Image.Image:
    """Draw a badge: few cells differ between two of them."""
    image = Image.new("RGB", (160, 40), "#555555")
    draw = ImageDraw.Draw(image)
    draw.rectangle((90, 0, 160, 40), fill="#2a9d8f")
    draw.text((45, 20), "tests", "white", font_size=22, anchor="mm")
    draw.text((125, 20), text, "white", font_size=22, anchor="mm")
    return image


def stored(image: Image.Image) -> LocalFeatures:
    pixels = np.asarray(image)
    return LocalFeatures.decode(extract(pixels, width=image.width, height=image.height).encode())


def scored(query: Image.Image, target: LocalFeatures, orientation: str = "original") -> float:
    score = drawn_score(
        shrink(np.asarray(query), width=query.width, height=query.height), target, orientation=orientation
    )
    assert score is not None
    return score


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def scanned(image: Image.Image) -> Image.Image:
    return image.convert("L").point(lambda level: 30 + level * 0.8).convert("RGB")


@pytest.fixture(scope="module")
def target() -> LocalFeatures:
    """The stored features of a form."""
    return stored(form("two boxes of nails"))


@pytest.mark.parametrize("change", [lambda image: image, half, scanned], ids=["same", "half", "scanned"])
def test_copy_of_a_form_matches(target: LocalFeatures, change: Callable[[Image.Image], Image.Image]) -> None:
    assert scored(change(form("two boxes of nails")), target) > CUTOFF


@pytest.mark.parametrize(
    "other",
    [form("a dozen hammers"), form("two boxes of nails", "#2a9d8f"), form("")],
    ids=["other text", "other colour", "no text"],
)
def test_other_form_of_the_template_does_not_match(target: LocalFeatures, other: Image.Image) -> None:
    assert scored(other, target) < CUTOFF


def test_badges_of_other_short_words_do_not_match() -> None:
    words = ["v1.2", "v3.8", "MIT", "BSD", "12%", "72%", "15%", "16%"]
    targets = [stored(badge(word)) for word in words]

    scores = np.array([[scored(half(badge(word)), target) for target in targets] for word in words])

    assert ((scores > CUTOFF) == np.eye(len(words), dtype=bool)).all()
    assert scores[~np.eye(len(words), dtype=bool)].max() < CUTOFF - 3


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_copy_matches_in_its_orientation_only(target: LocalFeatures, orientation: str) -> None:
    turned = _turned_back(form("two boxes of nails"), orientation)

    scores = {name: scored(turned, target, name) for name in ORIENTATIONS}

    assert [name for name, score in scores.items() if score > CUTOFF] == [orientation]


def _turned_back(image: Image.Image, orientation: str) -> Image.Image:
    """Return an image that `orientation` turns into this one."""
    *_, degrees = orientation.rsplit("_", 1)
    image = image.rotate(int(degrees) if degrees.isdigit() else 0, expand=True)
    image = ImageOps.mirror(image) if "mirrored" in orientation else image
    return ImageOps.invert(image) if "inverted" in orientation else image


def test_pages_of_text_match_their_copies_only() -> None:
    pages = [page(seed) for seed in range(4)]
    targets = [stored(each) for each in pages]

    scores = np.array([[scored(half(each), target) for target in targets] for each in pages])

    assert ((scores > CUTOFF) == np.eye(len(pages), dtype=bool)).all()


def test_part_of_a_page_matches_by_its_transform(target: LocalFeatures) -> None:
    query = Image.new("RGB", (900, 900), "white")
    query.paste(form("two boxes of nails"), (300, 100))
    pixels = np.asarray(query)
    verification = extract_query(pixels, width=900, height=900).verify(target)
    assert verification is not None

    score = drawn_score(shrink(pixels, width=900, height=900), target, transform=verification.transform)

    assert score is not None
    assert score > CUTOFF


def test_photographs_have_no_sketch() -> None:
    photo = skimage.data.chelsea()

    features = extract(photo, width=451, height=300)

    assert features.sketch is None
    assert drawn_score(shrink(photo, width=451, height=300), features) is None


def test_pages_are_drawn_and_photographs_are_not() -> None:
    photo = Image.fromarray(skimage.data.chelsea())
    images = [form("nails"), page(1), photo, ImageOps.expand(photo, 120, "white")]

    assert [is_drawn(np.asarray(image.convert("L"))) for image in images] == [True, True, False, False]


def test_small_photograph_on_white_is_not_drawn() -> None:
    image = Image.new("RGB", (600, 600), "white")
    image.paste(Image.fromarray(skimage.data.chelsea()).resize((240, 160)), (180, 200))

    assert not is_drawn(np.asarray(image.convert("L")))


def test_noise_makes_no_photograph_of_a_chart() -> None:
    image = Image.new("L", (640, 480), 255)
    for nth, height in enumerate((120, 300, 210, 380, 260, 90)):
        ImageDraw.Draw(image).rectangle((60 + 90 * nth, 440 - height, 120 + 90 * nth, 440), fill=60 + 20 * nth)
    noise = np.random.default_rng(1).normal(0, 2, (480, 640))

    assert is_drawn((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 900), (900, 1), (40, 30), (255, 256), (2000, 9)])
@pytest.mark.parametrize("grain", [0, 255])
def test_sketch_of_any_size_is_at_most_600_bytes(size: tuple[int, int], grain: int) -> None:
    pixels = np.random.default_rng(1).integers(0, grain + 1, (*size, 3), dtype=np.uint8)

    data = draw(shrink(pixels, width=size[1], height=size[0])).encode()

    assert len(data) <= 600
    assert Sketch.decode(data).encode() == data


def test_encoding_a_decoded_sketch_returns_the_same_bytes(target: LocalFeatures) -> None:
    assert target.sketch is not None
    data = target.sketch.encode()

    assert Sketch.decode(data).encode() == data


@given(data=st.binary(max_size=32))
def test_hostile_bytes_raise_one_error(data: bytes) -> None:
    try:
        decoded = Sketch.decode(data)
    except InvalidSketch:
        return

    assert decoded.encode() == data


@given(body=st.binary(min_size=9, max_size=9))
def test_any_sketch_can_be_compared(body: bytes) -> None:
    sketch = Sketch.decode(bytes([4, 4, 0, 0, 255, 255, 0, 255]) + body)
    features = LocalFeatures(NOTHING.keypoints, NOTHING.words, NOTHING.mirrored, 90, 40, sketch)

    score = drawn_score(SMALL_COPY, features)

    assert score is not None
    assert 0 <= score <= 100
