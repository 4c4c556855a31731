"""The edits that people make to an image before they share it, in groups, each a function from image to image.

Every edit is deterministic. `other` is an unrelated photograph, for edits that show two.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Apply = Callable[[Image.Image, Image.Image], Image.Image]
_LINES = ("When you find the original", "and it is from 2009", "Nobody: / Absolutely nobody:", "Breaking news at nine")


@dataclass(frozen=True)
class Edit:
    """A named edit of a group."""

    group: str
    name: str
    apply: Apply


def of_one(function: Callable[[Image.Image], Image.Image]) -> Apply:
    return lambda image, _other: function(image)


def chain(*steps: Apply) -> Apply:
    def apply(image: Image.Image, other: Image.Image) -> Image.Image:
        for step in steps:
            image = step(image, other)
        return image

    return apply


# --- photometric ---------------------------------------------------------------


def saved(encoder: str, quality: int) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        stream = BytesIO()
        image.save(stream, encoder, quality=quality)
        return Image.open(stream).convert("RGB")

    return of_one(apply)


def scaled(factor: float) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        size = max(16, round(image.width * factor)), max(16, round(image.height * factor))
        return image.resize(size, Image.Resampling.LANCZOS)

    return of_one(apply)


def levels(curve: Callable[[float], float]) -> Apply:
    table = [round(255 * min(1, max(0, curve(level / 255)))) for level in range(256)]
    return of_one(lambda image: image.point(table * 3))


def coloured(matrix: list[float]) -> Apply:
    return of_one(lambda image: image.convert("RGB", tuple(matrix)))


def noisy(sigma: float) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, dtype=np.float32)
        noise = np.random.default_rng(7).normal(0, sigma, pixels.shape)
        return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))

    return of_one(apply)


def hue_turned(share: float) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([round(level + 255 * share) % 256 for level in range(256)])
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")

    return of_one(apply)


def halftone(image: Image.Image) -> Image.Image:
    return image.convert("1").convert("RGB")


def paletted(colours: int) -> Apply:
    return of_one(lambda image: image.quantize(colours).convert("RGB"))


def vignette(image: Image.Image) -> Image.Image:
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    shade = np.clip(1.15 - 0.5 * (x * x + y * y), 0.1, 1)[..., np.newaxis]
    return Image.fromarray((np.asarray(image) * np.minimum(1, shade)).astype(np.uint8))


# --- crops ---------------------------------------------------------------------


def cropped(removed: float, across: float = 0.5, down: float = 0.5) -> Apply:
    """Remove a share of the area, keeping the shape; `across` and `down` place the rest from 0 to 1."""
    side = math.sqrt(1 - removed)

    def apply(image: Image.Image) -> Image.Image:
        width, height = round(image.width * side), round(image.height * side)
        left, top = round((image.width - width) * across), round((image.height - height) * down)
        return image.crop((left, top, left + width, top + height))

    return of_one(apply)


def part(left: float, top: float, right: float, bottom: float) -> Apply:
    return of_one(
        lambda image: image.crop(
            (
                round(left * image.width),
                round(top * image.height),
                round(right * image.width),
                round(bottom * image.height),
            )
        )
    )


# --- text and overlays ---------------------------------------------------------


def font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(8, size))  # type: ignore[return-value]


def text_over(  # noqa: PLR0913 - the places of a text
    line: str, *, at: float, size: float, fill: str = "white", bar: str | None = None, opacity: float = 1.0
) -> Apply:
    """Write centred text at a height from 0 to 1; `bar` is the colour of a full-width bar behind it."""

    def apply(image: Image.Image) -> Image.Image:
        layer = image.copy()
        draw = ImageDraw.Draw(layer)
        face = font(image.height * size)
        middle = image.width / 2, image.height * at
        if bar:
            half = image.height * size * 0.9
            draw.rectangle((0, middle[1] - half, image.width, middle[1] + half), fill=bar)
        draw.text(middle, line, fill=fill, font=face, anchor="mm", stroke_width=0 if bar else 2, stroke_fill="black")
        return Image.blend(image, layer, opacity)

    return of_one(apply)


def caption_bar(share: float, line: str, *, top: bool = False, fill: str = "white", ink: str = "black") -> Apply:
    """Extend the image by a bar with text, below or above."""

    def apply(image: Image.Image) -> Image.Image:
        tall = round(image.height * share)
        result = Image.new("RGB", (image.width, image.height + tall), fill)
        result.paste(image, (0, tall if top else 0))
        middle = image.width / 2, (0 if top else image.height) + tall / 2
        ImageDraw.Draw(result).text(middle, line, fill=ink, font=font(image.width / 16), anchor="mm")
        return result

    return of_one(apply)


def tiled_watermark(image: Image.Image) -> Image.Image:
    mark = Image.new("L", image.size)
    draw = ImageDraw.Draw(mark)
    step_x, step_y = max(60, image.width // 4), max(30, image.height // 7)
    for row, y in enumerate(range(0, image.height, step_y)):
        for x in range(-step_x, image.width, step_x):
            draw.text((x + row % 2 * step_x // 2, y), "© stock photo", fill=110, font=font(image.width / 28))
    return Image.composite(Image.new("RGB", image.size, "white"), image, mark)


def sticker(share: float, across: float, down: float) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        result = image.copy()
        side = min(image.size) * share
        x, y = (image.width - side) * across, (image.height - side) * down
        draw = ImageDraw.Draw(result)
        draw.ellipse((x, y, x + side, y + side), fill="#ffcc33", outline="#996600", width=max(1, round(side / 30)))
        for eye in (0.3, 0.62):
            draw.ellipse((x + side * eye, y + side * 0.3, x + side * (eye + 0.1), y + side * 0.45), fill="black")
        draw.arc((x + side * 0.25, y + side * 0.35, x + side * 0.75, y + side * 0.8), 20, 160, "black", 3)
        return result

    return of_one(apply)


def boxed(left: float, top: float, right: float, bottom: float) -> Apply:
    """Hide a part under a black box."""

    def apply(image: Image.Image) -> Image.Image:
        result = image.copy()
        corners = left * image.width, top * image.height, right * image.width, bottom * image.height
        ImageDraw.Draw(result).rectangle(corners, fill="black")
        return result

    return of_one(apply)


def play_button(image: Image.Image) -> Image.Image:
    result = image.copy()
    draw = ImageDraw.Draw(result, "RGBA")
    radius, x, y = min(image.size) / 7, image.width / 2, image.height / 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(0, 0, 0, 150))
    size = radius / 2
    draw.polygon([(x - size * 0.7, y - size), (x - size * 0.7, y + size), (x + size, y)], fill="white")
    draw.rectangle((0, image.height - 12, image.width, image.height), fill=(0, 0, 0, 160))
    draw.rectangle((0, image.height - 4, image.width * 0.4, image.height), fill="red")
    return result


def logo(image: Image.Image) -> Image.Image:
    result = image.copy()
    draw = ImageDraw.Draw(result)
    side = min(image.size) / 6
    box = image.width - side * 1.8, side * 0.2, image.width - side * 0.2, side * 0.9
    draw.rounded_rectangle(box, side / 8, fill="#cc0000")
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "NEWS", fill="white", font=font(side / 2), anchor="mm")
    return result


# --- borders -------------------------------------------------------------------


def bordered(across: float, down: float, fill: str = "white") -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        return ImageOps.expand(image, (round(image.width * across), round(image.height * down)), fill)

    return of_one(apply)


def polaroid(image: Image.Image) -> Image.Image:
    edge = round(min(image.size) * 0.06)
    result = Image.new("RGB", (image.width + 2 * edge, image.height + 5 * edge), "#f8f6f0")
    result.paste(image, (edge, edge))
    return result


def blurred_sides(image: Image.Image) -> Image.Image:
    side = max(image.size)
    tall = round(side * 1.25)
    result = image.resize((side, tall)).filter(ImageFilter.GaussianBlur(side / 20))
    result.paste(image, ((side - image.width) // 2, (tall - image.height) // 2))
    return result


def noisy_letterbox(image: Image.Image) -> Image.Image:
    """Frame with black bars that a lossy encoder has made noisy."""
    wide = ImageOps.expand(image, (0, round(image.height * 0.18)), "black")
    return saved("JPEG", 40)(noisy(1.0)(wide, wide), wide)


def rounded_corners(image: Image.Image) -> Image.Image:
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *image.size), min(image.size) / 6, fill=255)
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask)


# --- screenshots, collages and insets ------------------------------------------


def phone_screenshot(image: Image.Image) -> Image.Image:
    """Draw a post in an app for photographs, on a phone of 540 by 1170 pixels."""
    screen = Image.new("RGB", (540, 1170), "white")
    draw = ImageDraw.Draw(screen)
    draw.text((30, 12), "9:41", fill="black", font=font(24))
    draw.rectangle((460, 18, 500, 36), outline="black", width=2)
    draw.rectangle((463, 21, 490, 33), fill="black")
    draw.line((0, 110, 540, 110), fill="#dddddd", width=2)
    draw.text((270, 80), "Explore", fill="black", font=font(30), anchor="mm")
    draw.ellipse((20, 125, 70, 175), fill="#8899cc")
    draw.text((84, 135), "some.user", fill="black", font=font(24))
    shown = image.resize((540, max(16, min(700, round(540 * image.height / image.width)))), Image.Resampling.BICUBIC)
    screen.paste(shown, (0, 190))
    below = 190 + shown.height
    for nth in range(3):
        draw.ellipse((20 + 60 * nth, below + 15, 60 + 60 * nth, below + 55), outline="black", width=3)
    draw.text((20, below + 70), "1,204 likes", fill="black", font=font(24))
    draw.text((20, below + 105), "some.user what a day, who remembers this", fill="black", font=font(22))
    draw.text((20, below + 140), "View all 88 comments", fill="#888888", font=font(22))
    draw.line((0, 1090, 540, 1090), fill="#dddddd", width=2)
    for nth in range(5):
        draw.rectangle((40 + 105 * nth, 1110, 75 + 105 * nth, 1145), outline="black", width=3)
    return screen


def desktop_screenshot(image: Image.Image) -> Image.Image:
    """Draw a web page of 1280 by 800 pixels with the image in its text."""
    screen = Image.new("RGB", (1280, 800), "white")
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 1280, 80), fill="#dee1e6")
    draw.rounded_rectangle((150, 44, 1100, 74), 14, fill="white")
    draw.text((170, 48), "https://blog.example/2024/05/summer", fill="#333333", font=font(18))
    draw.text((200, 110), "Our summer in photographs", fill="black", font=font(40))
    shown = ImageOps.contain(image, (560, 430), Image.Resampling.BICUBIC)
    screen.paste(shown, (200, 180))
    for nth in range(14):
        draw.text(
            (800, 190 + 30 * nth), "Lorem ipsum dolor sit amet, consectetur"[: 28 + nth % 4 * 3], "#222222", font(18)
        )
    for nth in range(4):
        draw.text(
            (200, 640 + 30 * nth),
            "Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris",
            "#222222",
            font(18),
        )
    return screen


def post_screenshot(image: Image.Image) -> Image.Image:
    """Draw a dark post of short text with the image."""
    shown = ImageOps.contain(image, (500, 420), Image.Resampling.BICUBIC)
    screen = Image.new("RGB", (600, shown.height + 330), "#15202b")
    draw = ImageDraw.Draw(screen)
    draw.ellipse((20, 20, 76, 76), fill="#4477aa")
    draw.text((90, 22), "A. Person", fill="white", font=font(22))
    draw.text((90, 50), "@person", fill="#8899a6", font=font(20))
    draw.text((20, 100), "I took this photograph years ago and it keeps", fill="white", font=font(24))
    draw.text((20, 135), "returning. Here is the story behind it.", fill="white", font=font(24))
    screen.paste(shown, (50, 185))
    draw.text((20, shown.height + 205), "9:41 AM - May 4, 2024", fill="#8899a6", font=font(20))
    draw.text((20, shown.height + 250), "312 Reposts   4,711 Likes", fill="white", font=font(22))
    return screen


def beside(image: Image.Image, other: Image.Image) -> Image.Image:
    """Show both images side by side, the other one on the left."""
    tall = image.height
    left = other.resize((max(16, round(other.width * tall / other.height)), tall))
    result = Image.new("RGB", (left.width + image.width + 6, tall), "white")
    result.paste(left)
    result.paste(image, (left.width + 6, 0))
    return result


def collage(image: Image.Image, other: Image.Image) -> Image.Image:
    """Four images in a square, each cut to a square; the image is at the lower left."""
    side = 300
    squares = [
        ImageOps.fit(each, (side, side)) for each in (other, ImageOps.mirror(other), image, ImageOps.flip(other))
    ]
    result = Image.new("RGB", (2 * side + 8, 2 * side + 8), "white")
    for nth, square in enumerate(squares):
        result.paste(square, (nth % 2 * (side + 8), nth // 2 * (side + 8)))
    return result


def inset(share: float) -> Apply:
    """Put the image into a corner of another; `share` is its share of the other's width."""

    def apply(image: Image.Image, other: Image.Image) -> Image.Image:
        result = (
            ImageOps.contain(other, (1000, 1000))
            if max(other.size) > 1000
            else other.resize((1000, max(400, round(1000 * other.height / other.width))))
        )
        shown = ImageOps.contain(image, (round(result.width * share), round(result.height * 0.8)))
        result.paste(shown, (result.width - shown.width - 20, result.height - shown.height - 20))
        return result

    return apply


