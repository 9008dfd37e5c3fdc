"""What no field must hold, and the answer that names the field."""

import json
from typing import Any

import httpx

from tests.product.people import register

JSON = {"Content-Type": "application/json"}
SECRET = "hunter2-should-never-come-back"
BAD_TEXT: dict[str, Any] = {
    "number": 7,
    "list": [SECRET],
    "object": {"a": SECRET},
    "null": None,
    "empty": "",
    "blank": " ",
    "too long": "x" * 12_000,
    "NUL": f"{SECRET}\x00",
    "lone surrogate": f"{SECRET}\ud800",
    "huge number": 10**30,
    "true": True,
}


async def send(client: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
    headers = await register(client) | JSON
    if "{id}" in path:
        made = await client.post("/conversations", headers=headers, json={"title": "t"})
        path = path.replace("{id}", made.json()["id"])
    content = json.dumps(body).encode()  # NaN and surrogates too, as a careless client would send them
    return await client.request(method, path, headers=headers, content=content)


def assert_names(answer: httpx.Response, field: str) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in {error["field"].split(".")[0] for error in answer.json()["errors"]}
    assert SECRET not in answer.text
