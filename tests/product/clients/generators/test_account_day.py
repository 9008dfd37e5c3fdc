"""A day of an account, as docs/clients/account.* show it: on generated clients, with answers that are lost all day."""

from pathlib import Path

import pytest

from tests.product.clients.generators.conftest import Run
from tests.product.clients.generators.scripts import Prepare, python, told_by, typescript
from tristore.testing.lab import App

LOST = [
    b'"email"',
    b'"token"',
    b"device=phone",
    b"POST /auth/password-reset ",
    b'"new_password"',
    b"PATCH /users/me",
    b"DELETE /users/me",
]


@pytest.mark.parametrize("prepare", [python, typescript])
async def test_an_account_is_kept_and_left_though_answers_are_lost_all_day(
    prepare: Prepare, app_with_mailbox: App, run: Run, document: Path
) -> None:
    told = await told_by("account", prepare, app_with_mailbox, run, document.parent, LOST)
    assert told == {
        "devices": ["laptop", "phone"],
        "after the reset": ["laptop"],
        "phone": 401,
        "moved": True,
        "erased": True,
        "over": 401,
    }
