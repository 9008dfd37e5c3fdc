"""The stores' clients while traces are on: each call within a traced request, or a traced delivery, is a span. Its
name is what is done and to which table or collection. Values, keys and statements stay out of it.

The instrumentation libraries of OpenTelemetry are not used, because they tell what errors say: see decision 46.
"""

import re
from functools import lru_cache
from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from redis.asyncio import Redis
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from tristore import spans

TABLE = r'\s+"?([a-z_]\w*)"?(?![\w(])'
CHANGES = r"(INSERT) INTO|(DELETE) FROM|(?<!FOR )(?<!KEY )(UPDATE)(?!\s+SET\b)"
CHANGED = re.compile(rf"\b(?:{CHANGES}){TABLE}", re.IGNORECASE)
READ = re.compile(rf"\bFROM{TABLE}", re.IGNORECASE)
SPAN = "tristore_span"


@lru_cache(1024)
def named(sql: str) -> tuple[str, str]:
    """What a statement does first to a table, and to which: a change, or else a read. Empty where it names none."""
    if changed := CHANGED.search(sql):
        *verbs, table = changed.groups()
        return next(filter(None, verbs)).upper(), table.lower()
    read, word = READ.search(sql), sql.split(None, 1)[0].upper()
    return "SELECT" if word == "WITH" else word, read[1].lower() if read else ""


def watch(engine: Engine) -> None:
    event.listen(engine, "before_cursor_execute", _begun)
    event.listen(engine, "after_cursor_execute", _done)
    event.listen(engine, "handle_error", _failed)


def _begun(connection: object, cursor: object, statement: str, parameters: object, context: object, many: bool) -> None:
    setattr(context, SPAN, spans.begin("postgresql", *named(statement)))


def _done(connection: object, cursor: object, statement: str, parameters: object, context: object, many: bool) -> None:
    _end(context)


def _failed(failure: ExceptionContext) -> None:
    _end(failure.execution_context, type(failure.original_exception).__qualname__)


def _end(context: object, error: str = "") -> None:
    if span := getattr(context, SPAN, None):
        setattr(context, SPAN, None)
        span.end(error)


class Commands(CommandListener):
    """Of MongoDB. Motor tells of them in its threads, which have the context of the caller."""

    def __init__(self) -> None:
        self._spans: dict[int, spans.Span] = {}

    def started(self, event: CommandStartedEvent) -> None:
        target = event.command.get(event.command_name)
        if span := spans.begin("mongodb", event.command_name, target if isinstance(target, str) else ""):
            self._spans[event.request_id] = span

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._end(event.request_id)

    def failed(self, event: CommandFailedEvent) -> None:
        told = event.failure
        self._end(event.request_id, told.get("codeName") or told.get("errtype") or "OperationFailure")

    def _end(self, request_id: int, error: str = "") -> None:
        if span := self._spans.pop(request_id, None):
            span.end(error)


class WatchedRedis(Redis):
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with spans.call("redis", str(args[0])):
            execute: Any = super().execute_command  # it has no types
            return await execute(*args, **options)
