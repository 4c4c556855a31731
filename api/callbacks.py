"""The callback URL of a request, validated before the request is accepted."""

from api.services import Services
from api.sources import validate_url
from common.errors import FetchError, InputError
from common.net.addresses import read_url

FIELD = "callback_url"


def validated(services: Services, url: str | None) -> str:
    """Return the URL in its normalized form, empty where there is none.

    Raises InputError for a URL to which no webhook can be sent, and where the service has no secret to sign with.
    """
    if url is None:
        return ""
    if not services.settings.webhook_secrets:
        message = f"{FIELD} cannot be used: the service has no secret to sign callbacks with (MATCH_WEBHOOK_SECRET)"
        raise InputError(message, field=FIELD, code="no_webhook_secret")
    try:
        normalized = read_url(url.strip()).url
    except FetchError as error:
        raise InputError(f"{FIELD}: {error}", field=FIELD, code=error.code) from error
    # The normalized form may be longer than the limit.
    validate_url(services.add_images.fetcher, normalized, parameter=FIELD)
    return normalized
