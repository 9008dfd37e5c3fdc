"""Deliberately broken variants of the app, each a mistake that people make. The lab must find every one."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from pymongo import WriteConcern
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

import wiring
from tests.chaos.broken_outbox import (
    AfterResponse,
    CommitAfterResponse,
    DeliversNoRevocation,
    EffectsOutsideTransaction,
    NeverPauses,
    RelayWithoutStreams,
    SupersedesInOneStatement,
    count_outages,
)
from tests.chaos.broken_stores import (
    DelInsteadOfFence,
    ErasureOnce,
    FillIgnoresFence,
    only_ping,
)
from tests.chaos.guests import guests
from tristore.ops import components
from tristore.stores.stores import Stores

WIRING: dict[str, Mapping[str, type]] = {
    "effects-outside-transaction": {"UnitOfWork": EffectsOutsideTransaction},
    "commit-after-response": {"UnitOfWork": CommitAfterResponse},
    "relay-without-streams": {"OutboxRepository": RelayWithoutStreams},
    "supersede-as-it-was": {"OutboxRepository": SupersedesInOneStatement},
    "sign-out-delivers-nothing": {"Outbox": DeliversNoRevocation},
    "attempts-counted-for-outages": {"Outbox": NeverPauses},
    "del-instead-of-fence": {"FencedCache": DelInsteadOfFence},
    "fill-ignores-fence": {"Fence": FillIgnoresFence},
    "erasure-once": {"ConversationRepository": ErasureOnce},
}
"""By name in `wiring`, or in `components`, which builds the machinery."""
for guest in guests():
    WIRING |= guest.variants
CODE: dict[str, Callable[[], None]] = {
    "probe-pings-only": only_ping,
    "attempts-counted-for-outages": count_outages,
}


def _acknowledge_early(mongodb: Any) -> None:
    mongodb.database = mongodb.database.with_options(write_concern=WriteConcern(w=1, j=False))


def _read_locally(mongodb: Any) -> None:
    mongodb.majority = mongodb.database


MONGODB: dict[str, Callable[[Any], None]] = {"w1": _acknowledge_early, "local-reads": _read_locally}
VARIANTS = tuple(dict.fromkeys((*WIRING, *CODE, *MONGODB)))
KEY_SHARE = re.compile(r" FOR KEY SHARE( OF \w+)?")


def _lock_no_user(engine: AsyncEngine) -> None:
    """Let nobody who owes something for a user keep an erasure waiting."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute", retval=True)
    def unlock(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return KEY_SHARE.sub("", statement), parameters


def break_wiring(variant: str) -> None:
    """Let the services be built with the broken class in place of the right one."""
    for name, broken in WIRING.get(variant, {}).items():
        setattr(wiring if hasattr(wiring, name) else components, name, broken)
    if variant in CODE:
        CODE[variant]()


def break_stores(variant: str, stores: Stores) -> None:
    if variant in MONGODB:
        MONGODB[variant](stores.mongodb)
    if variant == "supersede-as-it-was":
        _lock_no_user(stores.postgres.engine)


def break_app(variant: str, app: FastAPI) -> None:
    if variant == "commit-after-response":
        app.add_middleware(AfterResponse)
