"""Traces by OpenTelemetry: off, unless its own environment variables ask for them. See docs/traces.md.

Nothing of the SDK is imported here until traces are wanted.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

import structlog
from structlog.typing import EventDict

from tristore import spans
from tristore.settings import TristoreSettings

if TYPE_CHECKING:  # `manage.py run` does without
    from fastapi.telemetry import TelemetryConfig

FLUSH_SECONDS = 1.0
"""So long the end of the service waits for the last spans to be sent, whether or not the collector answers."""
NOT_TRACED = ("/health", "/metrics")
"""Probes and scrapes: they would be most of all traces, and nobody looks for them."""
CURE = "Install requirements/traces.lock, and see docs/traces.md for the exporters. The service runs without traces."

log = structlog.get_logger("tristore")


def are_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces: by an exporter, or by an endpoint to send them to."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if names := exporters(environment):
        return names != ["none"]
    return any(environment.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))


def exporters(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names in OTEL_TRACES_EXPORTER."""
    return [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "").split(",") if name.strip()]


def of_requests() -> "TelemetryConfig":
    """What FastAPI's own telemetry does: a span for each request, where traces are wanted. Else it would look for
    OpenTelemetry in each request. Its logs hold what exceptions say, its metrics are ours once more, and its spans of
    operations are several a request."""
    return {
        "tracing": are_wanted(),
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"].startswith(NOT_TRACED),
    }


@contextmanager
def exporting(settings: TristoreSettings) -> Iterator[None]:
    """Make spans and send them, if they are wanted, until the block ends. Nothing of it can keep the service from
    serving: without the SDK, or the exporter that is asked for, it says so and does without. Enter it before the stores
    are opened."""
    if not are_wanted():
        yield
        return
    try:
        from tristore.ops import open_telemetry

        provider = open_telemetry.provider_for(
            settings.app_name, [open_telemetry.exporter_named(name) for name in exporters() or ["otlp"]]
        )
    except Exception as error:  # noqa: BLE001 - such as a variable that the exporter cannot read
        told = str(error) if isinstance(error, ImportError | LookupError) else type(error).__name__
        log.error("traces_off", error=told, cure=CURE)  # noqa: TRY400 - others may tell what a variable holds
        yield
        return
    open_telemetry.use(provider)
    try:
        yield
    finally:
        spans.use(None)
        sending = Thread(target=provider.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)


def add_ids(logger: object, method: str, event: EventDict) -> EventDict:
    """A processor of structlog: a line that is logged within a span has the ids of it and its trace."""
    if ids := spans.ids():
        event["trace_id"], event["span_id"] = ids
    return event
