"""Images of flat content by kind, drawn with a seed or read from real files: pages, icons, clip art, screens, charts.

Real files are read from a folder, with what its subfolders `pdf`, `icons` and `stamps` contain. `python
benchmarks/quality.py --help` names their sources. Drawn kinds need no files.
"""

import random
from collections.abc import Callable
from pathlib import Path

from parts.edits import font, tiled_watermark
from PIL import Image, ImageDraw, ImageOps

_LINES = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore",
    "magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat",
    "duis aute irure in reprehenderit voluptate velit esse cillum eu fugiat nulla pariatur excepteur sint occaecat",
    "cupidatat non proident sunt culpa qui officia deserunt mollit anim id est laborum a vel ac at nam per pro si",
    "tum ubi vix hic",
)
_WORDS = " ".join(_LINES).split()

_INK = ("#222222", "#1a1a2e", "#000000", "#333344")
_ACCENTS = (
    "#2a9d8f",
    "#e76f51",
    "#264653",
    "#e9c46a",
    "#4477aa",
    "#cc3311",
    "#44cc11",
    "#007ec6",
    "#9f9f9f",
    "#fe7d37",
)


def sentence(choose: random.Random, words: int) -> str:
    return " ".join(choose.choice(_WORDS) for _ in range(words))


def text_page(seed: int) -> Image.Image:
    """Draw a page of justified-looking paragraphs, 620 by 877 pixels."""
    choose = random.Random(seed)
    page = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(page)
    size = choose.choice((11, 12, 13, 14))
    y = choose.randint(50, 90)
    draw.text((60, y), sentence(choose, 4).title(), _INK[0], font(choose.choice((18, 22, 26))))
    y += 50
    while y < 800:
        for _ in range(choose.randint(2, 9)):
            line = sentence(choose, 14)
            while draw.textlength(line, font(size)) > 500:
                line = line.rsplit(" ", 1)[0]
            draw.text((60, y), line, _INK[0], font(size))
            y += round(size * 1.4)
            if y > 800:
                break
        y += size
    return page


def invoice(seed: int) -> Image.Image:
    """Draw an invoice of one of six templates."""
    choose = random.Random(seed)
    template = random.Random(seed % 6)
    accent, left = template.choice(_ACCENTS), template.choice((40, 60, 80))
    page = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 620, template.choice((20, 60, 90))), fill=accent)
    draw.text((left, 110), "INVOICE", _INK[0], font(30))
    draw.text((400, 110), f"No. {choose.randint(1000, 99999)}", _INK[0], font(16))
    for nth in range(4):
        draw.text((left, 170 + 20 * nth), sentence(choose, 3).title(), _INK[0], font(13))
    draw.rectangle((left, 290, 580, 315), fill=accent)
    rows = choose.randint(2, 14)
    for nth in range(rows):
        y = 325 + 26 * nth
        draw.text((left + 5, y), sentence(choose, choose.randint(2, 5)), _INK[0], font(13))
        draw.text((500, y), f"{choose.random() * 900:.2f}", _INK[0], font(13))
        draw.line((left, y + 21, 580, y + 21), fill="#dddddd")
    draw.text((430, 345 + 26 * rows), f"Total {choose.random() * 5000:.2f}", _INK[0], font(18))
    draw.text((left, 820), sentence(choose, 8), "#777777", font(11))
    return page


def badge(seed: int) -> Image.Image:
    """Draw a badge of a build or a version, as code repositories show."""
    choose = random.Random(seed)
    label = choose.choice(
        ("build", "coverage", "version", "license", "downloads", "docs", "tests", "chat", "python", "npm")
    )
    value = choose.choice(
        (
            "passing",
            "failing",
            f"{choose.randint(1, 100)}%",
            f"v{choose.randint(0, 9)}.{choose.randint(0, 30)}",
            "MIT",
            "BSD",
        )
    )
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    one, other = (round(draw.textlength(text, font(22))) + 24 for text in (label, value))
    result = Image.new("RGB", (one + other, 40), "#555555")
    draw = ImageDraw.Draw(result)
    draw.rectangle((one, 0, one + other, 40), fill=choose.choice(_ACCENTS))
    draw.text((one / 2, 20), label, "white", font(22), anchor="mm")
    draw.text((one + other / 2, 20), value, "white", font(22), anchor="mm")
    return result


