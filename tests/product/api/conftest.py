"""What holds for all tests of the API."""

import pytest

from tests.product.for_user import demand_locks
from tristore.stores.stores import Stores


@pytest.fixture(scope="session", autouse=True)
async def tables_of_users(stores: Stores) -> list[str]:
    """Whatever a test makes the service write for a user must be under the user's lock. The tables that refer to
    users."""
    return await demand_locks(stores.postgres.engine)
