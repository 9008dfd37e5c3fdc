"""Conversations and their messages. All of it is the owner's: for anybody else it does not exist."""

import uuid
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from dependencies import CurrentUser, KeyOfCaller, VerifiedUser, services_of
from models.conversation import (
    Conversation,
    ConversationPage,
    ConversationUpdate,
    ConversationWithMessages,
    ListedConversation,
    Message,
    MessagePage,
    NewConversation,
    NewMessage,
    ReadUpTo,
    Sort,
)
from services.conversation_service import ConversationService
from tristore.http.headers import Located, sends
from tristore.http.parameters import Cursor, Digits, Number, PageSize
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import Responses, problems

router = PrefixedRouter(
    prefix="/conversations",
    tags=["conversations"],
    about=__doc__,
    max_body_bytes=294_912,  # a message whose 20,000 characters and metadata are all escaped
)

MADE = problems(403, 409) | {201: sends("Location")}
ALREADY_THERE: Responses = {200: {"description": "It was there already", "model": Message}}


async def get_conversations(request: Request) -> ConversationService:
    return services_of(request).conversations


Conversations = Annotated[ConversationService, Depends(get_conversations)]
LastMessages = Annotated[int, Query(ge=0, le=100), Digits]


@router.post("", status_code=201, summary="Start a conversation", responses=MADE)
async def create_conversation(
    conversations: Conversations, caller: VerifiedUser, key: KeyOfCaller, new: NewConversation, located: Located
) -> Conversation:
    """The same Idempotency-Key again answers it as it is by then; deleted, it is a conflict, and so is one too many."""
    return located.at("/conversations/{id}", await conversations.create(caller.id, new, key))


@router.get("", summary="The caller's conversations, newest first")
async def list_conversations(
    conversations: Conversations,
    caller: CurrentUser,
    sort: Sort = "created",
    limit: PageSize = 20,
    cursor: Cursor = None,
) -> ConversationPage:
    """By creation, or by the last message or change (`recent`). Then each comes at most once, and what moves meanwhile
    is at the top of a new first page."""
    return await conversations.list(caller.id, sort, limit, cursor)


@router.get("/{conversation_id}", summary="A conversation with its last messages", responses=problems(404))
async def read_conversation(
    conversations: Conversations, caller: CurrentUser, conversation_id: uuid.UUID, messages: LastMessages = 20
) -> ConversationWithMessages:
    return await conversations.read(conversation_id, caller.id, messages)


@router.patch("/{conversation_id}", summary="Rename a conversation", responses=problems(404))
async def rename_conversation(
    conversations: Conversations, caller: CurrentUser, conversation_id: uuid.UUID, update: ConversationUpdate
) -> Conversation:
    return await conversations.rename(conversation_id, caller.id, update)


@router.delete(
    "/{conversation_id}",
    status_code=204,
    summary="Delete a conversation and its messages",
    responses=problems(404),
)
async def delete_conversation(conversations: Conversations, caller: CurrentUser, conversation_id: uuid.UUID) -> None:
    await conversations.delete(conversation_id, caller.id)


@router.post(
    "/{conversation_id}/messages",
    status_code=201,
    summary="Append a message",
    responses=ALREADY_THERE | problems(404),
)
async def append_message(
    conversations: Conversations,
    caller: CurrentUser,
    conversation_id: uuid.UUID,
    new: NewMessage,
    response: Response,
) -> Message:
    """Send an `id` of your own to be able to repeat it: with the same body it is the same message, with another 422."""
    message, is_new = await conversations.append(conversation_id, caller.id, new)
    response.status_code = 201 if is_new else 200
    return message


@router.post("/{conversation_id}/read", summary="Mark messages as read", responses=problems(404))
async def mark_read(
    conversations: Conversations, caller: CurrentUser, conversation_id: uuid.UUID, read: ReadUpTo
) -> ListedConversation:
    """All up to this number. What was read stays read."""
    return await conversations.mark_read(conversation_id, caller.id, read.seq)


@router.get("/{conversation_id}/messages", summary="Messages in order, a page at a time", responses=problems(404))
async def list_messages(
    conversations: Conversations,
    caller: CurrentUser,
    conversation_id: uuid.UUID,
    after_seq: Number = None,
    before_seq: Number = None,
    limit: PageSize = 20,
) -> MessagePage:
    """Onwards from `after_seq`, or backwards from `before_seq`."""
    return await conversations.messages(conversation_id, caller.id, limit, after_seq, before_seq)
