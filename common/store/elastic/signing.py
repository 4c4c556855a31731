"""Signatures of Amazon's services (AWS Signature Version 4), by botocore, an optional extra."""

import hashlib
import logging
from collections.abc import Mapping
from threading import Lock
from urllib.parse import parse_qsl

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from common.errors import StoreUnavailable

# At the level debug botocore logs what it signs, also the session token.
logging.getLogger("botocore").setLevel(logging.INFO)


class AwsSigner:
    """Signs requests to a service in a region with the credentials of botocore's chain, which renews expired ones."""

    def __init__(self, *, region: str, service: str) -> None:
        self._region = region
        self._service = service
        self._session = get_session()
        self._lock = Lock()

    def headers(self, method: str, url: str, body: bytes, media_type: str | None) -> Mapping[str, str]:
        """Return the headers that sign a request. Raises StoreUnavailable if there are no credentials."""
        signed = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        if media_type is not None:
            signed["content-type"] = media_type
        # The server decodes the parameters, and signs them in an encoding of its own.
        address, _, query = url.partition("?")
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        request = AWSRequest(method, address, data=body, headers=signed, params=parameters)
        SigV4Auth(self._credentials(), self._service, self._region).add_auth(request)
        return dict(request.headers.items())

    def _credentials(self) -> Credentials:
        """Return the current credentials, with their session token if they have one."""
        try:
            # A session is not safe for several threads until its credentials are loaded.
            with self._lock:
                credentials = self._session.get_credentials()
            frozen = credentials and credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise StoreUnavailable(f"no AWS credentials to sign requests: {error}") from error
        if frozen is None:
            raise StoreUnavailable("no AWS credentials to sign requests")
        return frozen
