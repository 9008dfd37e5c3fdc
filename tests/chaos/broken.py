"""Deliberately broken variants of the app, each a mistake that people make. The lab must find every one."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pymongo import WriteConcern

import dependencies
from database.stores import Stores
from tests.chaos.broken_outbox import (
    AfterResponse,
    CommitAfterResponse,
    DeliversNoRevocation,
    EffectsOutsideTransaction,
    RelayWithoutStreams,
    SupersedesInOneStatement,
    count_outages,
)
from tests.chaos.broken_stores import (
    DelInsteadOfFence,
    ErasureOnce,
    FillIgnoresFence,
    GivesBackEarly,
    StepRepeated,
    UndoesEarly,
    only_ping,
)

WIRING: dict[str, dict[str, type]] = {
    "effects-outside-transaction": {"PostgresUnitOfWork": EffectsOutsideTransaction},
    "commit-after-response": {"PostgresUnitOfWork": CommitAfterResponse},
    "relay-without-streams": {"OutboxRepository": RelayWithoutStreams},
    "supersede-as-it-was": {"OutboxRepository": SupersedesInOneStatement},
    "sign-out-delivers-nothing": {"Outbox": DeliversNoRevocation},
    "del-instead-of-fence": {"CacheRepository": DelInsteadOfFence},
    "fill-ignores-fence": {"CacheRepository": FillIgnoresFence},
    "saga-step-not-idempotent": {"SeatRepository": StepRepeated},
    "saga-undone-early": {"Sagas": UndoesEarly, "SeatRepository": GivesBackEarly},
    "erasure-once": {"ConversationRepository": ErasureOnce},
}
"""By name in `dependencies`."""
CODE: dict[str, Callable[[], None]] = {
    "probe-pings-only": only_ping,
    "attempts-counted-for-outages": count_outages,
}


def _acknowledge_early(mongodb: Any) -> None:
    mongodb.database = mongodb.database.with_options(write_concern=WriteConcern(w=1, j=False))


def _read_locally(mongodb: Any) -> None:
    mongodb.majority = mongodb.database


MONGODB: dict[str, Callable[[Any], None]] = {"w1": _acknowledge_early, "local-reads": _read_locally}
VARIANTS = (*WIRING, *CODE, *MONGODB)


def break_wiring(variant: str) -> None:
    """Let `dependencies.wire` build the broken class in place of the right one."""
    for name, broken in WIRING.get(variant, {}).items():
        setattr(dependencies, name, broken)
    if variant in CODE:
        CODE[variant]()


def break_stores(variant: str, stores: Stores) -> None:
    if variant in MONGODB:
        MONGODB[variant](stores.mongodb)


def break_app(variant: str, app: FastAPI) -> None:
    if variant == "commit-after-response":
        app.add_middleware(AfterResponse)
