"""The spans of this process, as they would leave it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind

from tristore import spans
from tristore.ops.open_telemetry import Discreet, Tracer, provider_for


class Kept:
    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Raises ValueError where there is none, or another."""
        [span] = self.named(name)
        return span

    def within(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """What it has for children."""
        return [span for span in self.all() if span.parent and span.parent.span_id == context_of(parent).span_id]

    def trace_of(self, span: ReadableSpan) -> list[ReadableSpan]:
        """All of its trace, the earliest first."""
        mine = [one for one in self.all() if context_of(one).trace_id == context_of(span).trace_id]
        return sorted(mine, key=lambda one: one.start_time or 0)

    def because_of(self, request: SpanContext) -> list[ReadableSpan]:
        """Traces of their own that name it."""
        return [span for span in self.all() if request in linked(span) and span.parent is None]

    def text(self) -> str:
        """All that is told of all of them."""
        return "\n".join(span.to_json(indent=None) for span in self.all())


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context
    return context


def linked(span: ReadableSpan) -> list[SpanContext]:
    """What it names, as if it were of this process: so it can be compared."""
    named = [link.context for link in span.links]
    return [SpanContext(one.trace_id, one.span_id, is_remote=False, trace_flags=one.trace_flags) for one in named]


@cache
def _of_process() -> tuple[TracerProvider, InMemorySpanExporter]:
    # OpenTelemetry takes one provider for each process, and never another.
    exporter = InMemorySpanExporter()
    provider = provider_for("tests", [])
    provider.add_span_processor(SimpleSpanProcessor(Discreet(exporter)))
    trace.set_tracer_provider(provider)
    return provider, exporter


@contextmanager
def traced() -> Iterator[Kept]:
    """Traces are on. Of stores, only those that are opened in the block are watched."""
    provider, exporter = _of_process()
    exporter.clear()
    spans.use(Tracer(provider))
    try:
        yield Kept(exporter)
    finally:
        spans.use(None)


@contextmanager
def request(name: str = "POST /things") -> Iterator[SpanContext]:
    """Stands for what FastAPI makes of a request."""
    with trace.get_tracer("tests").start_as_current_span(name, kind=SpanKind.SERVER) as span:
        yield span.get_span_context()
