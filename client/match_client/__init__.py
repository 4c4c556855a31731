"""Python client of Match, a self-hosted reverse image search.

from match_client import Match

with Match("http://127.0.0.1:8888") as match:
    match.add("chelsea.jpg", "cats/chelsea.jpg", wait_s=30)
    for result in match.search("cropped.jpg"):
        print(result.score, result.filepath)
"""

from match_client.client import Match
from match_client.errors import (
    AccessDenied,
    Conflict,
    ConnectionLost,
    ImageError,
    InternalError,
    InvalidSource,
    InvalidWebhook,
    MatchError,
    NotFound,
    RequestRejected,
    TaskRunning,
    Unavailable,
    UnexpectedReply,
)
from match_client.results import (
    Batch,
    Collection,
    Comparison,
    FoundMatch,
    Image,
    Matches,
    Outcome,
    Patched,
    Queue,
    Readiness,
    Reason,
    Retried,
    SearchOutcome,
    Task,
    Usage,
)
from match_client.searches import SearchQuery
from match_client.sources import ImageSource, NewImage
from match_client.webhooks import Webhook, verify

__all__ = [
    "AccessDenied",
    "Batch",
    "Collection",
    "Comparison",
    "Conflict",
    "ConnectionLost",
    "FoundMatch",
    "Image",
    "ImageError",
    "ImageSource",
    "InternalError",
    "InvalidSource",
    "InvalidWebhook",
    "Match",
    "MatchError",
    "Matches",
    "NewImage",
    "NotFound",
    "Outcome",
    "Patched",
    "Queue",
    "Readiness",
    "Reason",
    "RequestRejected",
    "Retried",
    "SearchOutcome",
    "SearchQuery",
    "Task",
    "TaskRunning",
    "Unavailable",
    "UnexpectedReply",
    "Usage",
    "Webhook",
    "verify",
]
