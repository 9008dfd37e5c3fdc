"""The API's document, and the page that shows it and tries it out. Nothing on the page comes from another host."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cached_property

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.types import Lifespan

from tristore.http.conditional import unless_known
from tristore.http.problems import Json, problem_schemas, problems

POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DocumentedAPI(FastAPI):
    """Adds to the document what routes need not say: their names, and the errors that follow from what they take."""

    def __init__(
        self, *, title: str, version: str, lifespan: Lifespan[FastAPI], telemetry: TelemetryConfig | None = None
    ) -> None:
        super().__init__(
            title=title,
            version=version,
            lifespan=lifespan,
            telemetry=telemetry,
            servers=[{"url": "."}],  # beside the document: so it also holds behind a proxy that adds a prefix
            root_path_in_servers=False,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            generate_unique_id_function=lambda route: route.name,  # what generated clients call it
        )

    def serve_document(self) -> None:
        """Call it after all other routes are there: a request is compared with those that come before its own."""
        self.openapi_url = "/openapi.json"
        self.add_route(self.openapi_url, self._answer_document, include_in_schema=False)
        _add_page(self)

    async def _answer_document(self, request: Request) -> Response:
        answer = unless_known(request, *self._document)
        answer.headers["Cache-Control"] = "no-cache"  # keep it, and ask whether it is still the same
        return answer

    @cached_property
    def _document(self) -> tuple[bytes, str]:
        """Its bytes and their tag. It is made once: it takes longer than any other answer."""
        body = json.dumps(self.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
        return body, hashlib.sha256(body).hexdigest()[:32]

    def openapi(self) -> Json:
        document = super().openapi()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422
                schemas.pop(name, None)
            schemas |= problem_schemas()
            for operations in document["paths"].values():
                for operation in operations.values():
                    responses = operation["responses"] | problems(*_errors(operation))
                    operation["responses"] = {str(status): responses[status] for status in sorted(responses, key=str)}
        return document


def _errors(operation: Json) -> Iterator[int]:
    yield from (414, 431)
    if "parameters" in operation:
        yield 422
    if "requestBody" in operation:
        yield from (400, 413, 422)
    if "security" in operation:
        yield from (401, 429, 503)


def _add_page(app: FastAPI) -> None:
    # Relative addresses, so that the page also works behind a proxy that serves the API below a prefix.
    files = "docs/files"
    body = bytes(
        get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon.png",
        ).body
    )
    swagger_ui = StaticFiles(packages=[("fastapi_offline", "static")])
    headers = {"Content-Security-Policy": POLICY.format(script=_digest_of_script(body))}

    async def page(request: Request) -> Response:
        return HTMLResponse(body, headers=headers)

    async def file(request: Request) -> Response:
        response = await swagger_ui.get_response(request.path_params["name"], request.scope)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response

    app.add_route("/docs", page, include_in_schema=False)
    app.add_route(f"/{files}/{{name}}", file, include_in_schema=False)


def _digest_of_script(page: bytes) -> str:
    script = re.search(rb"<script>(.*?)</script>", page, re.DOTALL)
    assert script
    return base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
