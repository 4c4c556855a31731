"""The memory that a container of the service needs, to compare with its limit."""

import re

from api.wsgi import DECODERS as API_DECODERS
from common.config import MIB, Settings
from common.decoding.pool import SPARES
from workers.app import DECODERS as WORKER_DECODERS

# Measured: a process without images, and an idle decoder process, rounded up.
PROCESS_MIB = 128
IDLE_DECODER_MIB = 40
UNITS = {"Mi": 1, "Gi": 1024}


def api_mib(settings: Settings) -> float:
    """Return the MiB that a container of the API needs: each process, its images and its decoders."""
    images = settings.api_threads / 2 * settings.max_image_bytes / MIB
    return settings.worker_count * (PROCESS_MIB + images + _decoders_mib(settings, API_DECODERS))


def worker_mib(settings: Settings) -> float:
    """Return the MiB that a worker's container needs: the process, its images and its decoders."""
    images = settings.worker_threads * settings.max_image_bytes / MIB
    return PROCESS_MIB + images + _decoders_mib(settings, WORKER_DECODERS)


NEEDED_MIB = {"api": api_mib, "worker": worker_mib}


def mib(quantity: str) -> float:
    """Return a Kubernetes quantity of memory in MiB."""
    [(number, unit)] = re.findall(r"^(\d+)([MG]i)$", quantity)
    return float(int(number) * UNITS[unit])


def _decoders_mib(settings: Settings, count: int) -> float:
    return (count + SPARES) * IDLE_DECODER_MIB + count * settings.decode_memory_bytes / MIB
