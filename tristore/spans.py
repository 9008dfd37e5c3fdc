"""Spans of traces: where they begin and end. `tristore.ops.tracing` gives what makes them, where traces are wanted.
Until then nothing here does anything, and nothing of OpenTelemetry is needed.

A span has names of operations, tables and effects, and classes of errors. It never has a value, a key or an address.
"""

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol


class Span(Protocol):
    def end(self, error: str = "") -> None:
        """`error`: the name of what went wrong, never its text, which may hold data."""


class Tracer(Protocol):
    """What makes spans."""

    def call(self, system: str, operation: str, target: str) -> Span | None:
        """A call to a store. None outside of a span that is recorded: of polls and probes there would be most."""

    def delivery(
        self, effect: str, queue: str, id_: int | None, traceparent: str | None
    ) -> AbstractContextManager[object]: ...

    def step(self, saga: str, step: str, traceparent: str | None) -> AbstractContextManager[object]: ...

    def traceparent(self) -> str | None: ...

    def ids(self) -> tuple[str, str] | None: ...


_NOTHING = nullcontext()
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """From now on in this process. Before the stores are opened: their clients are watched, or not, from then on."""
    global _tracer
    _tracer = tracer


def are_on() -> bool:
    return _tracer is not None


class _Ending:
    """Ends a span with a block."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.end(kind.__qualname__ if kind else "")


def begin(system: str, operation: str, target: str = "") -> Span | None:
    """Begin a call to a store, for whoever sees its beginning and its end apart. `target`: its table or collection.
    None when there is nothing to end."""
    return _tracer.call(system, operation, target) if _tracer else None


def call(system: str, operation: str, target: str = "") -> AbstractContextManager[object]:
    """A block that is one call to a store."""
    span = begin(system, operation, target)
    return _Ending(span) if span else _NOTHING


def delivery(
    effect: str, queue: str, id_: int | None = None, traceparent: str | None = None
) -> AbstractContextManager[object]:
    """A block that applies an effect. `traceparent`: of the request that owes it, where that is over."""
    return _tracer.delivery(effect, queue, id_, traceparent) if _tracer else _NOTHING


def step(saga: str, name: str, traceparent: str | None) -> AbstractContextManager[object]:
    """A block that does or undoes the next steps of a saga. `traceparent`: of the request that has begun it."""
    return _tracer.step(saga, name, traceparent) if _tracer else _NOTHING


def traceparent() -> str | None:
    """Names the present span as W3C Trace Context writes it, for what is done later. None outside of any."""
    return _tracer.traceparent() if _tracer else None


def ids() -> tuple[str, str] | None:
    """The ids of the present trace and span, for logs. None outside of any."""
    return _tracer.ids() if _tracer else None
