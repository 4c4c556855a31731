"""The decoder pool: decodes images in processes of its own, and replaces the ones that images end."""

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

from common.decoding.limits import DecoderLimits
from common.decoding.process import DeadOnArrival, DecoderProcess, ProcessEnd
from common.decoding.protocol import SignedImage
from common.decoding.slots import RETRY_AFTER_S, DecoderSlots
from common.errors import Overloaded

log = logging.getLogger(__name__)

# One process is ready to replace another: a start takes a quarter of a second.
SPARES = 1
# Pause after a failed start: without memory or processes, the next one fails too.
PAUSE_S = 1.0


class Decoder(Protocol):
    """Decodes images."""

    def decode(self, data: bytes, *, client: str = "") -> SignedImage:
        """Return the result for an image.

        `client` is the API key or the address whose image it is. Raises ImageError, and Overloaded if no decoder is
        free in time.
        """


class DecoderPool:
    """A Decoder with up to `processes` images at once; many threads call `decode`.

    One client has at most `per_client` of them, and `queue` images waiting. An image waits at most `wait_s`. `on_end`
    is called with the reason of each death of a process.
    """

    def __init__(  # noqa: PLR0913 - the options are keyword arguments
        self,
        limits: DecoderLimits,
        *,
        processes: int,
        per_client: int,
        queue: int,
        wait_s: float,
        on_end: Callable[[ProcessEnd], None] = lambda _: None,
    ) -> None:
        self._limits = limits
        self._slots = DecoderSlots(processes, per_client=per_client, queue=queue, wait_s=wait_s)
        self._wait_s = wait_s
        self._on_end = on_end
        self._target = processes + SPARES
        self._changed = Condition()
        self._idle: list[DecoderProcess] = []
        self._live = 0
        self._is_closed = False
        self._starter = Thread(target=self._run, name="decoder-starter", daemon=True)
        self._starter.start()

    def decode(self, data: bytes, *, client: str = "") -> SignedImage:
        """Return the result for an image; see Decoder."""
        with self._slots.acquire(client):
            while True:
                process = self._take()
                try:
                    return process.decode(data)
                except DeadOnArrival:
                    continue
                finally:
                    self._give_back(process)

    def close(self) -> None:
        """End the idle processes now, and the others after their images."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._starter.join()
        with self._changed:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _take(self) -> DecoderProcess:
        """Return an idle process; wait for the start of one if there is none."""
        deadline = monotonic() + self._wait_s
        with self._changed:
            while not self._idle:
                if self._is_closed or not self._changed.wait(max(0.0, deadline - monotonic())):
                    raise Overloaded("no decoder is ready", retry_after=RETRY_AFTER_S)
            # The last one used: its memory is in the processor's caches.
            return self._idle.pop()

    def _give_back(self, process: DecoderProcess) -> None:
        with self._changed:
            if process.is_usable and not self._is_closed:
                self._idle.append(process)
                self._changed.notify()
                return
            self._replace()
        process.close()
        if process.end is not None:
            log.warning("a decoder process was replaced: %s", process.end.value)
            self._on_end(process.end)

    def _replace(self) -> None:
        """Have the starter start another process."""
        self._live -= 1
        self._changed.notify_all()

    def _run(self) -> None:
        while self._wait_for_vacancy():
            process = self._start()
            with self._changed:
                if process is None:
                    self._live -= 1
                    self._changed.wait_for(lambda: self._is_closed, PAUSE_S)
                else:
                    self._idle.append(process)
                    self._changed.notify_all()

    def _wait_for_vacancy(self) -> bool:
        """Wait until a process is missing, and count its successor; return False once the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._live < self._target)
            if not self._is_closed:
                self._live += 1
            return not self._is_closed

    def _start(self) -> DecoderProcess | None:
        try:
            process = DecoderProcess(self._limits)
        except Exception:
            # Continue: without this thread no process is replaced.
            log.exception("cannot start a decoder process")
            return None
        if process.wait_until_ready():
            return process
        process.close()
        log.error("a decoder process ended while it started")
        return None
