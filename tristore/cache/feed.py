"""Tells all processes the names of what has changed, over Redis pub/sub. It does not tell what became of it.

The same subscription shows whether Redis may be believed. This process sends heartbeats to itself through Redis: a
script writes a key and publishes in one step. So a Redis falls silent that refuses writes, was demoted, or hangs.
"""

import asyncio
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypedDict

import structlog
from redis.asyncio.client import PubSub

from tristore.cache.announcement import Announcement
from tristore.cache.breaker import CircuitBreaker
from tristore.errors import Reason, StoreUnavailable
from tristore.stores.redis import (
    RedisStore,
    beat,
    beating,
    is_of_primary,
    learn_history,
    ping,
    translate_errors,
    within_timeout,
)

CHANNEL = "wake-ups:1"
"""It ends with the number of the format. Raise it when the format changes: a rolling deploy uses both."""
BEAT_SECONDS = 0.4
"""The next heartbeat is sent so long after the last one. It is sent at once when Redis, or a busy loop, took longer."""
ALIVE_SECONDS = 1.0
"""Redis is believed for so long after the last heartbeat that came back. Near caches are believed no longer either."""
HEARD_SECONDS = ALIVE_SECONDS
"""A process that has not acknowledged within this time is cut off, and so believes Redis no more."""
KEPT_SECONDS = 5.0
"""Acknowledgements of an announcement are counted for so long: Redis may take it late, and must then be heard yet."""
ALIVE_KEY = f"{CHANNEL}:alive"
"""Which processes sent a heartbeat, and when."""
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.02
ANSWERING: frozenset[Reason] = frozenset({"read only", "refuses writes", "not permitted"})
"""Why Redis can refuse a heartbeat although it answers. The subscription works then, so it stays."""

Receive = Callable[[Iterable[str]], None]
Missed = Callable[[], None]

log = structlog.get_logger()


class Message(TypedDict):
    """What redis-py hands over of a subscription, as far as it is read here."""

    type: str
    channel: bytes | None
    data: bytes


