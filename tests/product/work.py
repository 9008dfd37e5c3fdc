"""What a request does in the stores, whatever its values: for answers whose time must not tell anything."""

from collections import Counter

from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy import event

from tristore import spans
from tristore.stores.stores import Stores
from tristore.testing.traces import Kept

ENDS_OF_TRANSACTIONS = ("begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint")


def note_transactions(stores: Stores) -> None:
    """Let each of them be a span of the request that it is of, besides the calls that traces show."""
    for engine in (stores.postgres.engine, stores.postgres.background):
        for name in ENDS_OF_TRANSACTIONS:

            def note(*_: object, name: str = name) -> None:
                with spans.call("postgresql", f"event {name}"):
                    pass

            event.listen(engine.sync_engine, name, note)


def work_of(kept: Kept, request: ReadableSpan) -> Counter[str]:
    """The calls of a request, and of the effects that it has applied, each with the error that it ended with. In no
    order: some are made at once."""
    done = [span for span in kept.trace_of(request) if span is not request]
    return Counter(f"{span.name} {(span.attributes or {}).get('error.type', '')}".strip() for span in done)
