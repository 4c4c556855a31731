"""The description of the webhook: the request to a `callback_url`, and how its receiver verifies it."""

import json

from api import replies
from api.description.examples import BATCH_CALL, CALL, CALL_BODY, CALL_ID, CALL_SECRET, CALL_TIMESTAMP
from api.description.schemas import Json, Schemas
from common.config import Settings
from common.net.webhook_signing import signed_headers
from common.queue.callbacks import DELIVERY_SIZE, FIRST_PAUSE_S, LINGER_BATCH_MS, LINGER_MS, LONGEST_PAUSE_S

TEXT = """\
Reports ended tasks to the `callback_url` of their add or batch. One request reports up to {max_tasks} tasks that end \
within {linger:g} s of each other, in a batch within {linger_batch:g} s. A failed task that is retried is reported \
again.

Headers and signatures follow Standard Webhooks 1.0.0, so its libraries can verify them. The signed content is \
`webhook-id`, a dot, `webhook-timestamp`, a dot, and the bytes of the body. The signature is an HMAC with SHA-256; its \
key is the decoded base64 after `whsec_` in the service's secret. `webhook-signature` contains `v1,` and the base64 of \
the signature for each secret of the service, separated by spaces; one valid signature is enough.

- Compare signatures in constant time, before the body is parsed, and reject a timestamp that is some minutes off.
- A request may be repeated with the same `webhook-id` and body: ignore the second one. Requests may arrive in any \
order.
- Answer 2xx within {timeout:g} s. Otherwise the request is repeated after about {first:g} s, then with doubled pauses \
up to {longest:g} s, until {keep:g} s after the end of the task. 410 stops this at once. Redirects are not followed.

The example's signature is made with the secret `{secret}` for the body `{body}`.\
"""
BATCH_TEXT = """\
Reports that all tasks of a batch have ended, after the last `tasks.ended` to the same URL. A batch that is continued, \
or whose failed tasks are retried, is reported again. Signatures and repetitions are those of `tasks.ended`.\
"""
HEADERS = {
    "webhook-id": "The id of the request; a repeated request has the same.",
    "webhook-timestamp": "The time of sending, in seconds since 1970.",
    "webhook-signature": "One signature per secret of the service, separated by spaces.",
}


def call(schemas: Schemas, settings: Settings) -> Json:
    """Return the webhook as an OpenAPI operation."""
    description = TEXT.format(
        linger=LINGER_MS / 1000,
        linger_batch=LINGER_BATCH_MS / 1000,
        max_tasks=DELIVERY_SIZE,
        timeout=settings.webhook_timeout_s,
        first=FIRST_PAUSE_S,
        longest=LONGEST_PAUSE_S,
        keep=settings.webhook_keep_s,
        secret=CALL_SECRET,
        body=CALL_BODY,
    )
    return _operation("Report ended tasks", description, schemas.reply(replies.Call), CALL)


def batch_call(schemas: Schemas) -> Json:
    """Return the webhook of an ended batch as an OpenAPI operation."""
    return _operation("Report an ended batch", BATCH_TEXT, schemas.reply(replies.BatchCall), BATCH_CALL)


def _operation(summary: str, description: str, schema: Json, example: Json) -> Json:
    body = json.dumps(example, separators=(",", ":"))
    headers = signed_headers([CALL_SECRET], id_=CALL_ID, timestamp=CALL_TIMESTAMP, body=body.encode())
    return {
        "summary": summary,
        "description": description,
        "parameters": [_header(name, value) for name, value in headers.items()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}},
        "responses": {
            "2XX": {"description": "Delivered."},
            "410": {"description": "Not wanted: never repeated."},
            "default": {"description": "Repeated later."},
        },
        "security": [],
    }


def _header(name: str, example: str) -> Json:
    about = {"required": True, "description": HEADERS[name], "schema": {"type": "string"}, "example": example}
    return {"name": name, "in": "header", **about}