class Feed:
    """Tells all processes names such as `account:<id>`. A lost name costs time and nothing else, because whoever waits
    for a name also looks for changes now and then. So `send` does not wait for Redis, and does not raise when it is
    down."""

    def __init__(
        self,
        redis: RedisStore,
        breaker: CircuitBreaker,
        caught_up: Callable[[], Awaitable[None]] | None = None,
        entry_seconds: float = 330,
    ) -> None:
        """`caught_up` returns when everything has been delivered that Redis was owed when it was called.
        `entry_seconds`: the longest time that an entry stays in Redis."""
        self._redis = redis
        self._breaker = breaker
        self._caught_up = caught_up
        self._entry_seconds = entry_seconds
        self._catching_up: asyncio.Task[None] | None = None
        self._is_trusted = True
        self._me = secrets.token_hex(8)
        self._beat = 0
        self._heard_at = -ALIVE_SECONDS
        self._was_subscribed = False
        self._may_be_new_until = 0.0
        self._history = ""
        self._refusal: StoreUnavailable | None = None
        self._unsent: defaultdict[str, set[str]] = defaultdict(set)
        self._announced: dict[str, Announcement] = {}
        self._sender: asyncio.Task[None] | None = None
        self._subscriber: asyncio.Task[None] | None = None
        self._connected = True
        self._listeners: list[tuple[Receive, Missed]] = []
        self.counts: Counter[str] = Counter()

    def listen(self, receive: Receive, missed: Missed) -> None:
        """From now on `receive` gets the names, and `missed` is called whenever some may have been lost."""
        self._listeners.append((receive, missed))

    def start(self) -> None:
        """Begin to listen to the other processes. Until then Redis is not believed."""
        self._subscriber = asyncio.create_task(self._subscribe_repeatedly())

    def is_alive(self) -> bool:
        """Whether Redis may be believed. Then a heartbeat of less than a second ago has come back. So Redis takes
        writes, and everything it had to tell before that heartbeat has arrived: it comes in order on one connection.
        After a silence, everything must also have been delivered that Redis could not be told meanwhile."""
        return self._is_trusted and self._is_heard()

    def _is_heard(self) -> bool:
        return time.monotonic() - self._heard_at < ALIVE_SECONDS

    async def prove(self) -> None:
        """Wait until Redis takes this process's writes and tells it what changes. Raises StoreUnavailable when Redis
        refuses. The caller limits the time."""
        await ping(self._redis)
        while not self._is_heard():
            if refusal := self._refused():
                raise StoreUnavailable("redis", refusal.reason, refusal.cause)
            await asyncio.sleep(LOOK_SECONDS)

    def _refused(self) -> StoreUnavailable | None:
        return self._refusal

    def announce(self, name: str, *, acknowledged: bool = False) -> Announcement:
        """What a script must publish to tell this name. With `acknowledged`, every process that hears it says so."""
        if not acknowledged:
            return Announcement(CHANNEL, f"{self._me} {name}")
        id_ = secrets.token_hex(8)
        announcement = self._announced[id_] = Announcement(CHANNEL, f"{self._me} ack:{id_} {name}")
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._announced.pop, id_, None)
        return announcement

    async def wait_until_heard(self, announcement: Announcement) -> None:
        """Until every process that may believe Redis has acknowledged it, or believes Redis no more: at most
        HEARD_SECONDS after Redis took it. Redis counts its subscribers, but one whose connection was cut is not among
        them, and still goes by its last heartbeat. So whoever sent one lately must acknowledge too. A Redis that may
        have become the primary a moment ago may not know of all heartbeats: then nobody can be left out."""
        try:
            async with asyncio.timeout(announcement.taken_at + HEARD_SECONDS - time.monotonic()):
                with suppress(StoreUnavailable):
                    async with within_timeout(self._redis):
                        alive = self._redis.identity.key(ALIVE_KEY)
                        processes = await beating(self._redis.client, alive, 2 * ALIVE_SECONDS)
                    self._note_history()
                    if time.monotonic() >= self._may_be_new_until:
                        return await announcement.wait_for(processes | {self._me})
                await asyncio.sleep(HEARD_SECONDS)
        except TimeoutError:
            pass

    def send(self, name: str) -> None:
        """Tell this process at once, even without Redis, and the others as soon as Redis takes the message."""
        self._receive((name,))
        self._send(CHANNEL, name)

    async def close(self) -> None:
        """Send what is waiting, and stop listening. Nobody waits for this process any more."""
        if self._catching_up:
            self._catching_up.cancel()
            await asyncio.gather(self._catching_up, return_exceptions=True)
        if self._sender:
            await self._sender
        while self._subscriber and not self._subscriber.done():
            self._subscriber.cancel()  # again: wait_for, which the driver uses, can swallow it in Python 3.11
            await asyncio.wait([self._subscriber], timeout=0.1)
        if self._is_heard():
            self._heard_at = -ALIVE_SECONDS
            with suppress(StoreUnavailable):
                async with within_timeout(self._redis):
                    await self._redis.client.zrem(self._redis.identity.key(ALIVE_KEY), self._me)

    def _send(self, channel: str, word: str) -> None:
        self._unsent[channel].add(word)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._unsent:
            channel, words = self._unsent.popitem()  # what comes while this is under way goes out together
            try:
                with self._breaker:
                    async with within_timeout(self._redis):
                        await self._publish(channel, " ".join((self._me, *words)))
                self.counts["sent"] += len(words)
            except StoreUnavailable:
                self.counts["not_sent"] += len(words)
            except Exception:
                log.exception("wake_up_failed")

    async def _publish(self, channel: str, text: str) -> None:
        await self._redis.client.publish(self._redis.identity.channel(channel), text)

    async def _subscribe_repeatedly(self) -> None:
        while True:
            try:
                await self._subscribe()
            except StoreUnavailable as error:
                self._note(error)
            except Exception:
                log.exception("subscription_failed")
            self._heard_at = -ALIVE_SECONDS
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1))

    async def _subscribe(self) -> None:
        with translate_errors():
            async with self._redis.subscriber.pubsub() as pubsub:
                channels = (CHANNEL, self._own_channel(self._me))
                await pubsub.subscribe(*map(self._redis.identity.channel, channels))
                while True:
                    beat_at = time.monotonic()
                    if await self._sends_beat():
                        if not await self._hear(pubsub, beat_at + ALIVE_SECONDS):
                            raise TimeoutError  # the connection may lead nowhere
                        if not self._is_heard():
                            self._begin_to_catch_up()
                        self._heard_at = beat_at
                        self._note(None)
                    await self._hear(pubsub, beat_at + BEAT_SECONDS)

    def _begin_to_catch_up(self) -> None:
        if self._caught_up is None:
            return
        self._is_trusted = False
        if self._catching_up:
            self._catching_up.cancel()  # there was another silence: more may be owed now
        self._catching_up = asyncio.create_task(self._catch_up(self._caught_up))

    async def _catch_up(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(self._entry_seconds):
                await caught_up()
        except TimeoutError:
            pass
        self._is_trusted = True

    def _note_history(self) -> None:
        """Another process learns of a new history with its next heartbeat, or believes Redis no more."""
        before, self._history = self._history, self._redis.identity.history
        if before not in {"", self._history}:
            self._may_be_new_until = time.monotonic() + 2 * ALIVE_SECONDS

    async def _sends_beat(self) -> bool:
        """False when Redis answers but refuses it. Raises StoreUnavailable when Redis does not answer."""
        self._beat += 1
        try:
            with translate_errors():
                async with asyncio.timeout(ALIVE_SECONDS):
                    await self._send_beat()
        except StoreUnavailable as error:
            if error.reason not in ANSWERING:
                raise
            self._note(error)
            return False
        return True

    async def _send_beat(self) -> None:
        """To the primary alone, and to the history that this process knows."""
        if not await is_of_primary(self._redis):
            await learn_history(self._redis)
            raise StoreUnavailable("redis", "unreachable", "failover")
        identity = self._redis.identity
        channel = identity.channel(self._own_channel(self._me))
        sent = (identity.key(ALIVE_KEY), self._me, channel, f"{self._me} beat:{self._beat}")
        while not await beat(self._redis.subscriber, *sent, identity.history):
            await learn_history(self._redis)
        self._note_history()

    async def _hear(self, pubsub: PubSub, until: float) -> bool:
        """Handle what comes until this process's last heartbeat comes, or until that time. Returns whether it came."""
        while (left := until - time.monotonic()) > 0:
            message = await pubsub.get_message(timeout=left)
            if message and self._handle(message):
                return True
        return False

    def _handle(self, message: Message) -> bool:
        """Returns whether it was this process's last heartbeat."""
        channel = message["channel"].decode().partition("@")[0] if message["channel"] else ""
        if message["type"] == "subscribe" and channel == CHANNEL:  # also when the client has connected anew by itself
            self._may_be_new_until = time.monotonic() + ALIVE_SECONDS if self._was_subscribed else 0
            self._was_subscribed = True
            for _, missed in self._listeners:
                missed()
        elif message["type"] == "message":
            sender, *words = message["data"].decode().split()
            if channel == CHANNEL:
                self._take(sender, words)
            else:
                for word in words:
                    self._count(word.removeprefix("ack:"), sender)
                return f"beat:{self._beat}" in words
        return False

    def _take(self, sender: str, names: list[str]) -> None:
        acks = [name for name in names if name.startswith("ack:")]
        names = [name for name in names if not name.startswith("ack:")]
        if sender != self._me:
            self.counts["received"] += len(names)
            self._receive(names)
        for ack in acks:
            if sender == self._me:
                self._count(ack.removeprefix("ack:"), sender)
            else:
                self._send(self._own_channel(sender), ack)

    def _count(self, id_: str, process: str) -> None:
        if announcement := self._announced.get(id_):
            announcement.note(process)

    def _receive(self, names: Iterable[str]) -> None:
        for receive, _ in self._listeners:
            receive(names)

    def _note(self, error: StoreUnavailable | None) -> None:
        self._refusal = error
        connected = error is None
        if connected != self._connected:
            self._connected = connected
            more = {"reason": error.reason, "cause": error.cause} if error else {}
            log.warning("wake_ups_resumed" if connected else "wake_ups_lost", **more)

    @staticmethod
    def _own_channel(process: str) -> str:
        return f"{CHANNEL}:{process}"
