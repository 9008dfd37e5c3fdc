"""What concerns the process as a whole: its logs and its end."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

from tristore.ops import tracing
from tristore.settings import TristoreSettings

# Without local variables: those hold secrets.
TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))

OWN_LOGGERS = ("access", "tristore", "uvicorn")


def configure_logging(settings: TristoreSettings) -> None:
    """Send every logger, the standard library's too, to standard error: JSON in production, readable lines locally."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([tracing.add_ids] if tracing.are_wanted() else []),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(settings)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # drivers that tell more would tell rows and documents
    for name in (*OWN_LOGGERS, *settings.own_loggers):
        logging.getLogger(name).setLevel(settings.log_level)
    logging.getLogger("security").setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # our own access line has the request's id


def _rendering(settings: TristoreSettings) -> list[structlog.typing.Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if settings.environment == "production":
        return [strip, TRACEBACKS, structlog.processors.JSONRenderer()]
    return [
        strip,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


def spare_collections() -> None:
    """Make garbage collections fewer and smaller. What exists now stays as long as the process: each full collection
    looked through all of it, and stopped the loop for 65 ms. Hundreds of requests in flight hold more than Python's
    threshold of 700 objects: it looked at them over and over, for 6 % of the processor time."""
    gc.collect()  # what is garbage already would stay for good
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)


@contextmanager
def draining(start: Callable[[], None], end_streams: Callable[[], None], seconds: float) -> Iterator[None]:
    """On SIGTERM, call `start`, and let the server stop `seconds` later: load balancers need that long to see that the
    process is no longer ready. A second SIGTERM, or SIGINT, ends the wait. `end_streams` is called when the server
    stops, because it would wait for open streams. Earlier, their clients would only come back to this process."""
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if not callable(handlers[signal.SIGTERM]):  # no server runs us: a test does
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(end_streams)
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        start()
        signal.signal(number, stop)
        loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
