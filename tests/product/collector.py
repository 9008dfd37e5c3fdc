"""What spans are sent to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """Takes what OTLP sends over HTTP."""

    port: int = 0
    answers: bool = True
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def running(cls, *, answers: bool = True) -> AsyncIterator["Collector"]:
        collector = cls(answers=answers)
        server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
        collector.port = server.sockets[0].getsockname()[1]
        try:
            yield collector
        finally:
            server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # until the client hangs up
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
                if self.answers:
                    self.take(ExportTraceServiceRequest.FromString(body))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
        writer.close()

    def take(self, sent: ExportTraceServiceRequest) -> None:
        for of_service in sent.resource_spans:
            told = {one.key: one.value.string_value for one in of_service.resource.attributes}
            self.services.add(told["service.name"])
            self.spans += [span for scope in of_service.scope_spans for span in scope.spans]

    @property
    def environment(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]
