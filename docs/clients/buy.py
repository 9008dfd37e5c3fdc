"""Orders a seat, on a connection that may break at any time: `python buy.py http://localhost:8000`.

`chatlingo_client` is what openapi-python-client has made of the API's document."""

import asyncio
import json
import sys
import uuid
from typing import Any

from chatlingo_client import AuthenticatedClient, Client
from chatlingo_client import models as m
from chatlingo_client.api.auth import sign_in
from chatlingo_client.api.courses import list_courses
from chatlingo_client.api.orders import list_orders, place_order, read_order
from chatlingo_client.api.users import register
from retries import Retry

PASSWORD = "correct horse 9"  # noqa: S105 - an example


async def main(api: str) -> dict[str, Any]:
    name = f"ana-{uuid.uuid4().hex[:8]}"
    connection = {"base_url": api, "httpx_args": {"transport": Retry()}}
    client = Client(**connection)
    good(await register.asyncio(client=client, body=m.Registration(name, f"{name}@example.com", PASSWORD)))
    token = good(await sign_in.asyncio(client=client, body=m.SignIn(name, PASSWORD))).access_token
    client = AuthenticatedClient(token=token, **connection)

    course = good(await list_courses.asyncio(client=client)).items[0]
    order = good(await place_order.asyncio(client=client, body=m.OrderIn(course_id=course.id)))
    while order.status == "pending":
        await asyncio.sleep(1)
        order = good(await read_order.asyncio(client=client, order_id=order.id))
    return {"order": order.status, "orders": len(good(await list_orders.asyncio(client=client)).items)}


def good(answer: Any) -> Any:  # or raise what is wrong
    if answer is None or isinstance(answer, m.Problem):
        raise RuntimeError(answer)
    return answer


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))  # noqa: T201 - it tells what it did
