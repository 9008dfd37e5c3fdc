"""What several tests of faults share."""

from collections.abc import AsyncIterator

import pytest

from tests.under_test import Lab, fresh_databases


@pytest.fixture
async def apart(lab: Lab) -> AsyncIterator[Lab]:
    """The lab's servers with databases of the test's own, which no other app's relay delivers from."""
    async with fresh_databases(lab.servers) as settings:
        yield lab.on(settings)
