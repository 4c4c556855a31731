"""A decoder process, seen from the process that uses it."""

import os
import signal
import socket
import struct
import subprocess
import sys
from enum import Enum
from pathlib import Path

from common.decoding.limits import OUT_OF_MEMORY, DecoderLimits
from common.decoding.protocol import Kind, Output, SignedImage, pack, receive_reply, request_parts, result
from common.errors import ImageError

START_WITHIN_S = 60.0
# A dead process may still be giving back its memory.
_REAP_WITHIN_S = 5.0
_TIMEVAL = struct.Struct("@ll")
_ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-E", "-s", "-m", "common.decoding.child")
# One thread for each image: the processes are as many as the cores have work for.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
# Where the interpreter's own libraries may be. The child needs no other variable, and none of the secrets.
_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class ProcessEnd(Enum):
    """The reason why a decoder process ended, as the code of the image's error."""

    CRASHED = "decoder_crashed"
    TIMED_OUT = "decode_timeout"
    OUT_OF_MEMORY = "image_too_large_to_decode"


class DeadOnArrival(Exception):
    """The process ended before it received the image, which another process can decode."""


class DecoderProcess:
    """A decoder process; one thread at a time uses it.

    It decodes while `is_usable`. `end` is the reason of its end, if an image ended it.

    A socket instead of two pipes, because the kernel limits the time of its calls. The child's end is its standard
    input; all other files of this process are closed in the child.
    """

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        near, far = socket.socketpair()
        self._connection = near
        self.is_usable = True
        self.end: ProcessEnd | None = None
        with far:
            self._process = subprocess.Popen(  # noqa: S603 - this program
                [*COMMAND, limits.to_json()],
                stdin=far.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=_ROOT,
                env={**_ENVIRONMENT, **{name: os.environ[name] for name in _INHERITED if name in os.environ}},
                # Ctrl-C in a terminal interrupts the whole process group.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def wait_until_ready(self) -> bool:
        """Wait for the end of the start; return whether it succeeded."""
        self._limit_time(START_WITHIN_S)
        try:
            is_ready = receive_reply(self._connection) == [Kind.READY.value]
        except (EOFError, OSError):
            return False
        self._limit_time(self._limits.timeout_s)
        return is_ready

    def decode(self, data: bytes, outputs: Output = Output.SIGNATURES) -> SignedImage:
        """Return the results for an image; raises ImageError, or DeadOnArrival."""
        # Until the reply has arrived.
        self.is_usable = False
        try:
            self._send(request_parts(data, outputs))
            parts = receive_reply(self._connection)
        except BlockingIOError:
            self.end = ProcessEnd.TIMED_OUT
            raise self._error(self.end) from None
        except (EOFError, OSError) as error:
            self.end = self._cause_of_death()
            raise self._error(self.end) from error
        self.is_usable = True
        try:
            return result(parts)
        except ImageError as error:
            if error.code != ProcessEnd.OUT_OF_MEMORY.value:
                raise
            # The decoder does not know the setting that limits it.
            raise self._error(ProcessEnd.OUT_OF_MEMORY) from None

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _limit_time(self, seconds: float) -> None:
        """Limit each call that sends or receives; beyond it, the call raises BlockingIOError.

        The kernel's own limit needs no further call for each image, unlike that of Python's sockets.
        """
        limit = _TIMEVAL.pack(*divmod(int(seconds * 1_000_000), 1_000_000))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._connection.setsockopt(socket.SOL_SOCKET, option, limit)

    def _send(self, parts: list[bytes]) -> None:
        """Send a request, whose image is the last part; raises DeadOnArrival if the process had ended before."""
        *before, data = pack(parts), *parts
        head = b"".join(before)
        try:
            # One call, so that the process wakes up once for most images.
            sent = self._connection.sendmsg([head, data])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise DeadOnArrival from error
        if sent < len(head) + len(data):
            self._connection.sendall(memoryview(data)[sent - len(head) :])

    def _cause_of_death(self) -> ProcessEnd:
        try:
            status = self._process.wait(_REAP_WITHIN_S)
        except subprocess.TimeoutExpired:
            return ProcessEnd.CRASHED
        if status == -signal.SIGALRM:
            return ProcessEnd.TIMED_OUT
        # Only the kernel kills a process that its owner did not kill: the machine or the container has no memory left.
        return ProcessEnd.OUT_OF_MEMORY if status in {OUT_OF_MEMORY, -signal.SIGKILL} else ProcessEnd.CRASHED

    def _error(self, end: ProcessEnd) -> ImageError:
        limits = self._limits
        text = {
            ProcessEnd.CRASHED: "the decoder crashed while it decoded the image",
            ProcessEnd.TIMED_OUT: f"decoding took longer than {limits.timeout_s:g} s (MATCH_DECODE_TIMEOUT_S)",
            ProcessEnd.OUT_OF_MEMORY: f"decoding takes more than {limits.memory_bytes:,} bytes of memory "
            "(MATCH_DECODE_MEMORY_BYTES)",
        }
        return ImageError(text[end], code=end.value)
