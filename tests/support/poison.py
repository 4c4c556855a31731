"""A worker whose decoder crashes or hangs at certain images. No real images with these effects are known."""

import os
import re
import signal
import sys
from typing import Any
from unittest.mock import patch

from common.images.decode import DecodedImage, decode
from workers import pipeline
from workers.__main__ import main

KILLS = b" the decoder of this image crashes"
HANGS = b" the decoder of this image hangs"


def decode_or_fail(data: bytes, *arguments: Any) -> DecodedImage:
    if data.endswith(KILLS):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(HANGS):
        # The C code of this match never releases the interpreter's lock: every thread of the process stops.
        re.match(r"(a+)+$", "a" * 64 + "b")
    return decode(data, *arguments)


if __name__ == "__main__":
    with patch.object(pipeline, "decode", decode_or_fail):
        sys.exit(main(sys.argv[1:]))
