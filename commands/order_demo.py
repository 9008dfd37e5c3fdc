"""What `manage.py demo` shows of orders."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from functools import partial

from commands.demo import Cast, insisting
from tristore.testing.demo import Act

SETTINGS = {"order_deadline": 60}
"""Seconds: whoever stops a store on the page takes their time. So long, too, a seat's marker is owed."""


def acts_of(cast: Cast) -> dict[str, Act]:
    return {"A learner orders a seat": partial(orders, cast)}


async def orders(cast: Cast) -> AsyncIterator[str]:
    """Asks until it is decided, with the same key: it is one order, however often it is asked for."""
    key = {"Idempotency-Key": secrets.token_hex(8)}
    while True:
        body = {"course_id": cast.course, "quantity": 1}
        async for answer in insisting(cast.api, "POST", "/orders", json=body, headers=key):
            yield _told(answer.status_code, answer.json())
        if answer.status_code != 202:
            return
        await asyncio.sleep(0.5)


def _told(status: int, body: dict[str, str]) -> str:
    match status:
        case 201:
            return "201: confirmed, seat in MongoDB, points in PostgreSQL"
        case 202:
            return "202: pending, MongoDB counts the seats"
        case 503:
            return "503: asks again, with the same key"
    return f"{status}: {body['detail']}"
