"""The description of the webhook: the request to a `callback_url`, and how its receiver verifies it."""

from api import replies
from api.description.examples import CALL, CALL_BODY, CALL_ID, CALL_SECRET, CALL_TIMESTAMP
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
HEADERS = {
    "webhook-id": "The id of the request; a repeated request has the same.",
    "webhook-timestamp": "The time of sending, in seconds since 1970.",
    "webhook-signature": "One signature per secret of the service, separated by spaces.",
}


def call(schemas: Schemas, settings: Settings) -> Json:
    """Return the webhook as an OpenAPI operation."""
    examples = signed_headers([CALL_SECRET], id_=CALL_ID, timestamp=CALL_TIMESTAMP, body=CALL_BODY.encode())
    return {
        "summary": "Report ended tasks",
        "description": TEXT.format(
            linger=LINGER_MS / 1000,
            linger_batch=LINGER_BATCH_MS / 1000,
            max_tasks=DELIVERY_SIZE,
            timeout=settings.webhook_timeout_s,
            first=FIRST_PAUSE_S,
            longest=LONGEST_PAUSE_S,
            keep=settings.webhook_keep_s,
            secret=CALL_SECRET,
            body=CALL_BODY,
        ),
        "parameters": [_header(name, value) for name, value in examples.items()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schemas.reply(replies.Call), "example": CALL}},
        },
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
