"""Static files of the pages: browsers keep each file and ask every time whether it has changed."""

import hashlib
from pathlib import Path

from flask import Response, request

from api.endpoints import Endpoint
from api.forms import requests
from api.services import Services


def static_file(file: Path, *, path: str, mimetype: str) -> Endpoint:
    """Return the endpoint of a file, open to every request."""
    data = file.read_bytes()
    etag = hashlib.sha256(data).hexdigest()

    def view(_services: Services, _: requests.Nothing) -> Response:
        response = Response(data, mimetype=mimetype, headers={"Cache-Control": "no-cache"})
        response.set_etag(etag)
        response.make_conditional(request)
        return response

    return Endpoint(name=path.strip("/"), path=path, scope=None, methods=("GET",), view=view)
