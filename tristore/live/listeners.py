"""Live events: who follows which list of entries in this process, and what wakes them.

The source holds the truth. A listener remembers the number of the last entry that it was given. When it is woken, it
fetches what comes after that. A wake-up comes at once, and a poll comes at the latest, because an app may die before it
has sent the wake-up, and Redis may die at any time. Nothing is kept for a slow reader, and nothing is lost with a
connection.
"""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar, Unpack

import structlog

from tristore.cache.feed import Feed
from tristore.errors import NotAuthenticated, NotFound, Overloaded, StoreUnavailable, TooManyRequests
from tristore.live.source import Entry, Source
from tristore.stores.postgres import start_budget

PAGE = 20
AT_ONCE = 8
"""How many may read, and how many may be verified, at a time. All who are woken together leave the stores to others
too."""

SKEW_SECONDS = 10.0
"""Clocks of writers may differ by so much: a poll looks so far back beyond the last one."""

E = TypeVar("E", bound=Entry)

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Listener:
    name: str
    """Of what it follows. A wake-up of this name tells that there may be more."""
    caller: str
    doubts: Collection[str]
    """A wake-up of one of these names tells that the caller may just have lost the right to listen."""
    verify: Callable[[], Awaitable[object]]
    """Raises NotAuthenticated once the caller has lost that right."""
    last: int = 0
    ahead: bool = False
    """Whether it asked for what follows an entry that there is not. It then begins with what comes from now on."""
    missed: bool = False
    """Whether its entries could not be read when it was woken."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: bool = False
    over: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.name, *self.doubts

    def end(self) -> None:
        self.over = True
        self.woken.set()


class LiveSettings(TypedDict):
    feed: Feed
    poll_seconds: float
    heartbeat_seconds: float
    retry_seconds: float
    """After what time a client that was cut off is asked to come back."""
    verify_seconds: float
    """How long a check of the caller may wait for PostgreSQL."""
    max_per_caller: int
    max_listeners: int


class Listeners(Generic[E]):
    """What all kinds of streams share. A kind says where a listener begins, what it is given, and who is behind."""

    has_ids = True
    """Whether a client that was cut off resumes after the number of the last entry that it was given."""

    def __init__(self, **settings: Unpack[LiveSettings]) -> None:
        self._feed = settings["feed"]
        self._poll_seconds = settings["poll_seconds"]
        self._heartbeat_seconds = settings["heartbeat_seconds"]
        self.retry_seconds = settings["retry_seconds"]
        self._verify_seconds = settings["verify_seconds"]
        self._max_per_caller = settings["max_per_caller"]
        self._max_listeners = settings["max_listeners"]
        self._listeners: set[Listener] = set()
        self._by_name: defaultdict[str, set[Listener]] = defaultdict(set)
        self._by_caller: Counter[str] = Counter()
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._verifying = asyncio.Semaphore(AT_ONCE)
        self._poll_now = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._ended = False
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Listen to the feed, which somebody else starts, and begin to poll."""
        self._feed.listen(self._wake, self._poll_now.set)
        self._poller = asyncio.create_task(self._poll())

    def end_all(self) -> None:
        """End every stream, and let none begin: the server waits for them before it stops."""
        self._ended = True
        for listener in self._listeners:
            listener.end()

    async def close(self) -> None:
        """End every stream, and stop polling."""
        self.end_all()
        self._poll_now.set()
        if self._poller:
            await self._poller

    @property
    def listening(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    @asynccontextmanager
    async def listen(
        self,
        name: str,
        *,
        caller: str,
        verify: Callable[[], Awaitable[object]],
        doubts: Collection[str] = (),
        after: int | None = None,
    ) -> AsyncIterator[Listener]:
        """A listener for the entries after number `after`, or from now on; also from now on when there is no entry
        `after` and the list has not come so far, as after a restore from a backup. Raises NotFound, TooManyRequests,
        Overloaded, StoreUnavailable."""
        listener = Listener(name, caller, doubts, verify)
        self._register(listener)  # before the last number is read: what comes in between wakes it
        try:
            await self._place(listener, after)
            yield listener
        finally:
            self._unregister(listener)

    async def _place(self, listener: Listener, after: int | None) -> None:
        """Let it begin. Raises NotFound, StoreUnavailable."""
        raise NotImplementedError

    async def follow(self, listener: Listener) -> AsyncGenerator[E | None, None]:
        """Its entries in order, and None now and then as a sign of life. It ends when the caller loses the right to
        listen, when the list is deleted, or with the process. It does not end with an outage."""
        heartbeat_at = self._next_heartbeat()
        while not listener.over:
            is_due = asyncio.get_running_loop().time() >= heartbeat_at
            if (is_due or listener.doubted) and not await self._may_listen(listener):
                return
            if is_due:
                heartbeat_at = self._next_heartbeat()
                yield None
            if listener.woken.is_set():
                listener.woken.clear()
                page = await self._page(listener)
                for entry in page:
                    yield entry
                    listener.last = entry.seq
                if len(page) == PAGE:
                    listener.woken.set()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(heartbeat_at):
                    await listener.woken.wait()

    def _next_heartbeat(self) -> float:
        # Spread: after a restart all listeners come at the same moment.
        return asyncio.get_running_loop().time() + self._heartbeat_seconds * random.uniform(0.5, 1)

    async def _page(self, listener: Listener) -> Sequence[E]:
        """What comes next. Nothing while the source is down: once it is back, the poll finds who is behind."""
        raise NotImplementedError

    async def _may_listen(self, listener: Listener) -> bool:
        doubted, listener.doubted = listener.doubted, False
        async with self._verifying:
            start_budget(self._verify_seconds)
            try:
                await listener.verify()
            except NotAuthenticated:
                self.counts["signed_out"] += 1
                return False
            except StoreUnavailable:
                # PostgreSQL. While it is down nobody loses the right to listen, but this caller may just have lost it.
                return not doubted
        return True

    def _register(self, listener: Listener) -> None:
        if self._ended or len(self._listeners) >= self._max_listeners:
            raise Overloaded
        if self._by_caller[listener.caller] >= self._max_per_caller:
            # By the next heartbeat a listener is gone whose client has gone.
            raise TooManyRequests(math.ceil(self._heartbeat_seconds))
        self._listeners.add(listener)
        self._by_caller[listener.caller] += 1
        for name in listener.names:
            self._by_name[name].add(listener)

    def _unregister(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._by_caller[listener.caller] -= 1
        if not self._by_caller[listener.caller]:
            del self._by_caller[listener.caller]
        for name in listener.names:
            self._by_name[name].discard(listener)
            if not self._by_name[name]:
                del self._by_name[name]

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            for listener in self._by_name.get(name, ()):
                self.counts["woken"] += 1
                listener.doubted |= name in listener.doubts
                listener.woken.set()

    async def _poll(self) -> None:
        polled_at = time.monotonic()
        while not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._poll_now.wait()
            self._poll_now.clear()
            started_at = time.monotonic()
            try:
                await self._wake_those_behind(started_at - polled_at + SKEW_SECONDS)
                polled_at = started_at
            except StoreUnavailable:
                self.counts["poll_failed"] += 1
            except Exception:
                log.exception("live_poll_failed")

    async def _wake_those_behind(self, seconds: float) -> None:
        """Among all that got entries within so many seconds. Raises StoreUnavailable."""
        raise NotImplementedError


class LiveService(Listeners[E]):
    """Streams of the entries that a source has."""

    def __init__(self, source: Source[E], **settings: Unpack[LiveSettings]) -> None:
        super().__init__(**settings)
        self._source = source

    async def _place(self, listener: Listener, after: int | None) -> None:
        if not await self._source.exists(listener.name, listener.caller):
            raise NotFound
        if after is not None:
            listener.ahead = after > await self._source.last_number(listener.name)
        if after is None or listener.ahead:
            newest = await self._source.page(listener.name, 1, None)
            listener.last = newest[0].seq if newest else 0
        else:
            listener.last = after
            listener.woken.set()

    async def _page(self, listener: Listener) -> Sequence[E]:
        async with self._reading:
            try:
                return await self._source.page(listener.name, PAGE, listener.last)
            except StoreUnavailable:
                listener.missed = True
                return []

    async def _wake_those_behind(self, seconds: float) -> None:
        if not (listeners := list(self._listeners)):
            return
        numbers = await self._source.recent_numbers({listener.name for listener in listeners}, seconds)
        for listener in listeners:
            if listener.name not in numbers:
                self.counts["deleted"] += 1
                listener.end()
            elif listener.missed or (numbers[listener.name] or 0) > listener.last:
                self.counts["found_behind"] += 1
                listener.missed = False
                listener.woken.set()
