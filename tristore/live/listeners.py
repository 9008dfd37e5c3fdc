"""Live messages: who follows which conversation in this process, and what wakes them.

MongoDB holds the truth. A listener keeps the number of the last message it was given, and fetches what comes after that
when it is woken: at once by a wake-up, or at the latest by a poll, because an app may die between an insert and its
wake-up, and Redis at any time. Nothing is kept for a slow reader, and nothing is lost with a connection.
"""

import asyncio
import math
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog

from models.conversation import Message
from models.session import SignedIn
from repositories.conversation_repo import ConversationRepository
from tristore.cache.feed import WakeUpRepository
from tristore.errors import NotAuthenticated, NotFound, Overloaded, StoreUnavailable, TooManyRequests
from tristore.stores.postgres import start_budget

PAGE = 20
AT_ONCE = 8
"""Reads, and checks of sessions, at a time: all who are woken together must not leave the stores to nobody else."""

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Listener:
    conversation_id: uuid.UUID
    who: SignedIn
    verify: Callable[[], Awaitable[object]]
    """Raises NotAuthenticated once the session has ended."""
    last: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: bool = False
    """Whether the session may just have ended."""
    over: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What a wake-up calls it."""
        return f"conversation:{self.conversation_id}", f"session:{self.who.session_id}", f"user:{self.who.user_id}"

    def end(self) -> None:
        self.over = True
        self.woken.set()


class LiveService:
    def __init__(
        self,
        *,
        conversations: ConversationRepository,
        wake_ups: WakeUpRepository,
        poll_seconds: float,
        heartbeat_seconds: float,
        send_seconds: float,
        verify_seconds: float,
        max_per_user: int,
        max_listeners: int,
    ) -> None:
        self._conversations = conversations
        self._wake_ups = wake_ups
        self._poll_seconds = poll_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self.send_seconds = send_seconds
        self._verify_seconds = verify_seconds
        self._max_per_user = max_per_user
        self._max_listeners = max_listeners
        self._listeners: set[Listener] = set()
        self._by_name: defaultdict[str, set[Listener]] = defaultdict(set)
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._verifying = asyncio.Semaphore(AT_ONCE)
        self._poll_now = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._ended = False
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        self._wake_ups.listen(self._wake, self._poll_now.set)
        self._wake_ups.start()
        self._poller = asyncio.create_task(self._poll())

    def end_all(self) -> None:
        """End every stream, and let none begin: the server waits for them before it stops."""
        self._ended = True
        for listener in self._listeners:
            listener.end()

    async def close(self) -> None:
        self.end_all()
        self._poll_now.set()
        if self._poller:
            await self._poller
        await self._wake_ups.close()

    @property
    def listening(self) -> int:
        return len(self._listeners)

    @asynccontextmanager
    async def listen(
        self, conversation_id: uuid.UUID, who: SignedIn, after: int | None, verify: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[Listener]:
        """A listener for the messages after number `after`, or from now on. Raises NotFound, TooManyRequests,
        Overloaded, StoreUnavailable."""
        listener = Listener(conversation_id, who, verify)
        self._register(listener)  # before the last number is read: what comes in between wakes it
        try:
            if await self._conversations.get(conversation_id, who.user_id) is None:
                raise NotFound
            if after is None:
                newest = await self._conversations.messages(conversation_id, 1)
                listener.last = newest[0].seq if newest else 0
            else:
                listener.last = after
                listener.woken.set()
            yield listener
        finally:
            self._unregister(listener)

    async def follow(self, listener: Listener) -> AsyncGenerator[Message | None, None]:
        """Its messages in order, and None now and then as a sign of life. Ends with the session, the conversation or
        the process, not with an outage."""
        heartbeat_at = self._next_heartbeat()
        while not listener.over:
            is_due = asyncio.get_running_loop().time() >= heartbeat_at
            if (is_due or listener.doubted) and not await self._is_signed_in(listener):
                return
            if is_due:
                heartbeat_at = self._next_heartbeat()
                yield None
            if listener.woken.is_set():
                listener.woken.clear()
                page = await self._page(listener)
                for message in page:
                    yield message
                    listener.last = message.seq
                if len(page) == PAGE:
                    listener.woken.set()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(heartbeat_at):
                    await listener.woken.wait()

    def _next_heartbeat(self) -> float:
        # Spread: after a restart all listeners come at the same moment.
        return asyncio.get_running_loop().time() + self._heartbeat_seconds * random.uniform(0.5, 1)

    async def _page(self, listener: Listener) -> list[Message]:
        """What comes next; nothing when MongoDB is down: once it is back, the poll finds who is behind."""
        async with self._reading:
            try:
                return await self._conversations.messages(listener.conversation_id, PAGE, after=listener.last)
            except StoreUnavailable:
                return []

    async def _is_signed_in(self, listener: Listener) -> bool:
        doubted, listener.doubted = listener.doubted, False
        async with self._verifying:
            start_budget(self._verify_seconds)
            try:
                await listener.verify()
            except NotAuthenticated:
                self.counts["signed_out"] += 1
                return False
            except (
                StoreUnavailable
            ):  # PostgreSQL: while it is down no session is ended, but this one may just have been
                return not doubted
        return True

    def _register(self, listener: Listener) -> None:
        if self._ended or len(self._listeners) >= self._max_listeners:
            raise Overloaded
        if len(self._by_name[f"user:{listener.who.user_id}"]) >= self._max_per_user:
            raise TooManyRequests(
                math.ceil(self._heartbeat_seconds)
            )  # by then one whose client has gone is known to be
        self._listeners.add(listener)
        for name in listener.names:
            self._by_name[name].add(listener)

    def _unregister(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        for name in listener.names:
            self._by_name[name].discard(listener)
            if not self._by_name[name]:
                del self._by_name[name]

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            for listener in self._by_name.get(name, ()):
                self.counts["woken"] += 1
                listener.doubted |= not name.startswith("conversation:")
                listener.woken.set()

    async def _poll(self) -> None:
        while not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._poll_now.wait()
            self._poll_now.clear()
            try:
                await self._wake_those_behind()
            except StoreUnavailable:
                self.counts["poll_failed"] += 1
            except Exception:
                log.exception("live_poll_failed")

    async def _wake_those_behind(self) -> None:
        if not (listeners := list(self._listeners)):
            return
        numbers = await self._conversations.last_numbers({listener.conversation_id for listener in listeners})
        for listener in listeners:
            number = numbers.get(listener.conversation_id)
            if number is None:
                self.counts["deleted"] += 1
                listener.end()
            elif number > listener.last:
                self.counts["found_behind"] += 1
                listener.woken.set()
