"""Answers that their clients do not take: they wait in this process's memory."""

import asyncio
from collections.abc import Collection, Iterable

UNREAD_SECONDS = 20
"""So long nothing may be taken of an answer. A stream has LIVE_SEND_SECONDS for each of its pieces."""
MOST_UNREAD = 64 * 2**20
"""So many bytes of answers, of all connections, may wait for their clients."""


class Unread:
    """What waits of a connection's answers."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._last = 0
        self._taken_at = 0.0
        self.is_taken = True
        """Whether the transport said so since the last look."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self._transport.get_write_buffer_size()

    def is_stuck(self, now: float, *, grows: bool) -> bool:
        """Whether nothing was taken for too long, as far as one sees who looks now and then. `grows`: more is written
        meanwhile, so that nobody sees what is taken. It is little then, or the writer would have to wait."""
        size = self.size
        if grows or self.is_taken or not size or size < self._last:
            self._taken_at = now
        self._last, self.is_taken = size, False
        return now - self._taken_at > UNREAD_SECONDS

    def give_up(self) -> None:
        """Close the connection. What waits is lost."""
        self._transport.abort()


def give_up_the_largest(all_unread: Iterable[Unread]) -> Collection[Unread]:
    """Of as many as are too many together. Returns them."""
    waiting = sorted(all_unread, key=lambda unread: unread.size, reverse=True)
    beyond = sum(unread.size for unread in waiting) - MOST_UNREAD
    given_up = []
    for unread in waiting:
        if beyond <= 0:
            break
        beyond -= unread.size
        unread.give_up()
        given_up.append(unread)
    return given_up
