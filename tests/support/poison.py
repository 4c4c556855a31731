"""A decoder that crashes, hangs or has a bug at certain images. No real images with these effects are known.

As a program it is a worker with this decoder; with limits as its argument it is the decoder process.
"""

import os
import re
import signal
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.decoding import process

CRASHES = b" the decoder of this image crashes"
BUG = b" the decoder of this image has a bug"
HANGS = b" the decoder of this image hangs"
COMMAND = (sys.executable, "-E", "-s", __file__)


def decode_images(limits: str) -> None:
    # No other process imports the decoder.
    from common.decoding import child  # noqa: PLC0415
    from common.images.decode import DecodedImage, Limits, decode  # noqa: PLC0415

    def decode_or_fail(data: bytes, limits: Limits) -> DecodedImage:
        if data.endswith(CRASHES):
            os.kill(os.getpid(), signal.SIGSEGV)
        if data.endswith(BUG):
            raise ZeroDivisionError
        if data.endswith(HANGS):
            # The C code of this match never releases the interpreter's lock.
            re.match(r"(a+)+$", "a" * 64 + "b")
        return decode(data, limits)

    with patch.object(child, "decode", decode_or_fail), patch.object(child, "ALARM_MARGIN_S", 0.5):
        child.main(limits)


def work(arguments: list[str]) -> int:
    from workers.__main__ import main  # noqa: PLC0415 - a decoder process needs no worker

    with patch.object(process, "COMMAND", COMMAND):
        return main(arguments)


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        decode_images(sys.argv[1])
    else:
        sys.exit(work(sys.argv[1:]))
