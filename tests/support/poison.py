"""A worker whose decoder is ended or held for ever by certain pictures: no real ones that do so are known."""

import os
import re
import signal
import sys
from typing import Any
from unittest.mock import patch

from common.images.decode import DecodedImage, decode
from workers import pipeline
from workers.__main__ import main

KILLS = b" this picture ends whoever decodes it"
HANGS = b" this picture holds whoever decodes it"


def decode_or_suffer(data: bytes, *arguments: Any) -> DecodedImage:
    if data.endswith(KILLS):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(HANGS):
        # In C code, and without ever giving back the interpreter's lock: no thread of the process runs any more.
        re.match(r"(a+)+$", "a" * 64 + "b")
    return decode(data, *arguments)


if __name__ == "__main__":
    with patch.object(pipeline, "decode", decode_or_suffer):
        sys.exit(main(sys.argv[1:]))
