"""Documents of MongoDB that remember the Idempotency-Key which has made them. A unique index on the key decides between
requests, so that neither a transaction nor another store is needed."""

from contextlib import suppress

from pydantic import BaseModel
from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from tristore.errors import Conflict, InProgress
from tristore.idempotency import KEPT, IdempotencyKey, KeyUsed, fingerprint
from tristore.models import now
from tristore.stores.mongodb import Document, MongoStore

KEYED: Document = {"idempotency_key": {"$exists": True}}
KEY_INDEXES = [
    IndexModel([("idempotency_key", ASCENDING)], name="idempotency_key", unique=True, sparse=True),
    IndexModel([("key_retired_at", ASCENDING)], name="retired_keys", expireAfterSeconds=int(KEPT.total_seconds())),
]
"""For a collection of such documents."""
FORGET_BODY: Document = {"$unset": {"fingerprint": ""}}
"""Part of the update that hides a document: a fast hash of what was sent must not outlive it."""


async def insert_keyed(
    mongodb: MongoStore,
    collection: str,
    document: Document,
    key: IdempotencyKey | None = None,
    body: BaseModel | None = None,
) -> Document:
    """Insert it once; or find the one that the same request, with this key and body, has inserted. Raises InProgress
    while that is not settled, KeyUsed for another body, Conflict when it is deleted, StoreUnavailable."""
    if key is None or body is None:
        await mongodb.insert_once(collection, document)
        return document
    name, sent = _name(key), fingerprint(body)
    new = document | {"idempotency_key": name, "fingerprint": sent}
    async with mongodb.operation() as database:
        with suppress(DuplicateKeyError):
            await database[collection].insert_one(new)
            return new
    async with mongodb.reading() as settled:
        found = await settled[collection].find_one({"idempotency_key": name})
    if found is None:
        raise InProgress
    if "fingerprint" not in found:
        raise Conflict("What this Idempotency-Key has made is deleted by now.")
    if found["fingerprint"] != sent:
        raise KeyUsed
    key.replayed()
    return found


async def has_made(mongodb: MongoStore, collection: str, key: IdempotencyKey | None) -> bool:
    """Whether a request with this key has inserted one."""
    if key is None:
        return False
    async with mongodb.reading() as database:
        return bool(await database[collection].find_one({"idempotency_key": _name(key)}, {"_id": 1}))


async def retire(mongodb: MongoStore, collection: str, which: Document) -> None:
    """Delete hidden documents. Those with a key stay, hidden, until MongoDB deletes them a day later: until then a
    repetition of what has made one must not make another. Raises StoreUnavailable."""
    async with mongodb.operation() as database:
        await database[collection].update_many(which | KEYED, {"$set": {"key_retired_at": now()}})
    await mongodb.delete_all(collection, which | {"idempotency_key": {"$exists": False}})


def _name(key: IdempotencyKey) -> str:
    return f"{key.scope} {key.key}"
