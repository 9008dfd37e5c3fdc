"""Password hashing, off the event loop."""

import os

from anyio import CapacityLimiter, to_thread
from passlib.context import CryptContext
from pydantic import SecretStr

# OWASP Password Storage Cheat Sheet, minimum for Argon2id: 19 MiB, 2 iterations, 1 lane.
CONTEXT = CryptContext(schemes=["argon2"], argon2__memory_cost=19_456, argon2__time_cost=2, argon2__parallelism=1)


class PasswordHasher:
    def __init__(self, context: CryptContext = CONTEXT) -> None:
        self._context = context
        # More threads than cores only makes each hash slower and the loop wait longer for the interpreter's lock.
        self._limiter = CapacityLimiter(os.cpu_count() or 1)

    async def hash(self, password: SecretStr) -> str:
        """The Argon2id hash, as a self-describing string."""
        return await to_thread.run_sync(self._context.hash, password.get_secret_value(), limiter=self._limiter)
