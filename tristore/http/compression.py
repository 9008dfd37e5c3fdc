"""Compresses large JSON for clients that take gzip."""

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALLEST_BYTES = 1024
LEVEL = 4  # 32 KB of messages take 0.3 ms; level 9, Starlette's own, takes 1.1 ms and saves 2 % more
IN_THREAD_BYTES = 65_536
REFUSED = {f"q=0{zeros}" for zeros in ("", ".", ".0", ".00", ".000")}


class Compression:
    """Of answers to GET alone. What answers another method may hold a secret beside what the caller sent, as a new
    token does: the size of the compressed answer would tell how alike the two are (BREACH). Streams tell no length, and
    stay as they are. A small answer pays for a look at its length, and for nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        forward = send

        async def send_compressed(message: Message) -> None:
            nonlocal forward
            if message["type"] == "http.response.start" and _is_large_json(message["headers"]):
                forward = self._responder(scope, message, send).send_with_compression
            await forward(message)

        await self._app(scope, receive, send_compressed)

    def _responder(self, scope: Scope, start: Message, send: Send) -> IdentityResponder:
        responder = IdentityResponder(self._app, SMALLEST_BYTES)  # it says in Vary that others get another body
        if _takes_gzip(",".join(Headers(scope=scope).getlist("Accept-Encoding"))):
            start["headers"] = [(name, _weak(value) if name == b"etag" else value) for name, value in start["headers"]]
            responder = GZipResponder(self._app, SMALLEST_BYTES, LEVEL, thread_minimum_size=IN_THREAD_BYTES)
        responder.send = send
        return responder


def _is_large_json(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        if name == b"content-length":
            return int(value) >= SMALLEST_BYTES and (b"content-type", b"application/json") in headers
    return False


def _takes_gzip(accepted: str) -> bool:
    codings = ("".join(coding.split()).partition(";") for coding in accepted.lower().split(","))
    return any(name == "gzip" and quality not in REFUSED for name, _, quality in codings)


def _weak(tag: bytes) -> bytes:
    """A strong tag stands for the very bytes (RFC 9110, section 8.8.1)."""
    return tag if tag.startswith(b"W/") else b"W/" + tag
