"""What the README says about reading the code is true."""

import re
import sys
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import httpx

from database.stores import Stores
from tests.product.people import register

PROJECT = Path(__file__).parents[3]
SIGN_IN = {"services/auth_service.py", "services/rate_limit_service.py", "repositories/session_repo.py"}
"""They find out who asks. The README leaves that out."""
ROOMS = ("routers/", "services/", "repositories/")


async def test_own_profile_is_read_in_the_four_files_that_the_readme_names(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    readme = (PROJECT / "README.md").read_text()
    [paragraph] = re.findall(r"^Once you are signed in.*?\n\n", readme, re.DOTALL | re.MULTILINE)
    named = {path for path in re.findall(r"`(\w+/\w+\.py)`", paragraph) if path.startswith(ROOMS)}
    assert len(named) == 4
    headers = await register(client)
    await client.get("/courses", headers=headers)  # the session is cached, the profile is not
    copies = [key async for key in stores.redis.client.scan_iter() if f"user:{headers['X-User-Id']}".encode() in key]
    await stores.redis.client.delete(*copies)
    ran: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and asking.get(False) and path.is_relative_to(PROJECT):
            ran.add(str(path.relative_to(PROJECT)))

    asking: ContextVar[bool] = ContextVar("asking")  # relays, which deliver meanwhile, have begun before it is set
    asking.set(True)
    sys.setprofile(note)
    try:
        answer = await client.get("/users/me", headers=headers)
    finally:
        sys.setprofile(None)
    assert answer.status_code == 200
    assert {path for path in ran if path.startswith(ROOMS)} - SIGN_IN == named
