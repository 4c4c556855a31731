"""Plots of benchmark results, as SVG files for docs/."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from parts.growth import Size

mpl.use("svg")
# A reproducible file with selectable text.
mpl.rcParams["svg.hashsalt"] = "match"
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.family"] = "sans-serif"


LINES = {
    "one_cpu_ms": ("HNSW, CPU of the node", "tab:blue", "-"),
    "all_cpu_ms": ("the same, all 16 orientations", "tab:green", "-"),
    "p50": ("HNSW, p50", "tab:blue", ":"),
    "flat_p50": ("flat, p50", "tab:orange", ":"),
    "peer_p50": ("63 words, p50", "tab:gray", ":"),
}
STATES = {"p50": "added once", "overwritten_p50": "half added\nagain", "merged_p50": "then merged"}


def draw_growth(sizes: Sequence[Size], file: Path) -> None:
    """Draw the cost of a search by the number of images; next to it the effect of overwriting half, where measured."""
    overwritten = [size for size in sizes if size.overwritten_p50]
    figure = Figure(figsize=(9 if overwritten else 6, 3.6), layout="constrained")
    if overwritten:
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        _draw_states(right, overwritten)
    else:
        left = figure.subplots()
    _draw_lines(left, sizes)
    figure.savefig(file, metadata={"Date": None})


def _draw_lines(axes: Axes, sizes: Sequence[Size]) -> None:
    for name, (label, colour, style) in LINES.items():
        measured = [size for size in sizes if getattr(size, name)]
        times = [getattr(size, name) for size in measured]
        if measured:
            axes.plot([size.images for size in measured], times, style, color=colour, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="images", ylabel="ms per search", title="Cost of a search by size")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()


def _draw_states(axes: Axes, sizes: Sequence[Size]) -> None:
    for size in sizes:
        axes.plot(list(STATES.values()), [getattr(size, name) for name in STATES], marker="o", label=f"{size.images:,}")
    axes.set(
        ylabel="ms per search, p50",
        title="Half overwritten",
        ylim=(0, 1.5 * max(size.overwritten_p50 for size in sizes)),
    )
    axes.grid(visible=True, alpha=0.25)
    axes.legend(title="images")
