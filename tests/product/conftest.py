"""What tests of several folders begin with."""

import httpx
import pytest

from tests.product.people import register_admin
from tristore.stores.stores import Stores


@pytest.fixture
async def admin(client: httpx.AsyncClient, stores: Stores) -> dict[str, str]:
    return await register_admin(client, stores)
