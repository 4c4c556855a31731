"""A worker whose decoder crashes or hangs on marked images: no real image is known to do so."""

import os
import re
import signal
import sys
from typing import Any
from unittest.mock import patch

from common.images.decode import DecodedImage, decode
from workers import pipeline
from workers.__main__ import main

KILLS = b" this image kills its decoder"
HANGS = b" this image hangs its decoder"


def decode_or_fail(data: bytes, *arguments: Any) -> DecodedImage:
    if data.endswith(KILLS):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(HANGS):
        # In C code that never releases the interpreter's lock: no thread of the process runs any more.
        re.match(r"(a+)+$", "a" * 64 + "b")
    return decode(data, *arguments)


if __name__ == "__main__":
    with patch.object(pipeline, "decode", decode_or_fail):
        sys.exit(main(sys.argv[1:]))
