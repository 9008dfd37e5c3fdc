"""Idempotency keys as clients send them."""

import secrets


def key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(16)}
