"""dsys/match's own way: download, image-match's signature and one write, all inside the request.

What it searches for before each write (the old ids of the filepath) is left out, in its favour.
"""

import os
from pathlib import Path
from time import time_ns

import numpy as np
import requests
from flask import Flask, jsonify, request
from image_match.goldberg import ImageSignature

from common.store.base import Record
from common.store.sqlite import SqliteStore

app = Flask(__name__)
signatures = ImageSignature()
store = SqliteStore(Path(os.environ["PEER_STORE"]))


@app.post("/add")
def add():  # noqa: ANN201 - a script
    data = requests.get(request.form["url"], timeout=15).content
    signature = signatures.generate_signature(data, bytestream=True)
    record = Record(
        filepath=request.form["filepath"],
        seq=time_ns() // 1000,
        # Any 272 of the 648 values: what is stored does not matter here, that one row is written does.
        signatures=(np.asarray(signature[:272], np.int8),),
        added=time_ns() // 1_000_000,
        width=1,
        height=1,
    )
    store.put([record])
    return jsonify(status="ok", error=[], method="add", result=[])
