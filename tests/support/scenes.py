"""Photographs as people pass them on: cropped, captioned, in the screenshot of a phone; and pages of text."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
PHONE = (540, 1170)


def textured(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Draw an image with as much texture as a photograph, unlike those of other seeds."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(160):
        x, y = (int(random.integers(0, side)) for side in size)
        wide, tall = random.integers(8, 90, 2).tolist()
        colour = tuple(random.integers(0, 256, 3).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + wide, y + tall), fill=colour)
    return image


def cropped(image: Image.Image) -> Image.Image:
    """Return the middle of an image, off centre: two thirds of its area."""
    width, height = image.size
    return image.crop((round(0.1 * width), round(0.05 * height), round(0.92 * width), round(0.86 * height)))


def captioned(image: Image.Image) -> Image.Image:
    """Return the image with a line of text below it."""
    result = Image.new("RGB", (image.width, image.height + image.height // 4), "white")
    result.paste(image, (0, 0))
    ImageDraw.Draw(result).text((20, image.height + 20), "when it is Monday again", "black", font_size=30)
    return result


def phone_screenshot(image: Image.Image) -> Image.Image:
    """Return a screenshot of an app that shows the image between its bars."""
    screen = Image.new("RGB", PHONE, "#101418")
    shown = image.resize((PHONE[0], PHONE[0] * image.height // image.width), Image.Resampling.LANCZOS)
    screen.paste(shown, (0, 180))
    draw = ImageDraw.Draw(screen)
    draw.text((20, 20), "12:04", "white", font_size=24)
    draw.text((20, 100), "somebody", "white", font_size=32)
    for nth, line in enumerate(("128 likes", "View all 14 comments", "2 hours ago")):
        draw.text((20, 240 + shown.height + 50 * nth), line, "#c0c8d0", font_size=28)
    return screen


def passed_on(image: Image.Image) -> Image.Image:
    """Return a screenshot of the cropped and captioned image."""
    return phone_screenshot(captioned(cropped(image)))


def page(seed: int) -> Image.Image:
    """Draw lines of words of random lengths."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(image)
    for y in range(60, 820, 18):
        words = ["abcdefghijkl"[: random.integers(2, 12)] for _ in range(random.integers(3, 10))]
        draw.text((60, y), " ".join(words), "black", font_size=12)
    return image


def ball(seed: int, *, side: int = 400) -> Image.Image:
    """Draw a shaded ball on white, of one colour under one light, like the photograph of a fruit."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside = np.clip(1 - x**2 - y**2, 0, 1)
    light = np.array((random.normal(0, 0.5), -abs(random.normal(0, 0.6)), 1.0))
    lit = np.clip((x * light[0] + y * light[1] + np.sqrt(inside)) / np.linalg.norm(light), 0, 1)
    colour, ambient, gloss = random.integers(40, 256, 3), random.uniform(0.1, 0.5), random.uniform(0, 0.8)
    shades = colour * (ambient + (1 - ambient) * lit)[..., None] + 255 * gloss * (lit**30)[..., None]
    shades[inside == 0] = 255
    return Image.fromarray(shades.clip(0, 255).astype(np.uint8))
