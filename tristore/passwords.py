"""Password hashing, off the event loop, and which passwords are refused."""

import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from passlib.context import CryptContext
from pydantic import HttpUrl, SecretStr
from zxcvbn_rs_py import Feedback, zxcvbn

from tristore.breaches import Breaches
from tristore.errors import InvalidInput
from tristore.fields import LONGEST_PASSWORD, SHORTEST_PASSWORD
from tristore.identity import password as normalised

# OWASP Password Storage Cheat Sheet, minimum for Argon2id: 19 MiB, 2 iterations, 1 lane.
COST = {"argon2__memory_cost": 19_456, "argon2__time_cost": 2, "argon2__parallelism": 1}
CONTEXT = CryptContext(schemes=["argon2"], **COST)

Result = TypeVar("Result")
NICENESS = 5
"""Of the threads that hash, on Linux: the event loop need not wait for a core that they hold, and when it is busy all
the time they still get a quarter of it."""

LOWEST_SCORE = 3
"""Of zxcvbn's 0 to 4: more than 10^8 guesses. With Argon2id at this cost that is a month of a core."""
ESTIMATED = 24
"""So many characters are estimated. It takes 1 ms, at worst 7 ms; of 32 characters at worst 25 ms, of 100 600 ms, in
which no other thread runs. Who needs few guesses for the beginning of a longer one is refused the whole."""
WEAK = (
    "is too easy to guess{why}. Allowed are {shortest} to {longest} characters that few guesses would not find: four "
    "words that have nothing to do with each other, or ten random characters. Your own names do not count"
)
STOLEN = "is among those that were stolen elsewhere. Allowed is one that you use nowhere else"


class PasswordHasher:
    def __init__(self, own_name: str, context: CryptContext = CONTEXT, breach_url: HttpUrl | None = None) -> None:
        """`own_name`: of the service. Who attacks it tries that as well. `breach_url`: see Breaches."""
        self._context = context
        self._own_name = own_name
        self._breaches = Breaches(breach_url)
        zxcvbn("")  # its first call reads its lists, for 30 ms
        # Made here: made at the first unknown name, it would double the time of that answer, and so tell.
        self._hash_of_nobody: str = context.hash(secrets.token_urlsafe())
        # One core is left to the loop. More threads would make each hash slower, and the loop wait for a core.
        self._limiter = CapacityLimiter(max(1, (os.cpu_count() or 1) - 1))

    @property
    def threads(self) -> int:
        return int(self._limiter.total_tokens)

    @property
    def waiting(self) -> int:
        """Requests that wait for a thread to hash in."""
        return self._limiter.statistics().tasks_waiting

    async def refuse_weak(self, password: SecretStr, field: str, own_names: Sequence[str]) -> None:
        """Raises InvalidInput naming the field when few guesses would find a password, or it is known from a breach.
        `own_names` are the user's, addresses among them: they are guessed first."""
        text = normalised(password.get_secret_value())
        estimate = zxcvbn(text[:ESTIMATED], _guessed_first((*own_names, self._own_name)))
        if int(estimate.score) < LOWEST_SCORE:
            raise InvalidInput(field, _weak(estimate.feedback))
        if await self._breaches.know(text):
            raise InvalidInput(field, STOLEN)

    async def hash(self, password: SecretStr) -> str:
        """The Argon2id hash, as a self-describing string."""
        return await self._run(self._context.hash, normalised(password.get_secret_value()))

    async def verify(self, password: SecretStr, password_hash: str | None) -> tuple[bool, str | None]:
        """Whether the password is right, and a new hash where the old one has outdated parameters, or is of a password
        that was not normalised. Without a hash (an unknown user) it does the same work and is wrong."""
        raw = password.get_secret_value()
        compared_with = password_hash or self._hash_of_nobody
        is_right, better_hash = await self._run(self._context.verify_and_update, normalised(raw), compared_with)
        if is_right or raw == normalised(raw):
            return is_right, better_hash
        is_right = await self._run(self._context.verify, raw, compared_with)
        return is_right, await self.hash(password) if is_right else None

    async def _run(self, hashing: Callable[..., Result], *given: str) -> Result:
        def run_nicely() -> Result:
            if sys.platform == "linux":  # elsewhere a thread has no priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            return hashing(*given)

        return await to_thread.run_sync(run_nicely, limiter=self._limiter)


def _guessed_first(names: Iterable[str]) -> list[str]:
    """Each name, and its parts: of an address what stands before the @."""
    whole = [name.partition("@")[0].lower() for name in names]
    return [*whole, *(part for name in whole for part in re.findall(r"[^\W_]{3,}", name))]


def _weak(feedback: Feedback | None) -> str:
    warning = str(feedback.warning) if feedback and feedback.warning else ""  # one of a few sentences of the library
    why = f": {warning[0].lower()}{warning[1:].rstrip('.')}" if warning else ""
    return WEAK.format(why=why, shortest=SHORTEST_PASSWORD, longest=LONGEST_PASSWORD)
