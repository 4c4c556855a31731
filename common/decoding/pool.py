"""The decoder pool: decodes images in processes of its own, and replaces the ones that images end."""

import logging
from collections.abc import Callable
from threading import Condition, Lock, Thread
from typing import Protocol

from common.decoding.limits import DecoderLimits
from common.decoding.process import DeadOnArrival, DecoderProcess, ProcessEnd
from common.decoding.protocol import Output, SignedImage
from common.decoding.slots import DecoderSlots
from common.errors import BUSY_RETRY_AFTER_S, Overloaded

log = logging.getLogger(__name__)

# One process is ready to replace another: a start takes a quarter of a second.
SPARES = 1
# Pause after a failed start: without memory or processes, the next one fails too.
PAUSE_S = 1.0


class Decoder(Protocol):
    """Decodes images."""

    def decode(self, data: bytes, *, outputs: Output = Output.SIGNATURES, client: str = "") -> SignedImage:
        """Return the results for an image.

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
        self._lock = Lock()
        # The starter waits for another event than the callers, so that no image wakes it.
        self._has_idle, self._has_vacancy = Condition(self._lock), Condition(self._lock)
        self._idle: list[DecoderProcess] = []
        self._live = 0
        self._is_closed = False
        self._starter = Thread(target=self._run, name="decoder-starter", daemon=True)
        self._starter.start()

    def decode(self, data: bytes, *, outputs: Output = Output.SIGNATURES, client: str = "") -> SignedImage:
        """Return the results for an image; see Decoder."""
        with self._slots.acquire(client):
            while True:
                process = self._take()
                try:
                    return process.decode(data, outputs)
                except DeadOnArrival:
                    continue
                finally:
                    self._give_back(process)

    def close(self) -> None:
        """End the idle processes now, and the others after their images."""
        with self._lock:
            self._is_closed = True
            self._has_idle.notify_all()
            self._has_vacancy.notify()
        self._starter.join()
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _take(self) -> DecoderProcess:
        """Return an idle process; wait for the start of one if there is none."""
        with self._lock:
            if not self._has_idle.wait_for(lambda: self._idle or self._is_closed, self._wait_s) or self._is_closed:
                raise Overloaded("no decoder is ready", retry_after=BUSY_RETRY_AFTER_S)
            # The last one used: its memory is in the processor's caches.
            return self._idle.pop()

    def _give_back(self, process: DecoderProcess) -> None:
        with self._lock:
            if process.is_usable and not self._is_closed:
                self._put(process)
                return
            self._live -= 1
            self._has_vacancy.notify()
        process.close()
        if process.end is not None:
            log.warning("a decoder process was replaced: %s", process.end.value)
            self._on_end(process.end)

    def _put(self, process: DecoderProcess) -> None:
        self._idle.append(process)
        self._has_idle.notify()

    def _run(self) -> None:
        while self._wait_for_vacancy():
            process = self._start()
            with self._lock:
                if process is not None:
                    self._put(process)
                else:
                    self._live -= 1
                    self._has_vacancy.wait_for(lambda: self._is_closed, PAUSE_S)

    def _wait_for_vacancy(self) -> bool:
        """Wait until a process is missing, and count its successor; return False once the pool is closed."""
        with self._lock:
            self._has_vacancy.wait_for(lambda: self._is_closed or self._live < self._target)
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
