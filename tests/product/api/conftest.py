"""What holds for all tests of the API."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.product.for_user import REFUSED, demand_locks
from tristore.stores.stores import Stores

_watched: dict[AsyncEngine, list[str]] = {}


@pytest.fixture(autouse=True)
async def tables_of_users(stores: Stores) -> AsyncIterator[list[str]]:
    """The tables that refer to users. Fails when the service writes for a user without a lock on the user."""
    engine = stores.postgres.engine
    if engine not in _watched:
        _watched[engine] = await demand_locks(engine)
    REFUSED.clear()
    yield _watched[engine]
    assert REFUSED == []
