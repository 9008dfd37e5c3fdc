"""Spans by OpenTelemetry's SDK. Imported only where traces are wanted: it comes with `requirements/traces.lock`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from tristore import spans
from tristore.outbox.effects import NotYet

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
PROPAGATOR = TraceContextTextMapPropagator()
OTLP = {"http/protobuf": "otlp_proto_http", "http/json": "otlp_json_http", "grpc": "otlp_proto_grpc"}
"""The names that exporters have as plugins, by the protocol that OTEL_EXPORTER_OTLP_PROTOCOL names."""
KEPT = frozenset(
    "db.system.name db.operation.name db.collection.name error.type"
    " http.request.method http.response.status_code http.route network.protocol.version url.scheme"
    " messaging.destination.name messaging.message.id messaging.operation.name messaging.operation.type"
    " messaging.system tristore.saga tristore.saga.step".split()
)
"""What of a span is sent. Each is a name, a number or one of a few words; none is a value of somebody's."""
OWN = "app."
"""How the names of attributes begin that the product answers for."""


def exporter_named(name: str) -> SpanExporter:
    """The installed exporter of that name. Raises LookupError when there is none, and ImportError."""
    if name == "otlp":
        protocols = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next(filter(None, map(os.environ.get, protocols)), "http/protobuf")
        name = OTLP.get(protocol, protocol)
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        raise LookupError(f"no exporter {name} is installed")
    exporter: SpanExporter = found[0].load()()
    return exporter


def provider_for(service: str, exporters: Sequence[SpanExporter]) -> TracerProvider:
    """`service`: its name, where the environment gives none."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.sampler = AsTheRequest(provider.sampler)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(Discreet(exporter)))
    return provider


def use(provider: TracerProvider) -> None:
    """From now on in this process, by FastAPI and by the machinery."""
    trace.set_tracer_provider(provider)
    spans.use(Tracer(provider))


class Discreet(SpanExporter):
    """Lets out of the process what spans are for, whoever has made them: no text of an error, no path, no address, no
    statement."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_without_values(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_values(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=_kept(span.attributes),
        links=[Link(link.context) for link in span.links],
        kind=span.kind,
        status=Status(span.status.status_code),  # its description is the text of an error
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _kept(attributes: Attributes) -> Attributes:
    return {name: value for name, value in (attributes or {}).items() if name in KEPT or name.startswith(OWN)}


class AsTheRequest(Sampler):
    """Decides about a delivery as about the request that owes it. It is a trace of its own, so by itself it would be
    decided anew: with one trace in a hundred, one delivery in ten thousand would have its request beside it."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if links and not trace.get_current_span(parent_context).get_span_context().is_valid:
            request = links[0].context
            parent_context = trace.set_span_in_context(trace.NonRecordingSpan(request), Context())
            trace_id = request.trace_id
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"AsTheRequest({self._sampler.get_description()})"


class Call:
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, error: str = "") -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracer:
    """See `tristore.spans`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("tristore", schema_url=SCHEMA)

    def call(self, system: str, operation: str, target: str) -> Call | None:
        if not trace.get_current_span().is_recording():
            return None
        attributes = {"db.system.name": system, "db.operation.name": operation}
        if target:
            attributes["db.collection.name"] = target
        name = f"{operation} {target}" if target else operation
        return Call(self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes))

    def delivery(
        self, effect: str, queue: str, id_: int | None, traceparent: str | None
    ) -> AbstractContextManager[object]:
        attributes = {
            "messaging.system": "tristore",
            "messaging.operation.name": "apply",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue,
        }
        if id_ is not None:
            attributes["messaging.message.id"] = str(id_)
        kind = SpanKind.INTERNAL if _present().is_valid else SpanKind.CONSUMER
        return self._spanning(f"apply {effect}", kind, attributes, traceparent)

    def step(self, saga: str, step: str, traceparent: str | None) -> AbstractContextManager[object]:
        attributes = {"tristore.saga": saga, "tristore.saga.step": step}
        return self._spanning(f"saga {saga} {step}", SpanKind.INTERNAL, attributes, traceparent)

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def ids(self) -> tuple[str, str] | None:
        present = _present()
        if not present.is_valid:
            return None
        return trace.format_trace_id(present.trace_id), trace.format_span_id(present.span_id)

    @contextmanager
    def _spanning(
        self, name: str, kind: SpanKind, attributes: Mapping[str, str], traceparent: str | None
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=attributes,
            links=_links(traceparent),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                if not isinstance(error, NotYet):  # which is expected, and asked again
                    span.set_status(StatusCode.ERROR)
                raise


def _present() -> SpanContext:
    return trace.get_current_span().get_span_context()


def _links(traceparent: str | None) -> list[Link]:
    """To what it names; none where it names nothing, such as in a row of a release that does not know it."""
    carrier = {"traceparent": traceparent} if traceparent else {}
    named = trace.get_current_span(PROPAGATOR.extract(carrier)).get_span_context()
    return [Link(named)] if named.is_valid else []
