"""Password hashing, off the event loop, and which passwords are refused."""

import os
import secrets
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from passlib.context import CryptContext
from pydantic import SecretStr

from tristore.errors import InvalidInput
from tristore.identity import password as normalised

# OWASP Password Storage Cheat Sheet, minimum for Argon2id: 19 MiB, 2 iterations, 1 lane.
COST = {"argon2__memory_cost": 19_456, "argon2__time_cost": 2, "argon2__parallelism": 1}
CONTEXT = CryptContext(schemes=["argon2"], **COST)

Result = TypeVar("Result")
NICENESS = 5
"""Of the threads that hash, on Linux: the event loop need not wait for a core that they hold, and when it is busy all
the time they still get a quarter of it."""

# What attackers try first, of at least 8 characters; a longer list belongs to a library or a service.
COMMON = frozenset(
    """12345678 123456789 1234567890 11111111 00000000 87654321 12341234 11223344 password password1 password12
    password123 passw0rd p@ssw0rd p@ssword qwertyui qwertyuiop qwerty12 qwerty123 1q2w3e4r 1qaz2wsx q1w2e3r4 asdfghjkl
    asdfasdf abcd1234 abc12345 a1b2c3d4 iloveyou iloveyou1 sunshine princess princess1 football football1 baseball
    baseball1 superman superman1 trustno1 starwars whatever welcome1 welcome123 letmein1 letmein123 dragon123 monkey123
    master123 shadow123 michael1 jennifer computer internet samsung1 changeme changeme1 changeme123 adminadmin admin123
    administrator secret123 test1234 testtest zxcvbnm1 zxcvbnm123 11111111111 aaaaaaaa""".split()
)


class PasswordHasher:
    def __init__(self, own_name: str, context: CryptContext = CONTEXT) -> None:
        """`own_name`: of the service. Who attacks it tries that as well."""
        self._context = context
        self._common = COMMON | {own_name, f"{own_name}1", f"{own_name}123"}
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

    def refuse_common(self, password: SecretStr, field: str) -> None:
        """Raises InvalidInput naming the field when a password is among the first that attackers try."""
        if normalised(password.get_secret_value()).lower() in self._common:
            raise InvalidInput(field, "is too common; choose one that nobody would guess first")

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
