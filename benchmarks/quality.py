"""Which edits of an image are recognised, and which unrelated images are mistaken for it, by mode and beside peers.

    PYTHONPATH=. python benchmarks/quality.py [--quick] [--photographs N] [--distractors N] [--per-kind N]
                                 [--photos FOLDER] [--real FOLDER] [--part edits|contents]

A hundred edits of each photograph (`parts/edits.py`) are searched for in a collection in memory. It has the original
photographs, and synthetic distractors (`parts/feature_index.py`). Recall@1 counts queries whose original is first. At a
false-positive rate, the threshold of the score is that which 1 in 100,000 pairs of a query and an unrelated image
exceeds. At the shipped cutoff, the service's own decides. Peers search only the photographs: their fingerprints cannot
be made without pixels.

False pairs by content: each image of a kind is searched for among the others of its kind. The share of pairs that match
is printed, with the recall of copies: JPEG of quality 80, and half the size. 180 images are 32,220 pairs: none that
matches shows a rate below 1e-4, with a confidence of 95 %. `--real` has the real files:

- `pdf`: the test files of pdf.js and pdfminer (Debian: `apt-get source pdf.js pdfminer`);
- `icons`: the folder `128` of the npm package cryptocurrency-icons;
- `stamps`: the folder `stamps` of the Debian package tuxpaint-stamps-default.

The cost is CPU time, as multiples of Pillow's decode of the same files, alternating in one process. No measured image
trained the centres or was used to choose a cutoff (`parts/split.py`).
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from parts import contents
from parts.edits import EDITS, GROUPS, desktop_screenshot, phone_screenshot
from parts.feature_index import Collection, Stored, collect, signatures, store
from parts.modes import Query, by_features, by_signature, search
from parts.peer_hashes import PEERS
from parts.split import measured, photographs, tuned
from PIL import Image

from common.images.decode import decode
from common.images.local_features.extraction import extract
from common.images.signing import sign_all
from common.local_search import VERIFIED
from common.modes import MODES

ROOT = Path(__file__).resolve().parents[1]
RATE = 1e-5
SEED = 1
FEW = 1_000
"""Distractors of the smaller collection, in which candidates are counted too."""
PAGES = 4
"""Pages of a document, at most, that are compared with those of all documents."""
SYSTEMS = (*MODES, "local features")


@dataclass
class Tally:
    """The results of one system: a row for each query, and the scores of unrelated images."""

    edits: list[int] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    is_first: list[bool] = field(default_factory=list)
    is_match: list[bool] = field(default_factory=list)
    unrelated: list[float] = field(default_factory=list)
    false_matches: int = 0
    pairs: int = 0

    def threshold(self) -> float:
        """Return the score that at most RATE of the unrelated pairs reach."""
        allowed = int(RATE * self.pairs)
        ordered = np.sort(self.unrelated)[::-1]
        return float(ordered[allowed]) if len(ordered) > allowed else 0.0

    def recall(self, *, at_cutoff: bool) -> dict[str, float]:
        """Return the recall in percent of each group, and the mean over all edits."""
        hits = np.array(self.is_first) & (
            np.array(self.is_match) if at_cutoff else np.array(self.own) > self.threshold()
        )
        per_edit = [100 * float(hits[np.array(self.edits) == nth].mean()) for nth in range(len(EDITS))]
        groups = {
            group: float(np.mean([share for share, edit in zip(per_edit, EDITS, strict=True) if edit.group == group]))
            for group in GROUPS
        }
        return {**groups, "mean": float(np.mean(per_edit))}

    def worst(self) -> str:
        """Return the edits with the lowest recall at the false-positive rate."""
        hits = np.array(self.is_first) & (np.array(self.own) > self.threshold())
        shares = sorted((100 * hits[np.array(self.edits) == nth].mean(), edit.name) for nth, edit in enumerate(EDITS))
        return ", ".join(f"{name} {share:.0f}" for share, name in shares[:8])


def main(options: argparse.Namespace) -> None:
    paths = photographs(options.photos)
    chosen = list(measured(paths))
    targets = [read(path) for path in chosen[:: max(1, len(chosen) // options.photographs)][: options.photographs]]
    others = [read(path) for path in tuned(paths)]
    print(
        f"{len(targets)} of {len(chosen)} measured photographs, {len(EDITS)} edits, {options.distractors:,} distractors"
    )
    if options.part != "contents":
        cost(chosen[:40])
        edits(options, targets, others)
    if options.part != "edits":
        measure_contents(options, [read(path) for path in chosen[: options.per_kind]])


def edits(options: argparse.Namespace, targets: Sequence[Image.Image], others: Sequence[Image.Image]) -> None:
    started = time.process_time()
    stored = [store(np.asarray(image)) for image in targets]
    collection = collect(
        np.random.default_rng(SEED), stored, [np.asarray(image) for image in others], options.distractors
    )
    sizes(stored)
    tallies, lost = measure_edits(targets, others, collection)
    report(tallies)
    for among, share in lost.items():
        print(f"local features: {100 * share:.2f} % of the originals are not candidates among {among:,} images")
    print(f"CPU: {time.process_time() - started:.0f} s")


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


# --- cost ----------------------------------------------------------------------


def cost(paths: Sequence[Path], rounds: int = 5) -> None:
    files = [path.read_bytes() for path in paths]
    steps: dict[str, Callable[[bytes], object]] = {
        "Pillow's decode": decode_only,
        "add, without local features": add_without,
        "add, with local features": add_with,
        "query, without local features": add_without,
        "query, local features only": query_only,
    }
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, work in steps.items():
            before = time.process_time()
            for data in files:
                work(data)
            best[name] = min(best[name], time.process_time() - before)
    unit = best["Pillow's decode"]
    print(f"\nCPU, as multiples of Pillow's decode ({1000 * unit / len(files):.2f} ms), least of {rounds} rounds")
    for name, spent in best.items():
        print(f"  {name:<32} {spent / unit:6.2f}")


def decode_only(data: bytes) -> object:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def add_without(data: bytes) -> object:
    return sign_all(decode(data).pixels)


def add_with(data: bytes) -> object:
    image = decode(data)
    return sign_all(image.pixels), extract(image.pixels, width=image.width, height=image.height).encode()


def query_only(data: bytes) -> object:
    return Query(decode(data).pixels).local()


def sizes(stored: Sequence[Stored]) -> None:
    counts = [len(one.features.words) for one in stored]
    print(
        f"bytes per image: {np.mean([one.bytes for one in stored]):.0f} with signatures, and"
        f" {4 * np.mean(counts):.0f} of words; {np.mean(counts):.0f} features (fewest {min(counts)});"
        f" {100 * np.mean([one.features.are_few for one in stored]):.1f} % with few features"
    )


# --- edits ---------------------------------------------------------------------


def measure_edits(
    targets: Sequence[Image.Image], others: Sequence[Image.Image], collection: Collection
) -> tuple[dict[str, Tally], dict[int, float]]:
    """Return the results of each system, and the share of originals that are not candidates, by size of collection."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    fingerprints = {name: np.array([work(image) for image in targets]) for name, work in PEERS.items()}
    missed: dict[int, list[bool]] = {min(len(targets) + FEW, collection.count): [], collection.count: []}
    for row, image in enumerate(targets):
        for nth, edit in enumerate(EDITS):
            edited = edit.apply(image, others[row % len(others)]).convert("RGB")
            query = Query(np.asarray(edited))
            modes, words = search(query, collection)
            for among, results in missed.items():
                results.append(row not in collection.candidates(words, VERIFIED, among=among))
            for name, scores in modes.items():
                record(tallies[name], nth, row, scores, collection.count - 1)
            for name, work in PEERS.items():
                apart = np.count_nonzero(fingerprints[name] != work(edited), axis=1)
                similar = dict(enumerate((100 - 100 * apart / fingerprints[name].shape[1]).tolist()))
                record(
                    tallies[name], nth, row, {each: (score, False) for each, score in similar.items()}, len(targets) - 1
                )
        if sys.stdout.isatty():
            print(f"{row + 1}/{len(targets)}", end="\r", flush=True)
    return dict(tallies), {among: float(np.mean(results)) for among, results in missed.items()}


