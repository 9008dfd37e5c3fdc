"""Conversations and their messages: documents in MongoDB and what the API takes and gives."""

import json
import uuid
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pymongo import ASCENDING, DESCENDING, IndexModel

from tristore.fields import EntryNumber
from tristore.models import (
    Model,
    Moment,
    NumberedPage,
    OneLine,
    Storable,
    at_most,
    check_json,
    example,
    new_id,
    now,
)
from tristore.stores.keyed_documents import KEY_INDEXES

MessageRole = Literal["user", "assistant", "system"]
Sort = Literal["created", "recent"]
# The client's own choice, unique within the conversation: what makes a repeated POST safe.
MessageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), at_most(200), OneLine]
METADATA_BYTES = 16_384
PREVIEW = 100


def _small(metadata: dict[str, object]) -> dict[str, object]:
    """Its size is checked before its shape, which takes a hundred times as long."""
    try:
        written = json.dumps(metadata, ensure_ascii=False).encode(errors="surrogatepass")
    except RecursionError:  # its reading may go a little deeper than its writing
        raise ValueError("must not be nested deeper than 6 levels") from None
    if len(written) > METADATA_BYTES:
        raise ValueError(f"must not be larger than {METADATA_BYTES} bytes of JSON")
    return metadata


Metadata = Annotated[dict[str, object], Field(max_length=32), AfterValidator(_small), AfterValidator(check_json)]

# UUIDs are stored as strings: they sort by creation time and read the same in the shell, in JSON and in the fakes.
CONVERSATION_INDEXES = [
    IndexModel([("user_id", ASCENDING), ("_id", DESCENDING)], name="user_newest_first"),
    IndexModel([("user_id", ASCENDING), ("updated_at", DESCENDING), ("_id", DESCENDING)], name="user_recent_first"),
    *KEY_INDEXES,
]
MESSAGE_INDEXES = [
    # The number decides between processes that append at the same moment.
    IndexModel([("conversation_id", ASCENDING), ("seq", ASCENDING)], name="number", unique=True),
]
MESSAGE_SHARD_KEY = {"conversation_id": "hashed"}  # of a sharded cluster: see docs/scaling.md


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


class MessageDraft(Model):
    """A message without its number. The service itself may write any role."""

    id: MessageId = Field(default_factory=lambda: str(new_id()))
    role: MessageRole = "user"
    content: Annotated[str, StringConstraints(min_length=1, max_length=20_000), Storable]
    metadata: Metadata = {}


class NewMessage(MessageDraft):
    """Body of POST /conversations/{id}/messages. The same `id` and body again is the same message."""

    model_config = example({"content": "Como se diz 'cheese'?", "metadata": {"lesson": 3}})

    role: Literal["user", "assistant"] = Field("user", description="`system` is the service's own")


class ReadUpTo(Model):
    """Body of POST /conversations/{id}/read."""

    model_config = example({"seq": 1})

    seq: EntryNumber = Field(description="the number of the last message that was read")


class Message(BaseModel):
    id: str
    seq: int = Field(description="1, 2, 3, ... within the conversation, without gaps")
    role: MessageRole
    content: str
    timestamp: Moment
    metadata: dict[str, object]


class LastMessage(BaseModel):
    seq: int
    role: MessageRole
    preview: str = Field(description=f"its first {PREVIEW} characters")
    timestamp: Moment


class ListedConversation(Conversation):
    last_message: LastMessage | None
    read_seq: int = Field(description="messages up to this number are read; the last that the user wrote is")
    unread: int = Field(description="how many come after `read_seq`")


# begin part live
class Moved(BaseModel):
    conversation_id: uuid.UUID
    last_seq: int


# end part live
class ConversationWithMessages(Conversation):
    messages: list[Message] = Field(description="the last ones, oldest first")


class ExportedConversation(Conversation):
    read_seq: int
    messages: list[Message]


class ConversationPage(BaseModel):
    items: list[ListedConversation]
    next_cursor: str | None = Field(description="`cursor` of the next page with the same `sort`, null on the last")


class MessagePage(NumberedPage[Message]):
    pass
