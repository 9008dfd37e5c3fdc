"""From bytes to requests: uvicorn's protocol on httptools, mended for what clients really send."""

import asyncio
import math
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tristore.http.descriptors import most_connections
from tristore.http.middleware import HEADERS_TOO_LARGE, LINE_BYTES, MAX_HEADER_BYTES, MAX_TARGET_BYTES
from tristore.http.refusals import Refusal, Refused
from tristore.http.unread import Unread, give_up_the_largest

DISCARD_SECONDS, DISCARD_BYTES = 2, 32 * 2**20
"""So much of a body is still read after its request was answered. Most clients send all of it before they read the
answer, and lose the answer when the connection is closed meanwhile."""

HEAD_SECONDS = 10
"""So long a client may take to send the head of a request, from its first byte on."""
BODY_SECONDS, BODY_RATE = 10, 1000
"""A body that is awaited must bring so many bytes a second. It may save up so many seconds of silence."""
MOST_HELD = 64 * 2**20
"""So many bytes of bodies, of all connections, are held for requests that are not answered yet."""
READ_AT_ONCE = 65_536
"""So many bytes are read of a connection in one turn of the loop, and not asyncio's 256 KB: those hold 44,000 chunks of
one byte, which take 20 ms."""
MOST_WAITING = 100
"""So many requests may wait for their turn on a connection, with heads as large as one may have. What is read at once
may be 3,600 small ones, and each takes 3 KB of memory."""
MOST_REFUSED = 100
"""So many connections above the most are told so. Any other is closed at once."""
BYTES_OF_A_CHUNK = 6
"""What the smallest chunk costs: `1`, its two line ends, and its one byte."""

log = structlog.get_logger("tristore.http")