def app_screen(seed: int) -> Image.Image:
    """Draw a list, a conversation or a form of an app, 540 by 1170 pixels."""
    choose = random.Random(seed)
    dark = choose.random() < 0.3
    ground, ink = ("#111418", "white") if dark else ("white", "#222222")
    screen = Image.new("RGB", (540, 1170), ground)
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 540, 110), fill=choose.choice((ground, *_ACCENTS[:5])))
    draw.text((30, 12), f"{choose.randint(1, 12)}:{choose.randint(10, 59)}", ink, font(22))
    draw.text((270, 80), sentence(choose, 2).title(), ink, font(28), anchor="mm")
    kind, y = choose.choice(("list", "conversation", "form")), 130
    while y < 1050:
        if kind == "list":
            draw.ellipse((20, y, 70, y + 50), fill=choose.choice(_ACCENTS))
            draw.text((90, y), sentence(choose, choose.randint(1, 3)).title(), ink, font(22))
            draw.text((90, y + 28), sentence(choose, choose.randint(2, 6)), "#888888", font(18))
            y += 80
        elif kind == "conversation":
            tall, wide, mine = choose.randint(40, 160), choose.randint(150, 380), choose.random() < 0.5
            left = 520 - wide if mine else 20
            draw.rounded_rectangle((left, y, left + wide, y + tall), 16, fill="#2a7de1" if mine else "#d8dbe0")
            draw.text((left + 12, y + 10), sentence(choose, wide // 70), "white" if mine else "black", font(18))
            y += tall + 14
        else:
            draw.text((30, y), sentence(choose, 2).title(), ink, font(18))
            draw.rounded_rectangle((30, y + 26, 510, y + 76), 8, outline="#999999", width=2)
            draw.text((44, y + 38), sentence(choose, choose.randint(0, 4)), ink, font(18))
            y += 110
    draw.line((0, 1090, 540, 1090), fill="#cccccc", width=2)
    for nth in range(5):
        draw.ellipse((40 + 105 * nth, 1110, 75 + 105 * nth, 1145), outline=ink, width=3)
    return screen


def chart(seed: int) -> Image.Image:
    """Draw a chart of lines, bars or points with axes, 640 by 480 pixels."""
    choose = random.Random(seed)
    result = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(result)
    for nth in range(6):
        y = 60 + 70 * nth
        draw.line((80, y, 600, y), fill="#dddddd")
        draw.text((70, y), str((5 - nth) * choose.choice((10, 20, 25))), _INK[0], font(12), anchor="rm")
        draw.text((80 + 104 * nth, 425), str(2015 + nth), _INK[0], font(12), anchor="mt")
    kind = choose.choice(("lines", "bars", "points"))
    for series in range(choose.randint(1, 4)):
        colour, level = choose.choice(_ACCENTS), choose.uniform(100, 380)
        points = []
        for nth in range(14):
            level = min(405, max(65, level + choose.gauss(0, 45)))
            points.append((90 + 37 * nth, level))
        if kind == "lines":
            draw.line(points, fill=colour, width=3)
        elif kind == "points":
            for x, y in points:
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
        else:
            for x, y in points:
                draw.rectangle((x + 8 * series, y, x + 8 * series + 7, 410), fill=colour)
    draw.rectangle((80, 60, 600, 410), outline="black")
    draw.text((320, 30), sentence(choose, 3).title(), _INK[0], font(18), anchor="mm")
    return result


DRAWN: dict[str, Callable[[int], Image.Image]] = {
    "text pages": text_page,
    "invoices": invoice,
    "badges": badge,
    "app screenshots": app_screen,
    "charts": chart,
}


def ramp(seed: int) -> Image.Image:
    """Draw a smooth gradient of two colours, linear or round."""
    choose = random.Random(seed)
    first, second = (tuple(choose.randint(0, 255) for _ in range(3)) for _ in range(2))
    shape = (
        Image.radial_gradient("L")
        if seed % 3 == 0
        else Image.linear_gradient("L").rotate(choose.randint(0, 359), Image.Resampling.BICUBIC, expand=True)
    )
    side = min(shape.size)
    shape = ImageOps.fit(shape, (round(side * 0.7), round(side * 0.7))).crop((30, 30, 150, 150))
    shape = shape.resize((choose.randint(200, 600), choose.randint(200, 600)), Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", shape.size, first), Image.new("RGB", shape.size, second), shape)


def watermarked(photos: list[Path]) -> list[Image.Image]:
    return [tiled_watermark(Image.open(path).convert("RGB")) for path in photos]


def icons(folder: Path) -> list[Image.Image]:
    """Return icons on white, in colour."""
    return [on_white(path) for path in sorted(folder.rglob("*.png")) if path.parent.name == "color"]


def stamps(folder: Path) -> list[Image.Image]:
    """Return clip art on white, each at most 500 pixels a side."""
    return [ImageOps.contain(on_white(path), (500, 500)) for path in sorted(folder.rglob("*.png"))]


def on_white(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (1000, 1000))
        clear = image.convert("RGBA")
    result = Image.new("RGBA", clear.size, "white")
    result.alpha_composite(clear)
    return result.convert("RGB")


def documents(folder: Path, *, pages: int) -> list[list[Image.Image]]:
    """Return the first pages of each PDF, about 800 pixels tall; damaged files are omitted."""
    import pypdfium2  # noqa: PLC0415 - only this kind needs it

    result = []
    for path in sorted(folder.rglob("*.pdf")):
        try:
            document = list(pypdfium2.PdfDocument(path))[:pages]
            fitting = [page for page in document if all(50 < side < 5000 for side in page.get_size())]
            if fitting[:1] == document[:1]:
                result.append([page.render(scale=800 / page.get_height()).to_pil().convert("RGB") for page in fitting])
        except (pypdfium2.PdfiumError, ValueError):
            continue
    return [each for each in result if each]
