"""Scrape targets: files with the metrics addresses of this stack, for observability/prometheus/prometheus.yml."""

import json
from collections.abc import Sequence
from itertools import chain, islice, repeat
from pathlib import Path

from dev.ports import LOOPBACK, TOP_PORT, is_free

WORKER_METRICS_PORT = 9464


def worker_ports(first: int, workers: int, *, taken: Sequence[int]) -> list[int]:
    """Return a free port for each worker, from `first` upwards.

    A port of 0 disables the metrics of a worker: all are 0 if `first` is 0, the last ones if too few ports are free.

    `taken` are ports that other programs of the stack will use.
    """
    ports = range(first, TOP_PORT + 1) if first else ()
    free = (port for port in ports if port not in taken and is_free(LOOPBACK, port))
    return list(islice(chain(free, repeat(0)), workers))


def write_targets(home: Path, *, api: str, worker_ports: Sequence[int]) -> None:
    """Write the files; Prometheus reads them again when they change."""
    folder = home / "prometheus"
    folder.mkdir(exist_ok=True)
    workers = [f"{LOOPBACK}:{port}" for port in worker_ports if port]
    for name, targets in {"api": [api], "workers": workers}.items():
        (folder / f"{name}.json").write_text(json.dumps([{"targets": targets}]))
