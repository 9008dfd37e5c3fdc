"""Delivers what a committed transaction owes to the other stores."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import cast

import structlog

from models.outbox import Effect
from services.effects import Applicable, Targets

log = structlog.get_logger()


class Outbox:
    def __init__(self, targets: Targets, deadline: float) -> None:
        self._targets = targets
        self._deadline = deadline
        self.failed: Counter[str] = Counter()

    async def deliver(self, effects: Sequence[Effect]) -> None:
        """Apply all at once, within the deadline (seconds). What fails is logged and counted, never raised: the
        transaction is committed, and the request has succeeded."""
        await asyncio.gather(*(self._apply(cast(Applicable, effect)) for effect in effects))

    async def _apply(self, effect: Applicable) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                await effect.apply(self._targets)
        except Exception as error:  # noqa: BLE001 - whatever it is, the transaction is committed
            name = type(effect).__name__
            self.failed[name] += 1
            log.warning("effect_failed", effect=name, store=effect.store, error=type(error).__name__)
