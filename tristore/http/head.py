"""HEAD (RFC 9110, section 9.3.2): what GET would answer, without the body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Asks the app as if it were GET. It goes no further than the headers: no stream is opened, nothing is exported."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _Answered

        as_get = dict(scope) | {"method": "GET"}
        try:
            await self._app(as_get, receive, send_head)
        except* _Answered:
            pass
        scope["route"] = as_get.get("route")


class _Answered(Exception):
    """The headers are all that is asked for."""