# --- geometry ------------------------------------------------------------------


def turned(degrees: float, *, inside: bool) -> Apply:
    """Rotate; `inside` cuts to the largest rectangle of the same shape, otherwise black corners appear."""

    def apply(image: Image.Image) -> Image.Image:
        result = image.rotate(degrees, Image.Resampling.BICUBIC, expand=not inside)
        if not inside:
            return result
        angle = math.radians(abs(degrees))
        ratio = max(image.size) / min(image.size)
        keep = 1 / (math.cos(angle) + ratio * math.sin(angle))
        return cropped(1 - keep * keep)(result, result)

    return of_one(apply)


def transposed(*methods: Image.Transpose) -> Apply:
    def apply(image: Image.Image) -> Image.Image:
        for method in methods:
            image = image.transpose(method)
        return image

    return of_one(apply)


def warped(corners: list[tuple[float, float]]) -> Apply:
    """Move the corners (upper left, upper right, lower right, lower left) to these places, from 0 to 1."""

    def apply(image: Image.Image) -> Image.Image:
        size = np.array(image.size, np.float32)
        square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * size
        target = np.array(corners, np.float32) * size
        matrix = cv2.getPerspectiveTransform(square, target)
        return Image.fromarray(
            cv2.warpPerspective(np.asarray(image), matrix, image.size, flags=cv2.INTER_CUBIC, borderValue=(40, 40, 40))
        )

    return of_one(apply)


