"""The pipeline of dsys/match: download, image-match's signature and record, and one index write, all in the request.

Its search for earlier ids of the filepath before each write is left out, in its favour. The embedded store cannot hold
image-match's records, so one row of Match's is written instead.
"""

import os
from time import time_ns

import numpy as np
import requests
from elasticsearch import Elasticsearch
from flask import Flask, jsonify, request
from image_match.goldberg import ImageSignature
from image_match.signature_database_base import make_record

from common.config import Settings
from common.store.base import Record
from common.wiring import build_dependencies

app = Flask(__name__)
signatures = ImageSignature()
settings = Settings.from_env()
elastic = Elasticsearch(settings.elasticsearch_url) if os.environ.get("ELASTICSEARCH_URL") else None
embedded = build_dependencies(settings).store if elastic is None else None


@app.post("/add")
def add():  # noqa: ANN201 - a script
    data = requests.get(request.form["url"], timeout=15).content
    record = make_record(request.form["filepath"], signatures, 16, 63, img=data, bytestream=True)
    if elastic is not None:
        elastic.index(index=settings.elasticsearch_index, document=record)
    else:
        embedded.put([row(record)])
    return jsonify(status="ok", error=[], method="add", result=[])


def row(record: dict) -> Record:
    return Record(
        filepath=record["path"],
        seq=time_ns() // 1000,
        # Any 272 of the 648 values: only the write of one row matters here.
        signatures=(np.asarray(record["signature"][:272], np.int8),),
        added=time_ns() // 1_000_000,
        width=1,
        height=1,
    )
