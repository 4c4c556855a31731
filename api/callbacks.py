"""The URL to which a sender wants to be told that its tasks have ended, checked at the door."""

from api.services import Services
from common.errors import FetchError, InputError
from common.net.addresses import read_url

FIELD = "callback_url"


def checked(services: Services, url: str | None) -> str:
    """Return the URL in the one form that callbacks have, empty where there is none.

    Raises InputError where nothing could be sent there, or nothing could be signed.
    """
    if url is None:
        return ""
    if not services.settings.webhook_secrets:
        message = f"{FIELD} cannot be used: the service has no secret to sign callbacks with (MATCH_WEBHOOK_SECRET)"
        raise InputError(message, field=FIELD, code="no_webhook_secret")
    try:
        found = read_url(url.strip()).url
        # What is escaped may have become too long.
        services.intake.fetcher.validate(found)
    except FetchError as error:
        raise InputError(f"{FIELD}: {error}", field=FIELD, code=error.code) from error
    return found
