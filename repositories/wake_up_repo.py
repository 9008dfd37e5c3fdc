"""Wake-ups over Redis pub/sub: the names of what has changed, and nothing of what it is now."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from redis.asyncio.client import PubSub

from database.redis import RedisStore, translate_errors, within_timeout
from repositories.breaker import CircuitBreaker
from services.errors import StoreUnavailable

CHANNEL = "wake-ups:1"
"""Ends with the format's number. Raise it when the format changes: during a rolling deploy both are in use."""
PING_SECONDS = 0.4
"""So long after the last ping Redis is pinged again: at once when it, or a busy loop, took longer to answer."""
ALIVE_SECONDS = 1.0
"""So long after the last ping that was answered the connection is not known to live, and nothing near is served."""
RETRY_SECONDS = 1.0

Receive = Callable[[Iterable[str]], None]
Missed = Callable[[], None]

log = structlog.get_logger()


class WakeUpRepository:
    """Tells all processes names such as `conversation:<id>`. One that is lost costs time and nothing else: whoever
    waits for a name also looks by itself now and then. So nothing here waits for Redis, or raises when it is down."""

    def __init__(self, redis: RedisStore, breaker: CircuitBreaker) -> None:
        self._redis = redis
        self._breaker = breaker
        self._me = secrets.token_hex(8)
        self._unsent: set[str] = set()
        self._sender: asyncio.Task[None] | None = None
        self._subscriber: asyncio.Task[None] | None = None
        self._connected = True
        self._pinged_at = -ALIVE_SECONDS
        self._listeners: list[tuple[Receive, Missed]] = []
        self.counts: Counter[str] = Counter()

    def listen(self, receive: Receive, missed: Missed) -> None:
        """`receive` gets the names; `missed` is called whenever some may have been lost."""
        self._listeners.append((receive, missed))

    def start(self) -> None:
        """Subscribe."""
        self._subscriber = asyncio.create_task(self._subscribe_repeatedly())

    def is_alive(self) -> bool:
        """Whether Redis has answered a ping of less than a second ago: then whatever it was told to tell before that
        ping has come, because it answers on the same connection and in order."""
        return time.monotonic() - self._pinged_at < ALIVE_SECONDS

    def message(self, *names: str) -> tuple[str, str]:
        """Channel and text that tell the other processes these names, for a script that publishes them itself."""
        return CHANNEL, " ".join((self._me, *names))

    def send(self, name: str) -> None:
        """Tell this process at once, also without Redis, and the others as soon as it takes the message."""
        self._receive((name,))
        self._unsent.add(name)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Send what is waiting, and stop."""
        if self._sender:
            await self._sender
        while self._subscriber and not self._subscriber.done():
            self._subscriber.cancel()  # again: wait_for, which the driver uses, can swallow it in Python 3.11
            await asyncio.wait([self._subscriber], timeout=0.1)

    async def _send_all(self) -> None:
        while self._unsent:
            names, self._unsent = self._unsent, set()  # what comes while this is under way goes out together
            try:
                with self._breaker:
                    async with within_timeout(self._redis):
                        await self._redis.client.publish(*self.message(*names))
                self.counts["sent"] += len(names)
            except StoreUnavailable:
                self.counts["not_sent"] += len(names)
            except Exception:
                log.exception("wake_up_failed")

    async def _subscribe_repeatedly(self) -> None:
        while True:
            try:
                await self._subscribe()
            except StoreUnavailable as error:
                self._note(connected=False, reason=error.reason, cause=error.cause)
            except Exception:
                log.exception("subscription_failed")
            self._pinged_at = -ALIVE_SECONDS
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1))

    async def _subscribe(self) -> None:
        with translate_errors():
            async with self._redis.subscriber.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                while True:
                    pinged_at = time.monotonic()
                    await pubsub.ping()
                    if not await self._hear(pubsub, pinged_at + ALIVE_SECONDS):
                        raise TimeoutError  # the connection may lead nowhere
                    self._pinged_at = pinged_at
                    await self._hear(pubsub, pinged_at + PING_SECONDS)

    async def _hear(self, pubsub: PubSub, until: float) -> bool:
        """Handle what comes until a ping is answered, or until that time. Returns whether it was."""
        while (left := until - time.monotonic()) > 0:
            message = await pubsub.get_message(timeout=left)
            if message and message["type"] == "pong":
                return True
            if message:
                self._handle(message)
        return False

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":  # also when the client has connected anew by itself
            self._note(connected=True)
            for _, missed in self._listeners:
                missed()
        elif message["type"] == "message":
            sender, *names = message["data"].decode().split()
            if sender != self._me:
                self.counts["received"] += len(names)
                self._receive(names)

    def _receive(self, names: Iterable[str]) -> None:
        for receive, _ in self._listeners:
            receive(names)

    def _note(self, *, connected: bool, **more: str) -> None:
        if connected != self._connected:
            self._connected = connected
            log.warning("wake_ups_resumed" if connected else "wake_ups_lost", **more)
