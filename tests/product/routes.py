"""The operations of the API's document, and somebody who has one of everything that they act on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.product.people import register, register_admin
from tests.samples import HELD_BACK, SAMPLES, about, with_ids
from tristore.stores.stores import Stores
from tristore.testing.outbox import query

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    document: dict[str, Any]
    examples: list[dict[str, Any]]
    """Of its body."""

    @property
    def name(self) -> tuple[str, str]:
        return self.method, self.path

    @property
    def is_for_admins(self) -> bool:
        return "403" in self.document["responses"] and self.name not in HELD_BACK

    @property
    def has_no_end(self) -> bool:
        """Whether the answer is a stream of events. A client of an app in this process would wait for all of it."""
        return "text/event-stream" in self.document["responses"].get("200", {}).get("content", {})

    @property
    def media_type(self) -> str:
        [media_type] = self.document["requestBody"]["content"]
        return str(media_type)

    async def send(
        self,
        client: httpx.AsyncClient,
        headers: dict[str, str],
        ids: Mapping[str, str],
        example: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """With this example of a body, or the document's first, if the operation takes one."""
        example = example or (self.examples[0] if self.examples else None)
        part = "data" if example and self.media_type == FORM else "json"
        body: dict[str, Any] = {part: about(ids, example)} if example else {}
        return await client.request(self.method, with_ids(self.path, ids), headers=headers, **body)


def operations_of(document: dict[str, Any]) -> list[Operation]:
    return [
        Operation(method, path, operation, _examples(operation, document))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def _examples(operation: dict[str, Any], document: dict[str, Any]) -> list[dict[str, Any]]:
    if "requestBody" not in operation:
        return []
    [content] = operation["requestBody"]["content"].values()
    schema = content["schema"]["$ref"].rpartition("/")[2]
    found: list[dict[str, Any]] = document["components"]["schemas"][schema].get("examples", [])
    return found


async def stock(client: httpx.AsyncClient, headers: dict[str, str], admin: dict[str, str]) -> dict[str, str]:
    """Make one of everything. Returns the ids by the names that paths have for them."""
    sessions = (await client.get("/auth/sessions", headers=headers)).json()["items"]
    ids = {"user_id": headers["X-User-Id"], "session_id": sessions[0]["id"]}
    for sample in SAMPLES:
        maker = admin if sample.owner == "admin" else headers
        path, body = with_ids(sample.path, ids), about(ids, sample.body)
        answer = await client.post(path, headers=maker, json=body)
        assert answer.is_success, f"tests/samples.py: POST {path} answers {answer.text}"
        ids[sample.parameter] = answer.json()["id"]
    return ids


async def stocked(client: httpx.AsyncClient, stores: Stores) -> dict[str, str]:
    """The ids of what a user owns, and of what is for everybody."""
    ids = await stock(client, await register(client), await register_admin(client, stores))
    await keep_link(stores, ids["user_id"])
    return ids


async def keep_link(stores: Stores, user_id: str) -> None:
    """As if the user had been mailed a link."""
    link = "'verify', 'somebody@example.com', 'hash', now() + interval '1h'"
    sql = f"INSERT INTO email_links (owner_id, purpose, address, token_hash, expires_at) VALUES (:id, {link})"
    await query(stores, sql, id=user_id)
