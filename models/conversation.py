"""Conversations and their messages: documents in MongoDB and what the API takes and gives."""

import json
import uuid
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pymongo import ASCENDING, DESCENDING, IndexModel

from tristore.models import (
    Model,
    Moment,
    NumberedPage,
    OneLine,
    Page,
    Storable,
    at_most,
    check_json,
    example,
    new_id,
    now,
)

MessageRole = Literal["user", "assistant", "system"]
# The client's own choice, unique within the conversation: what makes a repeated POST safe.
MessageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), at_most(200), OneLine]
METADATA_BYTES = 16_384


def _small(metadata: dict[str, object]) -> dict[str, object]:
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > METADATA_BYTES:
        raise ValueError(f"must not be larger than {METADATA_BYTES} bytes of JSON")
    return metadata


Metadata = Annotated[dict[str, object], Field(max_length=32), AfterValidator(check_json), AfterValidator(_small)]

# UUIDs are stored as strings: they sort by creation time and read the same in the shell, in JSON and in the fakes.
CONVERSATION_INDEXES = [IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)], name="user_newest_first")]
MESSAGE_INDEXES = [
    # The number decides between processes that append at the same moment.
    IndexModel([("conversation_id", ASCENDING), ("seq", ASCENDING)], name="number", unique=True),
]


class NewConversation(Model):
    """Body of POST /conversations."""

    model_config = example({"title": "A weekend in Lisbon"})

    title: Title


class ConversationUpdate(NewConversation):
    """Body of PATCH /conversations/{id}."""


class Conversation(BaseModel):
    id: uuid.UUID
    user_id: uuid.UUID
    title: str
    created_at: Moment
    updated_at: Moment


def started(user_id: uuid.UUID, title: str) -> Conversation:
    """A conversation that begins right now."""
    time = now()
    return Conversation(id=new_id(), user_id=user_id, title=title, created_at=time, updated_at=time)


class NewMessage(Model):
    """Body of POST /conversations/{id}/messages. The same `id` and body again is the same message."""

    model_config = example({"content": "Como se diz 'cheese'?", "metadata": {"lesson": 3}})

    id: MessageId = Field(default_factory=lambda: str(new_id()))
    role: MessageRole = "user"
    content: Annotated[str, StringConstraints(min_length=1, max_length=20_000), Storable]
    metadata: Metadata = {}


class Message(BaseModel):
    id: str
    seq: int = Field(description="1, 2, 3, ... within the conversation, without gaps")
    role: MessageRole
    content: str
    timestamp: Moment
    metadata: dict[str, object]


class ConversationWithMessages(Conversation):
    messages: list[Message] = Field(description="the last ones, oldest first")


class ExportedConversation(Conversation):
    messages: list[Message]


class ConversationPage(Page[Conversation]):
    pass


class MessagePage(NumberedPage[Message]):
    pass
