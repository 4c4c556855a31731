"""Memory of processes over time, with kills, as an SVG file for docs/."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("svg")
# A reproducible file with selectable text.
mpl.rcParams["svg.hashsalt"] = "match"
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.family"] = "sans-serif"

OTHERS = {"keys in Redis": "keys in Redis", "accepted a second": "images accepted a second, average since the start"}


def draw_timeline(
    samples: Mapping[str, Sequence[tuple[float, float]]], kills: Sequence[tuple[float, str]], file: Path
) -> None:
    """Draw series of (seconds, value): memory in MiB on top, the series of OTHERS below, and a line at each kill."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    memory, keys, rate = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    for name, series in samples.items():
        if name not in OTHERS:
            memory.plot([at / 60 for at, _ in series], [value for _, value in series], linewidth=1, label=name)
    for axes, name in ((keys, "keys in Redis"), (rate, "accepted a second")):
        series = samples.get(name, ())
        axes.plot([at / 60 for at, _ in series], [value for _, value in series], color="tab:gray")
        axes.set(title=OTHERS[name])
    for axes in (memory, keys, rate):
        for at, _ in kills:
            axes.axvline(at / 60, color="tab:red", alpha=0.2)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
    memory.set(title="resident memory in MiB; a red line is a kill")
    memory.legend()
    rate.set(xlabel="minutes")
    figure.savefig(file, metadata={"Date": None})
