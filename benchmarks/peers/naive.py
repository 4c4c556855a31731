"""A naive port of the pipeline: prefork, a task, a connection and a store write per image.

Decoder, signature and store are Match's own, so that only the pipeline differs.
"""

from time import time_ns

import requests
from celery import Celery

from common.config import Settings
from common.images.decode import Limits, decode
from common.images.signature import sign
from common.store.base import Record
from common.wiring import build_dependencies

settings = Settings.from_env()
app = Celery("naive", broker=settings.redis_url)
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)
store = build_dependencies(settings).store


@app.task(name="naive.add")
def add(filepath: str, url: str) -> None:
    image = decode(requests.get(url, timeout=15).content, Limits())
    store.put(
        [
            Record(
                filepath=filepath,
                seq=time_ns() // 1000,
                signatures=(sign(image.pixels),),
                added=time_ns() // 1_000_000,
                width=image.width,
                height=image.height,
            )
        ]
    )
