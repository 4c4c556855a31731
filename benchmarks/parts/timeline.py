"""What happened over time, as SVG for docs/: memory of processes and kills; a queue, its workers and their rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("svg")
# The same file for the same figures, and text as text.
mpl.rcParams["svg.hashsalt"] = "match"
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.family"] = "sans-serif"

# A rate is that of so many seconds around its moment.
RATE_OVER_S = 2.0
OTHERS = {"keys in Redis": "keys in Redis", "accepted a second": "pictures accepted a second, on average so far"}


def draw_timeline(
    samples: Mapping[str, Sequence[tuple[float, float]]], kills: Sequence[tuple[float, str]], file: Path
) -> None:
    """Draw series of (seconds, value): those named in OTHERS below, the rest, in MiB, above; a line at each kill."""
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


def draw_workers(samples: Sequence[tuple[float, int, int, int]], file: Path) -> None:
    """Draw samples of (seconds, open tasks, workers, tasks that ended so far): the first two, and the rate of ends."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    queue, workers, rate = figure.subplots(3, 1, sharex=True)
    times = [at for at, *_ in samples]
    queue.fill_between(times, [count for _, count, *_ in samples], color="tab:blue", alpha=0.5)
    queue.set(title="open tasks")
    workers.step(times, [count for *_, count, _ in samples], where="post", color="tab:orange")
    workers.set(title="workers")
    rate.plot(times, [_rate(samples, at) for at in times], color="tab:green")
    rate.set(title="images a second", xlabel="seconds")
    for axes in (queue, workers, rate):
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
    figure.savefig(file, metadata={"Date": None})


def _rate(samples: Sequence[tuple[float, int, int, int]], at: float) -> float:
    near = [(when, ended) for when, _, _, ended in samples if abs(when - at) <= RATE_OVER_S / 2]
    (first, ended_then), (last, ended) = near[0], near[-1]
    return (ended - ended_then) / (last - first) if last > first else 0.0