def stretched(across: float, down: float) -> Apply:
    return of_one(
        lambda image: image.resize((round(image.width * across), round(image.height * down)), Image.Resampling.BICUBIC)
    )


def barrel(strength: float) -> Apply:
    """Distort as a wide lens does."""

    def apply(image: Image.Image) -> Image.Image:
        y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j].astype(np.float32)
        factor = (1 + strength * (x * x + y * y)) / (1 + strength)
        across, down = (x * factor + 1) * (image.width - 1) / 2, (y * factor + 1) * (image.height - 1) / 2
        pixels: NDArray[np.uint8] = cv2.remap(
            np.asarray(image), across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )  # type: ignore[assignment]
        return Image.fromarray(pixels)

    return of_one(apply)


_TRANSPOSE = Image.Transpose
_SEPIA = [0.393, 0.769, 0.189, 0, 0.349, 0.686, 0.168, 0, 0.272, 0.534, 0.131, 0]
_WARM = [1.15, 0, 0, 8, 0, 1.0, 0, 2, 0, 0, 0.8, 0]
_GREY = [0.299, 0.587, 0.114, 0] * 3
_PERSPECTIVE = [(0.06, 0.04), (0.97, 0.0), (1.0, 0.95), (0.0, 1.0)]
_OBLIQUE = [(0.16, 0.08), (0.96, 0.0), (1.0, 1.0), (0.08, 0.86)]

