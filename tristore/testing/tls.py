"""TLS in front of a server that speaks none, as a managed store has it."""

import asyncio
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trustme

HANDSHAKE = b"\x16"
"""With which TLS begins, and no command of Redis."""
SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""With which a client of PostgreSQL asks for TLS:
https://www.postgresql.org/docs/current/protocol-message-formats.html"""
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Authority:
    """An authority that nobody else knows, and what it has issued: to the servers, and to a client."""

    ca: Path
    cert: Path
    key: Path
    server: Path
    """Certificate and key of a server that speaks TLS itself."""
    context: ssl.SSLContext = field(repr=False)
    """The servers'. Clients may show a certificate."""

    @classmethod
    def of(cls, folder: Path, *names: str) -> "Authority":
        """`names`: of servers, besides those of this machine."""
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        authority.configure_trust(context)
        server = authority.issue_cert(HOST, "localhost", *names)
        server.configure_cert(context)
        client = authority.issue_cert("app@example.org")
        made = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", folder / "server.pem", context)
        authority.cert_pem.write_to_path(made.ca)
        client.cert_chain_pems[0].write_to_path(made.cert)
        client.private_key_pem.write_to_path(made.key)
        server.private_key_and_cert_chain_pem.write_to_path(made.server)
        for path in (made.key, made.server):
            path.chmod(0o600)
        return made


class TlsFront:
    """Takes connections, and hands what comes on to a port of this machine."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self._behind = port
        self._context = context
        self.port = 0
        self.seen: Counter[str] = Counter()
        """How many came with "tls", in the "plain", and with a "certificate"."""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._note(writer)
        await self.hand_on(reader, writer)

    async def take_postgresql(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Its clients ask for TLS in the plain, if they want it."""
        first = await reader.readexactly(len(SSL_REQUEST))
        if first == SSL_REQUEST and self._context:
            writer.write(b"S")
            try:
                await writer.start_tls(self._context)
            except (OSError, ssl.SSLError):  # the client has refused the certificate
                return writer.close()
            first = b""
        self._note(writer)
        return await self.hand_on(reader, writer, first)

    def _note(self, writer: asyncio.StreamWriter) -> None:
        self.seen["tls" if writer.get_extra_info("ssl_object") else "plain"] += 1
        self.seen["certificate"] += bool(writer.get_extra_info("peercert"))

    async def hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b"") -> None:
        try:
            answers, asks = await asyncio.open_connection(HOST, self._behind)
        except OSError:  # whoever comes is refused, too
            return writer.close()
        asks.write(first)
        await asyncio.gather(_copy(reader, asks), _copy(answers, writer))
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tls_in_front_of(
    port: int, context: ssl.SSLContext | None, *, postgresql: bool = False, socket: Path | None = None
) -> AsyncIterator[TlsFront]:
    """At a free port, or at a socket, where nothing has TLS. `context` None: without TLS."""
    front = TlsFront(port, context)
    take = front.take_postgresql if postgresql else front.take
    if socket:
        server = await asyncio.start_unix_server(take, socket)
    else:
        server = await asyncio.start_server(take, HOST, ssl=None if postgresql else context)
        front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()


@asynccontextmanager
async def tls_or_plain_in_front_of(port: int, context: ssl.SSLContext) -> AsyncIterator[TlsFront]:
    """At one port. Servers that speak no TLS reach each other at the address where clients reach them with TLS."""
    async with tls_in_front_of(port, context) as front:
        with_tls, plain = TlsFront(front.port, None), TlsFront(port, None)

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = await reader.read(1)
            await (with_tls if first == HANDSHAKE else plain).hand_on(reader, writer, first)

        server = await asyncio.start_server(take, HOST)
        front.port = server.sockets[0].getsockname()[1]
        try:
            yield front
        finally:
            server.close()
