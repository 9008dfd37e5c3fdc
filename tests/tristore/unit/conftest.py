"""Stores of their own for the tests of the outbox, empty at the start of each."""

from collections.abc import AsyncIterator

import pytest

from tristore.stores.stores import Stores
from tristore.testing.outbox import Journal, empty, stores_apart
from tristore.testing.stores import Servers


@pytest.fixture(scope="module")
async def own(servers: Servers) -> AsyncIterator[Stores]:
    async with stores_apart(servers) as stores:
        yield stores


@pytest.fixture
async def fresh(own: Stores) -> Stores:
    return await empty(own)


@pytest.fixture
def journal() -> Journal:
    return Journal()
