"""The end of a program that runs until Ctrl-C."""

import signal
import threading


def on_interrupt() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets from now on."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
