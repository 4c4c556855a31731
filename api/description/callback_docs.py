"""The webhook in the API's description: what is posted to a `callback_url`, and how its receiver verifies it."""

from api import replies
from api.description.examples import CALL, CALL_BODY, CALL_ID, CALL_SECRET, CALL_TIMESTAMP
from api.description.schemas import Json, Schemas
from common.config import Settings
from common.net.webhook_signing import signed_headers
from common.queue.callbacks import DELIVERY_SIZE, FIRST_PAUSE_S, LINGER_BATCH_MS, LINGER_MS, LONGEST_PAUSE_S

TEXT = """\
Tells the `callback_url` of an add or a batch that tasks have ended. Those that end within {linger:g} s of each other \
come together, of a batch those that end within {linger_batch:g} s, up to {together}. A task that failed, was sent \
again and ended again comes again.

Headers and signatures are those of Standard Webhooks 1.0.0, whose libraries verify them. What is signed is the \
`webhook-id`, a dot, the `webhook-timestamp`, a dot, and the body's very bytes: by HMAC with SHA-256, whose key is \
the base64 behind the `whsec_` of the service's secret, decoded. `webhook-signature` has `v1,` and the base64 of that \
for each secret of the service, parted by spaces; one that fits is enough.

- Compare signatures in constant time and before the body is read as JSON, and refuse a timestamp that is more than \
some minutes off.
- A call may come twice, with the same `webhook-id` and the same body: do nothing the second time. Calls come in no \
order that could be relied on.
- Answer 2xx within {timeout:g} s. After any other answer, and after none, it comes again: after about {first:g} s, \
then twice as long each time, up to {longest:g} s, until {keep:g} s after the task's end; 410 ends that at once. \
Redirects are not followed.

The example's signature is made with the secret `{secret}` for the body `{body}`.\
"""
HEADERS = {
    "webhook-id": "Names the call; the same whenever it comes again.",
    "webhook-timestamp": "When it was sent, in seconds since 1970.",
    "webhook-signature": "One signature for each of the service's secrets, parted by spaces.",
}


def call(schemas: Schemas, settings: Settings) -> Json:
    """Return OpenAPI's description of the call."""
    examples = signed_headers([CALL_SECRET], id_=CALL_ID, timestamp=CALL_TIMESTAMP, body=CALL_BODY.encode())
    return {
        "operationId": "call",
        "summary": "Tell that tasks have ended",
        "description": TEXT.format(
            linger=LINGER_MS / 1000,
            linger_batch=LINGER_BATCH_MS / 1000,
            together=DELIVERY_SIZE,
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
            "2XX": {"description": "Taken."},
            "410": {"description": "No more of it, ever."},
            "default": {"description": "Tried again."},
        },
        "security": [],
    }


def _header(name: str, example: str) -> Json:
    about = {"required": True, "description": HEADERS[name], "schema": {"type": "string"}, "example": example}
    return {"name": name, "in": "header", **about}
