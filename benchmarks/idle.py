"""The cost of an idle `make dev`: resident memory and CPU of each of its programs.

PYTHONPATH=. python benchmarks/idle.py
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

from dev.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024
# Several periods of the heartbeats, the sweeper and the polls of flower.
MEASURE_S = 30
PROGRAMS = {
    "-m api": "API",
    "-m workers": "workers",
    "-m common.decoding": "decoders",
    "celery flower": "flower",
    "valkey-server": "Redis",
    "redis-server": "Redis",
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"PORT": str(free_port()), "FLOWER_PORT": str(free_port()), "MATCH_HOME": home}
        stack = subprocess.Popen(
            [sys.executable, "-m", "dev.stack"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert any(line.strip() == "ready" for line in stack.stdout), "the stack is not ready"
            sleep(5)
            report(stack.pid)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(90)


def report(pid: int) -> None:
    before, started = {child: cpu_s(child) for child in descendants(pid)}, monotonic()
    sleep(MEASURE_S)
    seconds = monotonic() - started
    sums: dict[str, list[float]] = {}
    for child, used_s in before.items():
        row = sums.setdefault(name(child), [0, 0, 0])
        row[0] += 1
        row[1] += resident_mib(child)
        row[2] += 100 * (cpu_s(child) - used_s) / seconds
    print(f"{'':12} {'processes':>9} {'resident MiB':>13} {'CPU % of a core':>16}")
    for program, (count, mib, percent) in sums.items():
        print(f"{program:12} {count:9.0f} {mib:13.0f} {percent:16.1f}")
    both = sums["API"][1] + sums["workers"][1]
    print(f"\nAPI and workers together: {both:.0f} MiB resident (a page that processes share counts in each)")


def descendants(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    # A child belongs to the thread that started it.
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for text in lists for child in text.split()]
    return [one for child in children for one in (child, *descendants(child))]


def name(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return next((program for mark, program in PROGRAMS.items() if mark in command), "other")


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / MIB


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
