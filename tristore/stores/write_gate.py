"""What keeps requests away from a PostgreSQL that takes no writes."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from tristore.errors import StoreUnavailable

log = structlog.get_logger()

WATCH_SECONDS = 0.5


class WriteGate:
    """Closed from the moment PostgreSQL is seen to take no writes until a probe sees that it does again. Meanwhile no
    request checks a connection out. Connections from before may lead to a server that was demoted: each is replaced at
    its next checkout."""

    def __init__(self) -> None:
        self.is_closed = False
        self.generation = 0
        """Of connections. Those of an earlier one are replaced at their next checkout."""
        self.probe: Callable[[], Awaitable[None]]
        self._watching: asyncio.Task[None] | None = None

    def close(self, generation: int, cause: str = "") -> None:
        """`generation`: as it was when the refused statement began. What an older connection says is known already."""
        if self.is_closed or generation != self.generation:
            return
        self.is_closed = True
        self.replace_connections()
        log.warning("postgresql_read_only", cause=cause)
        self._watching = asyncio.create_task(self._watch())

    def replace_connections(self) -> None:
        """They may lead to a server that takes no writes, or hangs."""
        self.generation += 1

    def open(self) -> None:
        if self.is_closed:
            self.is_closed = False
            log.info("postgresql_writable")

    async def stop(self) -> None:
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while self.is_closed:
            try:
                async with asyncio.timeout(1):
                    await self.probe()
            except (StoreUnavailable, TimeoutError):
                pass
            except Exception:
                log.exception("probe_failed")  # whatever it is, the gate must not stay closed for it
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.5, 1))
