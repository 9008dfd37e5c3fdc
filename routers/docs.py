"""The page that shows the API's document and tries it out. Nothing on it comes from another host."""

import base64
import hashlib
import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs(app: FastAPI) -> None:
    """Serve the page at /docs, and what it loads below that."""
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
