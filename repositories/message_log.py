"""Appends messages to conversations: numbered 1, 2, 3, ... without gaps, in the order in which they become visible."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pymongo.errors import BulkWriteError

from database.mongodb import Document, MongoStore, refusal_in
from models.conversation import Message, NewMessage
from tristore.errors import InvalidInput
from tristore.models import now

BATCH = 100


@dataclass(frozen=True)
class Waiting:
    message: NewMessage
    answer: asyncio.Future[tuple[Message, bool]]


class MessageLog:
    """The number is the last one + 1, and a unique index decides between processes. Within a process, what waits for
    one conversation is inserted as one batch: writers that went one by one would collide on the index, throw most of
    their work away, and wait for the journal one after the other."""

    def __init__(self, mongodb: MongoStore, wake: Callable[[str], None]) -> None:
        self._mongodb = mongodb
        self._wake = wake
        self._queues: dict[str, list[Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, conversation_id: str, message: NewMessage) -> tuple[Message, bool]:
        """The numbered message, and whether it is new (not a repeat of its id). Raises InvalidInput when the id was
        used for another message, StoreUnavailable."""
        waiting = Waiting(message, asyncio.get_running_loop().create_future())
        if conversation_id in self._queues:
            self._queues[conversation_id].append(waiting)
        else:
            self._queues[conversation_id] = [waiting]
            task = asyncio.create_task(self._drain(conversation_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answer

    async def close(self) -> None:
        """Wait for the batches that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self, conversation_id: str) -> None:
        queue = self._queues[conversation_id]
        try:
            while queue:
                batch = [waiting for waiting in queue[:BATCH] if not waiting.answer.done()]  # not those who gave up
                del queue[:BATCH]
                await self._answer(conversation_id, batch)
        finally:
            del self._queues[conversation_id]

    async def _answer(self, conversation_id: str, batch: Sequence[Waiting]) -> None:
        try:
            async with self._mongodb.operation():
                while batch:
                    batch = await self._insert(conversation_id, batch)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            for waiting in batch:
                _fail(waiting, error)

    async def _insert(self, conversation_id: str, batch: Sequence[Waiting]) -> Sequence[Waiting]:
        """Insert as many as possible, answer those, and return the others."""
        database = self._mongodb.database
        messages = database.messages
        last = await messages.find_one({"conversation_id": conversation_id}, {"seq": 1}, sort=[("seq", -1)])
        first = last["seq"] + 1 if last else 1
        documents = [_document(conversation_id, first + i, waiting.message) for i, waiting in enumerate(batch)]
        inserted = len(documents)
        # Before the messages, so that whoever polls `last_seq` can find one too early, never too late.
        touch = {"$max": {"updated_at": documents[-1]["timestamp"], "last_seq": documents[-1]["seq"]}}
        await database.conversations.update_one({"_id": conversation_id}, touch)
        try:
            await messages.insert_many(documents)
        except BulkWriteError as error:
            if refusal := refusal_in(error):
                raise refusal from None
            inserted = error.details["nInserted"]  # in order, up to the first that failed
        if inserted:
            self._wake(wake_up_name(conversation_id))
        for waiting, document in zip(batch[:inserted], documents, strict=False):
            _succeed(waiting, as_message(document), is_new=True)
        if inserted == len(batch):
            return []
        async with self._mongodb.reading() as settled:
            stored = await settled.messages.find_one({"_id": documents[inserted]["_id"]})
        if stored:
            _repeat(batch[inserted], as_message(stored))
            inserted += 1
        # The number was taken by another process, or the repeated message used none, or a failover may take it back.
        return batch[inserted:]


def wake_up_name(conversation_id: uuid.UUID | str) -> str:
    """The name by which processes tell each other that a conversation has new messages."""
    return f"conversation:{conversation_id}"


def _document(conversation_id: str, seq: int, message: NewMessage) -> Document:
    identity = {"_id": f"{conversation_id}/{message.id}", "conversation_id": conversation_id, "seq": seq}
    return {**identity, "timestamp": now(), **message.model_dump()}


def as_message(document: Document) -> Message:
    return Message.model_validate(document)


def _succeed(waiting: Waiting, message: Message, *, is_new: bool) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result((message, is_new))


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _repeat(waiting: Waiting, stored: Message) -> None:
    if waiting.message.model_dump() == stored.model_dump(include={"id", "role", "content", "metadata"}):
        _succeed(waiting, stored, is_new=False)
    else:
        _fail(waiting, InvalidInput("id", "was already used for another message of this conversation"))
