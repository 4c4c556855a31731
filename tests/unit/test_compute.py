"""The compute slot: one image at a time, and a kernel timer that ends a stuck process."""

import signal
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess
from threading import Lock
from time import sleep

from common.images.compute import ComputeSlot
from support.commands import run_python

STUCK = """
import signal
from common.images.compute import ComputeSlot
slot = ComputeSlot(timeout_s={timeout_s})
with slot.hold(), slot.alarm():
    while {stuck}:
        pass
print("finished", signal.getitimer(signal.ITIMER_REAL)[0])
"""


def run(*, timeout_s: float, stuck: bool) -> "CompletedProcess[str]":
    return run_python("-c", STUCK.format(timeout_s=timeout_s, stuck=stuck))


def test_one_thread_at_a_time_holds_the_slot() -> None:
    slot, inside, counts = ComputeSlot(timeout_s=30), [], []
    lock = Lock()

    def hold_slot(number: int) -> None:
        with slot.hold():
            with lock:
                inside.append(number)
                counts.append(len(inside))
            sleep(0.001)
            with lock:
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold_slot, range(32)))

    assert max(counts) == 1


def test_the_kernel_ends_a_stuck_process() -> None:
    ended = run(timeout_s=0.2, stuck=True)

    assert (ended.returncode, ended.stdout) == (-signal.SIGALRM, "")


def test_a_finished_computation_clears_its_alarm() -> None:
    ended = run(timeout_s=30, stuck=False)

    assert (ended.returncode, ended.stdout) == (0, "finished 0.0\n")