def record(tally: Tally, edit: int, row: int, scores: dict[int, tuple[float, bool]], unrelated: int) -> None:
    own, is_match = scores.get(row, (0.0, False))
    others = [score for other, (score, _) in scores.items() if other != row]
    tally.edits.append(edit)
    tally.own.append(own)
    tally.is_match.append(is_match)
    tally.is_first.append(own > 0 and own > max(others, default=0))
    tally.unrelated += others
    tally.false_matches += sum(matched for other, (_, matched) in scores.items() if other != row)
    tally.pairs += unrelated


def report(tallies: dict[str, Tally]) -> None:
    print(f"\nrecall@1 in percent at a false-positive rate of {RATE:g}, and at the shipped cutoff")
    print(f"  {'':<24}" + "".join(f"{name:>16}" for name in tallies))
    rates = {name: tally.recall(at_cutoff=False) for name, tally in tallies.items()}
    for group in (*GROUPS, "mean"):
        print(f"  {group:<24}" + "".join(f"{rates[name][group]:16.1f}" for name in tallies))
    print(f"  {'score at that rate':<24}" + "".join(f"{tally.threshold():16.1f}" for tally in tallies.values()))
    cutoff = {name: tallies[name].recall(at_cutoff=True)["mean"] for name in SYSTEMS}
    print(f"  {'mean at the cutoff':<24}" + "".join(f"{cutoff[name]:16.1f}" for name in SYSTEMS))
    wrong = {name: tallies[name].false_matches / tallies[name].pairs for name in SYSTEMS}
    print(f"  {'false pairs':<24}" + "".join(f"{wrong[name]:16.1e}" for name in SYSTEMS))
    for name in SYSTEMS:
        print(f"  worst, {name}: {tallies[name].worst()}")


# --- content -------------------------------------------------------------------


