"""The feed on a Redis Cluster: one subscription and one heartbeat for each of its servers.

A cluster tells each message to all servers, but without order, and it loses some when a connection between two servers
breaks. So a process is subscribed at each server, on channels of that server's own. A script publishes on the server
whose keys it changes, and that server's heartbeats show that all it had to tell has come. Redis is believed as a
whole: while every server is heard, and most of them have confirmed in the last second that these are all.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from tristore.cache.announcement import Announcement
from tristore.cache.breaker import CircuitBreaker
from tristore.cache.feed import ALIVE_SECONDS, BEAT_SECONDS, HEARD_SECONDS, Feed
from tristore.errors import StoreUnavailable
from tristore.stores.redis import RedisStore
from tristore.stores.redis_cluster import Cluster

log = structlog.get_logger()


def feed_on(
    redis: RedisStore,
    breaker: CircuitBreaker,
    caught_up: Callable[[], Awaitable[None]] | None = None,
    entry_seconds: float = 330,
) -> Feed:
    """The kind of feed that this Redis needs."""
    if redis.cluster:
        return ClusterFeed(redis, redis.cluster, breaker, caught_up, entry_seconds)
    return Feed(redis, breaker, caught_up, entry_seconds)


class ServerFeed(Feed):
    """What one server tells. Name, listeners, counts and what is announced are those of the whole."""

    def __init__(self, redis: RedisStore, whole: "ClusterFeed") -> None:
        super().__init__(redis, whole._breaker, whole._caught_up, whole._entry_seconds)
        self.redis = redis
        self._me, self._listeners = whole._me, whole._listeners
        self._announced, self.counts = whole._announced, whole.counts
        self._was_subscribed = True  # as after a failover, see below

    def may_be_new(self) -> None:
        """A server that has just got slots does not know who believes the one that had them before. And processes note
        their heartbeats under a key of its slots, which may be another one now."""
        self._may_be_new_until = time.monotonic() + 2 * ALIVE_SECONDS


class ClusterFeed(Feed):
    def __init__(
        self,
        redis: RedisStore,
        cluster: Cluster[RedisStore],
        breaker: CircuitBreaker,
        caught_up: Callable[[], Awaitable[None]] | None = None,
        entry_seconds: float = 330,
    ) -> None:
        super().__init__(redis, breaker, caught_up, entry_seconds)
        self._cluster = cluster
        self._feeds: dict[str, ServerFeed] = {}
        self._is_started = False
        self._closing: set[asyncio.Task[None]] = set()
        cluster.listen(self._follow)
        self._follow()

    def start(self) -> None:
        self._is_started = True
        for feed in self._feeds.values():
            feed.start()
        self._subscriber = asyncio.create_task(self._look_repeatedly())

    def is_alive(self) -> bool:
        return self._is_known() and all(feed.is_alive() for feed in self._feeds.values())

    def _is_heard(self) -> bool:
        return self._is_known() and all(feed._is_heard() for feed in self._feeds.values())

    def _is_known(self) -> bool:
        return bool(self._feeds) and self._cluster.is_confirmed

    def _refused(self) -> StoreUnavailable | None:
        return next((feed._refusal for feed in self._feeds.values() if feed._refusal), None)

    async def wait_until_heard(self, announcement: Announcement) -> None:
        if feed := self._feeds.get(announcement.taken_by):
            await feed.wait_until_heard(announcement)
        else:  # its slots have gone to others: nobody tells who has heard it
            await asyncio.sleep(announcement.taken_at + HEARD_SECONDS - time.monotonic())

    async def _publish(self, channel: str, text: str) -> None:
        """All processes hear any server. One that is heard itself comes first."""
        await self._cluster.confirmed()
        feeds = sorted(self._feeds.values(), key=lambda feed: not feed._is_heard())
        await feeds[0]._publish(channel, text)

    async def close(self) -> None:
        self._is_started = False  # what the last message of all may discover is not listened to
        if self._sender:
            await self._sender
        if self._subscriber:
            self._subscriber.cancel()
            await asyncio.gather(self._subscriber, return_exceptions=True)
        self._cluster.forget(self._follow)
        await asyncio.gather(*(feed.close() for feed in self._feeds.values()), *self._closing)

    def _follow(self) -> None:
        """Listen to the servers that there are now, and no longer to those that were."""
        before, self._feeds = self._feeds, {}
        for server in self._cluster.servers:
            feed = before.get(server.identity.node)
            if feed is None or feed.redis is not server:
                feed = ServerFeed(server, self)
                if self._is_started:
                    feed.start()
            feed.may_be_new()
            self._feeds[server.identity.node] = feed
        for feed in before.values():
            if feed not in self._feeds.values():
                task = asyncio.create_task(feed.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def _look_repeatedly(self) -> None:
        while True:
            looked_at = time.monotonic()
            try:
                await self._cluster.look()
            except Exception:
                log.exception("cluster_look_failed")  # whatever it is, it must not end the feed
            await asyncio.sleep(max(0.05, looked_at + BEAT_SECONDS - time.monotonic()))