_PHOTOMETRIC: dict[str, Apply] = {
    "JPEG 80": saved("JPEG", 80),
    "JPEG 50": saved("JPEG", 50),
    "JPEG 30": saved("JPEG", 30),
    "JPEG 15": saved("JPEG", 15),
    "JPEG 8": saved("JPEG", 8),
    "WebP 50": saved("WEBP", 50),
    "WebP 10": saved("WEBP", 10),
    "half size": scaled(0.5),
    "quarter size": scaled(0.25),
    "twice the size": scaled(2.0),
    "blur of 1 px": of_one(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "blur of 2 px": of_one(lambda image: image.filter(ImageFilter.GaussianBlur(2))),
    "blur of 4 px": of_one(lambda image: image.filter(ImageFilter.GaussianBlur(4))),
    "sharpened": of_one(lambda image: image.filter(ImageFilter.UnsharpMask(3, 180, 2))),
    "median of 5 px": of_one(lambda image: image.filter(ImageFilter.MedianFilter(5))),
    "noise of 10": noisy(10),
    "noise of 25": noisy(25),
    "brighter": levels(lambda level: level * 1.4),
    "darker": levels(lambda level: level * 0.5),
    "more contrast": levels(lambda level: (level - 0.5) * 1.6 + 0.5),
    "less contrast": levels(lambda level: (level - 0.5) * 0.5 + 0.5),
    "gamma 0.6": levels(lambda level: level**0.6),
    "gamma 1.8": levels(lambda level: level**1.8),
    "grey": coloured(_GREY),
    "sepia": coloured(_SEPIA),
    "warm": coloured(_WARM),
    "saturated": of_one(lambda image: ImageEnhance.Color(image).enhance(2.2)),
    "hue turned by 60°": hue_turned(1 / 6),
    "equalized": of_one(ImageOps.equalize),
    "posterized to 3 bits": of_one(lambda image: ImageOps.posterize(image, 3)),
    "16 colours": paletted(16),
    "halftone": of_one(halftone),
    "negative": of_one(ImageOps.invert),
    "vignette": of_one(vignette),
}
_CROPS: dict[str, Apply] = {
    "2 % centre": cropped(0.02),
    "10 % centre": cropped(0.1),
    "25 % centre": cropped(0.25),
    "40 % centre": cropped(0.4),
    "60 % centre": cropped(0.6),
    "10 % from a corner": cropped(0.1, 0, 0),
    "20 % from a corner": cropped(0.2, 1, 0),
    "30 % off-centre": cropped(0.3, 0.2, 0.9),
    "45 % from a corner": cropped(0.45, 1, 1),
    "60 % off-centre": cropped(0.6, 0.8, 0.2),
    "left 60 %": part(0, 0, 0.6, 1),
    "lower half": part(0, 0.5, 1, 1),
    "square": of_one(lambda image: ImageOps.fit(image, (min(image.size), min(image.size)))),
    "upright 9:16": of_one(lambda image: ImageOps.fit(image, (round(image.height * 9 / 16), image.height))),
}
_TEXT: dict[str, Apply] = {
    "caption over the foot": text_over(_LINES[3], at=0.9, size=0.06, bar="black"),
    "caption over the head": text_over(_LINES[0], at=0.08, size=0.06, bar="white", fill="black"),
    "caption below": caption_bar(0.18, _LINES[1]),
    "caption above": caption_bar(0.22, _LINES[2], top=True),
    "caption below, dark": caption_bar(0.3, _LINES[3], fill="#111111", ink="white"),
    "meme": chain(text_over("ONE DOES NOT", at=0.1, size=0.1), text_over("SIMPLY REPOST", at=0.9, size=0.1)),
    "large text": text_over("SALE", at=0.5, size=0.35),
    "watermark": text_over("© Example", at=0.5, size=0.16, opacity=0.4),
    "tiled watermark": of_one(tiled_watermark),
    "logo": of_one(logo),
    "sticker": sticker(0.35, 0.8, 0.7),
    "two stickers": chain(sticker(0.4, 0.1, 0.2), sticker(0.3, 0.9, 0.9)),
    "black box": boxed(0.3, 0.25, 0.7, 0.6),
    "play button": of_one(play_button),
}
_BORDERS: dict[str, Apply] = {
    "white border of 8 %": bordered(0.08, 0.08),
    "black border of 25 %": bordered(0.25, 0.25, "black"),
    "letterbox": bordered(0, 0.18, "black"),
    "noisy letterbox": of_one(noisy_letterbox),
    "pillarbox": bordered(0.3, 0, "black"),
    "instant photograph": of_one(polaroid),
    "blurred sides": of_one(blurred_sides),
    "rounded corners": of_one(rounded_corners),
}
_SCREENSHOTS: dict[str, Apply] = {
    "phone": of_one(phone_screenshot),
    "web page": of_one(desktop_screenshot),
    "post": of_one(post_screenshot),
    "side by side": beside,
    "collage of four": collage,
    "inset of 45 %": inset(0.45),
    "inset of 30 %": inset(0.3),
}
_GEOMETRY: dict[str, Apply] = {
    "mirrored": transposed(_TRANSPOSE.FLIP_LEFT_RIGHT),
    "upside down": transposed(_TRANSPOSE.ROTATE_180),
    "rotated by 90°": transposed(_TRANSPOSE.ROTATE_90),
    "rotated by 270°": transposed(_TRANSPOSE.ROTATE_270),
    "mirrored, rotated by 90°": transposed(_TRANSPOSE.TRANSPOSE),
    "rotated by 2°": turned(2, inside=True),
    "rotated by 5°": turned(5, inside=True),
    "rotated by 10°, black corners": turned(10, inside=False),
    "rotated by 20°": turned(20, inside=True),
    "rotated by 45°, black corners": turned(45, inside=False),
    "perspective": warped(_PERSPECTIVE),
    "oblique": warped(_OBLIQUE),
    "squeezed by a fifth": stretched(0.8, 1.0),
    "squeezed by a third": stretched(0.67, 1.0),
    "flattened by a fifth": stretched(1.0, 0.8),
    "wide lens": barrel(0.15),
}
_COMBINED: dict[str, Apply] = {
    "crop, caption, phone": chain(cropped(0.25, 0.2, 0.3), caption_bar(0.2, _LINES[0]), of_one(phone_screenshot)),
    "crop, half size, JPEG 30": chain(cropped(0.3, 0.7, 0.4), scaled(0.5), saved("JPEG", 30)),
    "mirrored, crop, border": chain(transposed(_TRANSPOSE.FLIP_LEFT_RIGHT), cropped(0.2, 0.1, 0.5), bordered(0.1, 0.1)),
    "meme, JPEG 20": chain(
        text_over("TOP TEXT", at=0.1, size=0.12), text_over("BOTTOM TEXT", at=0.9, size=0.12), saved("JPEG", 20)
    ),
    "rotated, crop, warm": chain(turned(4, inside=True), cropped(0.15, 0.9, 0.1), coloured(_WARM)),
    "phone, mirrored, rotated": chain(
        of_one(phone_screenshot), transposed(_TRANSPOSE.FLIP_LEFT_RIGHT, _TRANSPOSE.ROTATE_90)
    ),
    "square, filter, logo": chain(
        of_one(lambda image: ImageOps.fit(image, (min(image.size), min(image.size)))),
        coloured(_SEPIA),
        of_one(logo),
        saved("JPEG", 50),
    ),
    "post, JPEG 40, half size": chain(of_one(post_screenshot), saved("JPEG", 40), scaled(0.6)),
    "photograph of a screen": chain(of_one(desktop_screenshot), warped(_OBLIQUE), noisy(6), saved("JPEG", 60)),
}

GROUPS: dict[str, dict[str, Apply]] = {
    "photometric": _PHOTOMETRIC,
    "crops": _CROPS,
    "text, overlays": _TEXT,
    "borders": _BORDERS,
    "screenshots, collages": _SCREENSHOTS,
    "geometry": _GEOMETRY,
    "combined": _COMBINED,
}

EDITS: tuple[Edit, ...] = tuple(
    Edit(group, name, apply) for group, edits in GROUPS.items() for name, apply in edits.items()
)
