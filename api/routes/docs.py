"""The API's description: for programs, and for people."""

import json
from collections.abc import Mapping, Sequence

from flask import Response

from api.description.openapi import document
from api.description.page import POLICY, page
from api.endpoints import Endpoint
from api.forms import requests
from api.services import Services
from common.config import Settings


def endpoints(subjects: Mapping[str, Sequence[Endpoint]], settings: Settings) -> tuple[Endpoint, ...]:
    """Return the endpoints that describe the others."""
    described = document(subjects, settings)
    as_json, as_html = json.dumps(described, ensure_ascii=False), page(described)

    def openapi(_services: Services, _: requests.Nothing) -> Response:
        return Response(as_json, mimetype="application/json")

    def docs(_services: Services, _: requests.Nothing) -> Response:
        return Response(as_html, mimetype="text/html", headers={"Content-Security-Policy": POLICY})

    return (
        Endpoint(name="openapi.json", path="/openapi.json", scope=None, methods=("GET",), view=openapi),
        Endpoint(name="docs", path="/docs", scope=None, methods=("GET",), view=docs),
    )
