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
    return settings.worker_count * (PROCESS_MIB + _images_mib(settings) + _decoders_mib(settings, API_DECODERS))


def worker_mib(settings: Settings) -> float:
    """Return the MiB that a worker's container needs: the process, its images and its decoders."""
    return PROCESS_MIB + _images_mib(settings) + _decoders_mib(settings, WORKER_DECODERS)


NEEDED_MIB = {"api": api_mib, "worker": worker_mib}


def mib(quantity: str) -> float:
    """Return a Kubernetes quantity of memory in MiB."""
    [(number, unit)] = re.findall(r"^(\d+)([MG]i)$", quantity)
    return float(int(number) * UNITS[unit])


def _images_mib(settings: Settings) -> float:
    return settings.max_bytes_in_flight / MIB


def _decoders_mib(settings: Settings, count: int) -> float:
    return (count + SPARES) * IDLE_DECODER_MIB + count * settings.decode_memory_bytes / MIB
