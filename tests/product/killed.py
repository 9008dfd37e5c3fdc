"""Kills the app at a chosen call to a store."""

import asyncio
import os
from typing import Any

import httpx

from tests.under_test import Lab, doomed_app
from tristore.testing.lab import answers

# Each kill costs the start of a process. `make test-faults` kills at every call, the short form at every fifth.
STRIDE = 1 if os.environ.get("FAULTS") == "all" else 5


async def killed_at(lab: Lab, n: int, method: str, path: str, headers: dict[str, str], body: Any) -> bool:
    """Send one request to an app that dies at its n-th call to a store. Returns whether it died."""
    async with doomed_app(lab, OUTBOX_POLL_SECONDS="30") as doomed:  # its relay's calls count too: few of them
        try:
            await doomed.client.request(method, path, headers={**headers, "X-Kill-At": str(n)}, json=body)
            await asyncio.sleep(0.3)  # what goes on after the answer counts too
        except httpx.TransportError:
            pass
        return doomed.process.returncode is not None or not await answers(doomed.client, "/health/live")