def measure_contents(options: argparse.Namespace, photos: Sequence[Image.Image]) -> None:
    print("\nfalse pairs and recall of copies in percent (JPEG 80, half size) by content, at the shipped cutoffs")
    heads = "".join(f"{name:>30}" for name in ("fast", "thorough"))
    print(f"  {'':<34}{'images':>7}{'pairs':>8}{'few':>5}{heads}")
    for kind, images in kinds(options, photos):
        measure_kind(kind, images)
    if options.real and (options.real / "pdf").is_dir():
        measure_documents(measured(contents.documents(options.real / "pdf", pages=PAGES)), options.per_kind)


def measure_documents(documents: Sequence[list[Image.Image]], count: int) -> None:
    """Print one line of pages: those of one document are on one side of the split, and no false pairs of each other."""
    pages = [(page, number) for number, document in enumerate(documents) for page in document]
    chosen = pages[:: max(1, len(pages) // count)][:count]
    measure_kind("real: pdf", [page for page, _ in chosen], [number for _, number in chosen])


def kinds(options: argparse.Namespace, photos: Sequence[Image.Image]) -> "list[tuple[str, list[Image.Image]]]":
    count = options.per_kind
    result = [(kind, [draw(2 * seed + 1) for seed in range(count)]) for kind, draw in contents.DRAWN.items()]
    result += [
        ("smooth gradients", [contents.ramp(2 * seed + 1) for seed in range(count)]),
        ("watermarked photographs", [contents.tiled_watermark(image) for image in photos]),
        ("photographs on one phone screen", [phone_screenshot(image) for image in photos]),
        ("photographs on one web page", [desktop_screenshot(image) for image in photos]),
        ("photographs", list(photos)),
    ]
    if options.real:
        loads = {
            "icons": lambda folder: measured(contents.icons(folder)),
            "stamps": lambda folder: measured(contents.stamps(folder)),
        }
        for kind, load in loads.items():
            if (options.real / kind).is_dir():
                images = load(options.real / kind)
                result.append((f"real: {kind}", list(images[:: max(1, len(images) // count)][:count])))
    return result


def measure_kind(kind: str, images: Sequence[Image.Image], works: Sequence[int] | None = None) -> None:
    """Print one line. Images with equal pixels count once, and those that the service reports as featureless not.

    Images of one work, such as a document, are not unrelated: matches between them are printed apart.
    """
    distinct = {
        image.tobytes(): (image, work)
        for image, work in zip(images, range(len(images)) if works is None else works, strict=True)
        if kind == "smooth gradients" or signatures(np.asarray(image))
    }
    pixels = [np.asarray(image) for image, _ in distinct.values()]
    work_of = [work for _, work in distinct.values()]
    stored = [store(each) for each in pixels]
    collection = collect(np.random.default_rng(SEED), stored, [], 0) if any(one.signatures for one in stored) else None
    few = np.mean([one.features.are_few for one in stored])
    pairs = sum(one != other for one in work_of for other in work_of)
    line = f"  {kind:<34}{len(pixels):>7}{pairs:>8}{100 * few:>5.0f}"
    if collection is None:
        print(line + "  all featureless")
        return
    wrong = dict.fromkeys(("fast", "thorough"), 0)
    of_one_work = dict(wrong)
    copies: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row, (image, work) in enumerate(distinct.values()):
        for copy, edited in (("", image), ("JPEG", as_jpeg(image)), ("half", half(image))):
            for mode, matches in decide(Query(np.asarray(edited)), collection).items():
                if copy:
                    copies[mode, copy].append(row in matches)
                else:
                    others = sum(work_of[match] != work for match in matches)
                    wrong[mode] += others
                    of_one_work[mode] += len(matches - {row}) - others
    for mode in wrong:
        recall = " ".join(f"{100 * np.mean(copies[mode, copy]):6.1f}" for copy in ("JPEG", "half"))
        line += f"{wrong[mode]:>7} {wrong[mode] / pairs:>8.0e}{recall:>14}"
    print(line + (f"  of one work: {of_one_work}" if works else ""), flush=True)


def decide(query: Query, collection: Collection) -> dict[str, set[int]]:
    """Return the rows that match in each mode."""
    fast = {row for row, (_, is_match) in by_signature(query, collection).items() if is_match}
    local, _ = by_features(query, collection)
    return {"fast": fast, "thorough": fast | {row for row, (_, is_match) in local.items() if is_match}}


def as_jpeg(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=80)
    return Image.open(stream).convert("RGB")


def half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes: 10 photographs, 2,000 distractors")
    parser.add_argument("--photographs", type=int, default=25)
    parser.add_argument("--distractors", type=int, default=100_000)
    parser.add_argument("--per-kind", type=int, default=180)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared" / "data" / "photos")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--part", choices=("all", "edits", "contents"), default="all")
    options = parser.parse_args()
    if options.quick:
        options.photographs, options.distractors, options.per_kind = 10, 2_000, 30
    return options


if __name__ == "__main__":
    main(parse())
