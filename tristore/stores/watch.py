"""Asks PostgreSQL once a second what no request would learn in time."""

import asyncio
import time

import structlog

from tristore.errors import StoreUnavailable
from tristore.stores.postgres import Postgres, ping, translate_errors
from tristore.stores.replica import POSITION

log = structlog.get_logger()

SECONDS = 1.0


class PostgresWatch:
    """Whether it takes writes, which history its data has (a pooler hides a failover), and how far the replica is
    behind."""

    def __init__(self, postgres: Postgres, timeout: float) -> None:
        """`timeout`: seconds that each server may take."""
        self._postgres = postgres
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Once. Never raises."""
        try:
            async with asyncio.timeout(self._timeout):
                await ping(self._postgres)
            if self._postgres.replica:
                await self._look_at_replica()
        except (StoreUnavailable, TimeoutError):
            pass  # whoever needs PostgreSQL says so
        except Exception:
            log.exception("watch_failed")  # whatever it is, it must not end the watch

    async def _look_at_replica(self) -> None:
        replica = self._postgres.replica
        assert replica
        async with asyncio.timeout(self._timeout):
            with translate_errors():
                async with self._postgres.probe_engine.connect() as connection:
                    at = time.monotonic()
                    position = await connection.scalar(POSITION)
        try:
            async with asyncio.timeout(self._timeout):
                with translate_errors():
                    await replica.look(position, at, self._postgres.lineage.name)
        except (StoreUnavailable, TimeoutError) as error:
            replica.leave_out(repr(error))

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(SECONDS)
