"""An attack with expensive images from one address, and the searches of another meanwhile."""

import http.client
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread
from time import monotonic
from urllib.parse import urlsplit

ATTACKER, OTHER = "127.0.0.1", "127.0.0.2"
TIMEOUT_S = 120
NO_ANSWER = 0


@dataclass(frozen=True)
class Searches:
    """The searches of one client: the number of each status, and the time of each in seconds."""

    statuses: Counter[int]
    seconds: Sequence[float]

    @property
    def lost(self) -> int:
        """The number of searches without a result."""
        return self.statuses.total() - self.statuses[200]

    @property
    def p95_s(self) -> float:
        """The time within which 95 % of the searches were answered."""
        return quantiles(self.seconds, n=20)[-1]


def search_all(url: str, images: Iterable[bytes], *, clients: int) -> Searches:
    """Search by each image, `clients` at once."""
    with ThreadPoolExecutor(clients) as threads:
        answers = list(threads.map(lambda image: search(url, image, address=OTHER), images))
    return Searches(Counter(status for status, _ in answers), [seconds for _, seconds in answers])


@contextmanager
def attacking(url: str, images: Iterator[bytes], *, a_second: float) -> Iterator[Counter[int]]:
    """Search by these images until the end of the `with`, and yield the statuses of the answers, which then are all."""
    stop, statuses = Event(), Counter[int]()

    def attack() -> None:
        status, _ = search(url, next(images), address=ATTACKER)
        statuses[status] += 1

    def run() -> None:
        with ThreadPoolExecutor(64) as threads:
            while not stop.wait(1 / a_second):
                threads.submit(attack)

    thread = Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


def search(url: str, image: bytes, *, address: str) -> tuple[int, float]:
    """Search from an address; return the status and the seconds until the answer."""
    started = monotonic()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S, source_address=(address, 0))
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    try:
        connection.request(
            "POST", "/search", head + image + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
        )
        response = connection.getresponse()
        response.read()
        status = response.status
    except (OSError, http.client.HTTPException):
        status = NO_ANSWER
    finally:
        connection.close()
    return status, monotonic() - started


def largest_mib(pid: int) -> dict[str, float]:
    """Return the resident memory of the largest process of a service, by program: the API, or the decoder."""
    largest: dict[str, float] = {}
    for each in [pid, *descendants(pid)]:
        try:
            name = "decoder" if b"common.decoding" in Path(f"/proc/{each}/cmdline").read_bytes() else "api"
            status = Path(f"/proc/{each}/status").read_text()
        except FileNotFoundError:
            continue
        resident = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
        largest[name] = max(largest.get(name, 0), resident / 1024)
    return largest


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes that descend from a process."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return children + [each for child in children for each in descendants(child)]
