"""Tokens that stand for somebody: random, handed out once, and stored as a hash only."""

import hashlib
import re
import secrets
from typing import Annotated

from pydantic import Field, SecretStr

BYTES = 32
PATTERN = r"^[A-Za-z0-9_-]{43}$"
TOKEN = re.compile(PATTERN)


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(BYTES)


def hash_of(token: str) -> bytes:
    """SHA-256. What has 256 random bits needs nothing slower."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


SentToken = Annotated[SecretStr, Field(min_length=1, max_length=100)]
"""One that a client sends. What is no token is not found, and that is all there is to say of it."""