class HttpProtocol(HttpToolsProtocol):
    """Answers a request that offers an upgrade (`Upgrade: h2c`, `websocket`, anything) as if it had offered none.
    httptools ends such a request after its headers: its body would be lost, or be taken for the next request. There are
    no WebSockets.

    Also: what is not HTTP gets its answer in its turn, and as a problem; trailers do not become headers; the rest of a
    body whose request is answered is discarded for a moment; a stream ends with its connection, although requests wait
    behind it; where too many wait, the last that may is answered with `Connection: close`, and a client sends the
    others again on another one; an answer that nobody takes ends with its connection.

    httptools has no bounds of its own. What is neither body nor its smallest chunks (heads, trailers, extensions of
    chunks, empty lines) is counted as it comes, and refused above the largest head: nothing of it waits in memory. A
    head that has come in one piece is not counted here: SizeBounds measures it."""

    _running: RequestResponseCycle | None = None
    _discarded = 0
    _beside_bodies: float = 0
    """Bytes since the data in which the newest request began."""
    _begun_here = False
    """Whether a request began in the data that is being parsed."""
    _in_head = False
    _head_room = MAX_HEADER_BYTES
    """Bytes that its headers may have yet."""
    _waiting_heads = 0
    """Bytes of the heads of requests that wait for their turn."""
    _waits_since = math.inf
    """When the head that is awaited began, or the silence before it. In seconds of the loop."""
    _body_until = math.inf
    """When more of the body that is awaited must have come. The sweep sets it until some has."""
    _held = 0
    """Bytes of bodies since no request was under way."""

    # The server's calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        with suppress(AttributeError):  # another event loop has another name for it
            transport.max_size = READ_AT_ONCE  # type: ignore[attr-defined]
        self._ending = _Ending(transport, self)
        self.unread = Unread(transport)
        self._waits_since = self.loop.time()
        self._all = _servers.setdefault(self.server_state, _Server())
        if not self._all.is_swept:
            self._all.is_swept = True
            self.loop.call_later(1, _sweep, self.loop, self.server_state)
        if (above := len(self.connections) - most_connections(self.config.backlog)) > 0:
            if above > MOST_REFUSED:
                self.transport.abort()
            else:
                self._refuse(503, "This process has no room for another connection.")

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._begun_here = False
        self._beside_bodies += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._decline_upgrades(memoryview(data)[offer.args[0] :])
        except Refused as refused:
            self._refuse(*refused.args)
        except httptools.HttpParserError as error:
            if not isinstance(self.parser, _Discard):  # then we have stopped it ourselves
                self._refuse(400, "This is not a request of HTTP/1.1.", reason=str(error))
        self._bound()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._all.unread.discard(self.unread)
        self._let_go()
        if self._running and not self._running.response_complete:  # super() tells the newest one only
            self._running.disconnected = True
            self._running.message_event.set()
        self._ending.close = self.transport.close  # no circle of references is left

    def pause_writing(self) -> None:
        super().pause_writing()
        self._all.unread.add(self.unread)
        _tell_of(give_up_the_largest(self._all.unread))  # the sweep is late for a hundred large answers in one second

    def resume_writing(self) -> None:
        super().resume_writing()
        self._all.unread.discard(self.unread)
        self.unread.is_taken = True

    def shutdown(self) -> None:
        self._all.is_ending = True
        if isinstance(self.parser, _Discard) and not self._is_answering():
            self.transport.close()
        else:
            super().shutdown()

    # The parser's calls

    def on_message_begin(self) -> None:
        if not self.pipeline:
            self._waiting_heads = 0
        if len(self.pipeline) >= MOST_WAITING or self._waiting_heads > MAX_HEADER_BYTES:
            self.cycle.keep_alive = False
            self.parser = _Discard(self)  # type: ignore[assignment]  # has what we call of it
            raise _TooManyWait
        super().on_message_begin()
        self._begun_here = self._in_head = True
        self._head_room = MAX_HEADER_BYTES
        self._waits_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_room < 0:  # what comes beyond is forgotten: SizeBounds refuses the sum of what came before
            return
        self._head_room -= len(name) + len(value) + LINE_BYTES
        name = name.lower()  # as super() does; to call it costs each header more than all of this
        value = value.rstrip(b" \t")  # no part of it (RFC 9110, section 5.5), and httptools leaves it there
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._waits_since, self._body_until = False, math.inf, math.inf
        if not self.parser.should_upgrade():
            self._waiting_heads += MAX_HEADER_BYTES - self._head_room
            self.cycle.keep_alive = self.cycle.keep_alive and not self._all.is_ending
            self.cycle.transport = self._ending  # type: ignore[assignment]  # has what a cycle calls
            if self.scope["http_version"] == "1.0":  # knows no chunks: a body without a length ends with its connection
                self.cycle.chunked_encoding, self.cycle.expected_content_length = False, _Unknown()
            self.headers = _NOTHING  # takes the trailers: the list so far belongs to the running request

    def on_body(self, body: bytes) -> None:
        self._beside_bodies -= BYTES_OF_A_CHUNK * len(body)
        cycle = self.cycle
        if cycle.response_complete:
            self._discard(len(body))
            return
        cycle.body += body
        self._held += len(body)
        self._all.held += len(body)
        self._body_until = min(self._body_until + len(body) / BODY_RATE, self.loop.time() + BODY_SECONDS)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        # super() then does nothing with the request: `data_received` has it parsed again.
        return True

    # The cycle's calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held and not self._is_answering():
            self._let_go()
        if self._running is self.cycle and self.cycle.more_body:
            self._discarded = 0
            self.loop.call_later(DISCARD_SECONDS, self._end_unless_read, self.cycle)

    def end(self) -> None:
        """Close the connection after the last answer. What still comes is discarded first: data that nobody has read
        turns the close into a reset, which takes the answer away from the client. An answer that was given up half way
        is worth nothing to the client: a close alone would wait for as long as nobody reads what is buffered of it."""
        if self._is_answering():
            self.loop.call_later(DISCARD_SECONDS, self.transport.abort)
        is_over = not (self.cycle.more_body or self.pipeline or isinstance(self.parser, _Discard))
        if self.transport.is_closing() or is_over:
            self.transport.close()
            return
        self.pipeline.clear()
        self.parser = _Discard(self)  # type: ignore[assignment]  # has what we call of it
        self.loop.call_later(DISCARD_SECONDS, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # The sweep's call

    def end_if_late(self, now: float) -> None:
        """Refuse a head that has taken too long, and a body that comes too slowly. Close a connection that has been
        silent since it was opened, or since an empty line, and one that takes nothing of an answer."""
        if self.unread.is_stuck(now, grows=self._is_answering() and not self.flow.write_paused):
            log.info("reader_cut_off", bytes=self.unread.size)
            self.unread.give_up()
            return
        if isinstance(self.parser, _Discard):
            return
        if self.flow.read_paused:  # the client is not to blame
            self._body_until = now + BODY_SECONDS
            if self._waits_since < math.inf:
                self._waits_since = now
        elif self._awaits_body():
            if self._body_until == math.inf:
                self._body_until = now + BODY_SECONDS
            elif now > self._body_until:
                self._refuse(408, f"A body must bring {BODY_RATE} bytes a second.")
        elif self._waits_since == math.inf:
            pass
        elif not self._in_head and self._is_answering():
            self._waits_since = now
        elif self._in_head and now - self._waits_since > HEAD_SECONDS:
            self._refuse(408, f"The head of a request must come within {HEAD_SECONDS} seconds.")
        elif not self._in_head and now - self._waits_since > self.timeout_keep_alive:
            self.transport.close()

    # Our own

    def _bound(self) -> None:
        if isinstance(self.parser, _Discard):
            return
        if self._held and self._all.held > MOST_HELD:
            self.pipeline.clear()
            self._let_go()
            self._refuse(503, "This process has no room for another body.")
            return
        if self._begun_here:
            self._beside_bodies = 0
            return
        in_body = self.cycle and self.cycle.more_body
        if not self._in_head and not in_body and self._waits_since == math.inf:
            self._waits_since = self.loop.time()  # an empty line: uvicorn has put its own timer off
        if self._beside_bodies <= MAX_HEADER_BYTES:
            return
        if self._in_head and len(self.url) > MAX_TARGET_BYTES:
            self._refuse(414, f"Path and query together may have {MAX_TARGET_BYTES} bytes.")
        elif self._in_head:
            self._refuse(431, HEADERS_TOO_LARGE)
        elif in_body:
            self._refuse(413, f"Trailers and extensions of chunks together may have {MAX_HEADER_BYTES} bytes.")
        else:
            self._refuse(400, "This is not a request of HTTP/1.1.", reason="empty lines")

    def _let_go(self) -> None:
        self._all.held -= self._held
        self._held = 0

    def _awaits_body(self) -> bool:
        return bool(self.cycle and self.cycle.more_body and not self.cycle.response_complete)

    def _is_answering(self) -> bool:
        return bool(self._running and not self._running.response_complete)

    def _decline_upgrades(self, data: memoryview) -> None:
        """Parse the head again, without its offer, and then what came after it. In a loop: many such requests may have
        come at once."""
        while True:
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise Refused(501, "This server is no proxy: it does not know CONNECT.")
            if self._head_room < 0:  # without its offer the head might seem small enough
                raise Refused(431, HEADERS_TOO_LARGE)
            lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
            lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as super() does
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]

    def _refuse(self, status: int, detail: str, reason: str = "") -> None:
        """Answer what cannot be read, after the requests before it, and close."""
        self.parser = _Discard(self)  # type: ignore[assignment]  # has what we call of it
        broken = self.cycle if self._awaits_body() else None
        if broken and broken.response_started:
            self.transport.abort()  # a second answer would become a part of the first
            return
        refusal: Any = Refusal(status, detail)
        log.info("request_refused", status=status, reason=reason, request_id=refusal.request_id)
        self.cycle = self._cycle_of(refusal)
        if broken:
            broken.disconnected = True
            broken.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
        if self.pipeline or (self._running is not broken and self._is_answering()):
            self.pipeline.appendleft((self.cycle, refusal))
        else:
            self._start_asgi_task(self.cycle, refusal)

    def _cycle_of(self, refusal: Refusal) -> RequestResponseCycle:
        scope: Any = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": "/",
            "query_string": b"",
            "headers": [],
            "request_id": refusal.request_id,
        }
        return RequestResponseCycle(
            scope=scope,
            transport=self._ending,  # type: ignore[arg-type]  # has what a cycle calls
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > DISCARD_BYTES:
            self.transport.close()

    def _end_unless_read(self, cycle: RequestResponseCycle) -> None:
        if self.cycle is cycle and cycle.more_body:
            self.transport.close()


@dataclass(eq=False)
class _Server:
    """What all connections of a server share."""

    is_swept: bool = False
    """Whether they are looked at once a second, for what takes too long."""
    held: int = 0
    """Bytes of bodies of requests that are not answered yet."""
    unread: set[Unread] = field(default_factory=set)
    """Of connections that take their answers more slowly than those come."""
    is_ending: bool = False
    """Whether it shuts down. A connection that was accepted just before would go on for as long as requests come."""


_servers: WeakKeyDictionary[ServerState, _Server] = WeakKeyDictionary()


def _sweep(loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
    now = loop.time()
    connections = [connection for connection in state.connections if isinstance(connection, HttpProtocol)]
    for connection in connections:
        connection.end_if_late(now)
    _tell_of(give_up_the_largest(connection.unread for connection in connections))
    if state.connections:
        loop.call_later(1, _sweep, loop, state)
    else:
        _servers[state].is_swept = False


def _tell_of(given_up: Collection[Unread]) -> None:
    if given_up:
        log.warning("readers_cut_off", connections=len(given_up))


class _Ending:
    """The transport that cycles see: its close leaves the client time to read."""

    def __init__(self, transport: asyncio.Transport, protocol: HttpProtocol) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, protocol.end


class _TooManyWait(Exception):
    """Nothing more is parsed."""


class _Nothing(list[tuple[bytes, bytes]]):
    """Forgets what is appended."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        pass


_NOTHING = _Nothing()


class _Unknown(int):
    """A length that any body has."""

    def __sub__(self, other: int) -> "_Unknown":
        return self

    def __lt__(self, other: int) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False


class _Discard:
    """Stands where the parser was when nothing is parsed any more."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        protocol._discarded = 0

    def feed_data(self, data: bytes) -> None:
        self._protocol._discard(len(data))
