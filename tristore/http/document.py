"""The API's document, and the page that shows it and tries it out. Nothing on the page comes from another host."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from starlette.types import Lifespan

from tristore.http.conditional import unless_known
from tristore.http.headers import HEADERS, sends
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import Json, problem_schemas, problems

POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DocumentedAPI(FastAPI):
    """Adds to the document what routes need not say: their names, what their tags stand for, and the errors and headers
    that follow from what they take and answer. It is valid OpenAPI 3.1."""

    def __init__(
        self,
        *,
        title: str,
        version: str,
        description: str,
        license_info: dict[str, str],
        lifespan: Lifespan[FastAPI],
        telemetry: TelemetryConfig | None = None,
    ) -> None:
        """`description` in Markdown: what the API is for, and how to sign in. `license_info`: `name` and an SPDX
        `identifier`, or a `url`."""
        super().__init__(
            title=title,
            version=version,
            description=description,
            license_info=license_info,
            servers=[{"url": "/"}],
            lifespan=lifespan,
            telemetry=telemetry,
            redirect_slashes=False,  # a redirect would lead to whatever host the request names
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            generate_unique_id_function=lambda route: route.name,  # what generated clients call it
        )
        self._written: dict[str, tuple[bytes, str]] = {}

    def include_router(self, router: APIRouter, **options: Any) -> None:
        super().include_router(router, **options)
        if isinstance(router, PrefixedRouter) and router.about:
            told = [{"name": tag, "description": router.about} for tag in router.tags]
            self.openapi_tags = [*(self.openapi_tags or []), *told]

    def serve_document(self) -> None:
        """Call it after all other routes are there: a request is compared with those that come before its own."""
        self.openapi_url = "/openapi.json"
        self.add_route(self.openapi_url, self._answer_document, include_in_schema=False)
        _add_page(self)

    def serve_front(self) -> None:
        """What a browser finds at `/`: the page of the document where it is served, one word where it is not."""
        self.add_route("/", _to_page if self.openapi_url else _word, include_in_schema=False)

    async def _answer_document(self, request: Request) -> Response:
        root_path = request.scope.get("root_path", "")  # what a proxy in front adds to each path
        if root_path not in self._written:  # made once: it takes longer than any other answer
            self._written[root_path] = _written(self.openapi() | {"servers": [{"url": root_path or "/"}]})
        answer = unless_known(request, *self._written[root_path])
        answer.headers["Cache-Control"] = "no-cache"  # keep it, and ask whether it is still the same
        return answer

    def openapi(self) -> Json:
        document = super().openapi()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422
                schemas.pop(name, None)
            schemas |= problem_schemas()
            operations = [told for path in document["paths"].values() for told in path.values()]
            for operation in operations:
                _complete(operation)
            used = {name for told in operations for answer in told["responses"].values() for name in answer["headers"]}
            document["components"]["headers"] = {name: HEADERS[name] for name in sorted(used)}
        return document


def _written(document: Json) -> tuple[bytes, str]:
    """Its bytes, and their tag."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return body, hashlib.sha256(body).hexdigest()[:32]


def _complete(operation: Json) -> None:
    responses = operation["responses"] | problems(*_errors(operation))
    operation["responses"] = {str(status): responses[status] for status in sorted(responses, key=str)}
    for status, response in operation["responses"].items():
        of_key = ["Retry-After"] if status == "409" else ["Idempotency-Replayed"] if status < "300" else []
        response.setdefault("headers", {})
        response["headers"] |= sends("X-Request-Id", *(of_key if _takes_key(operation) else []))["headers"]
        for content in response.get("content", {}).values():
            if "itemSchema" in content:
                content |= _told_in_3_1(content.pop("itemSchema"))
    for parameter in operation.get("parameters", ()):
        _leave_out_null(parameter)
    operation.setdefault("security", [])  # said also where nobody has to sign in


def _errors(operation: Json) -> Iterator[int]:
    yield from (414, 431)
    if "parameters" in operation:
        yield 422
    if "requestBody" in operation:
        yield from (400, 413, 415, 422)
    if operation.get("security"):
        yield from (401, 429, 503)


def _leave_out_null(parameter: Json) -> None:
    """One that is optional may be left out. A client that takes it for nullable would send the word "null"."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    schema |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}


def _takes_key(operation: Json) -> bool:
    return any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ()))


def _told_in_3_1(item: Json) -> Json:
    """OpenAPI 3.1 has no word for the items of a stream: there `schema` is of the whole body, which is a text."""
    return {"schema": {"type": "string", "description": "`x-itemSchema` tells of each item"}, "x-itemSchema": item}


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


async def _to_page(request: Request) -> Response:
    # Relative: an address with a host would be that which the request names, and it also holds behind a prefix.
    return Response(status_code=307, headers={"Location": "docs"})


async def _word(request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


def _digest_of_script(page: bytes) -> str:
    script = re.search(rb"<script>(.*?)</script>", page, re.DOTALL)
    assert script
    return base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
