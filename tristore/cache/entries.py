"""What Redis holds of a cached thing, and under which keys.

An entry is `v<version>:<bytes>` for a value, `n0:` for what is known not to exist, and `t<version>:` for a tombstone:
then it must be loaded again.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Versioned:
    """What a load found: the bytes to cache, and the version of the row from which they were made."""

    version: int
    body: bytes


def keys_of(key: str, format_number: int, history: str) -> list[str]:
    """The key of the entry and the key of its lease, in one hash slot. `history` is that of Redis' data and of
    PostgreSQL's: what a restarted Redis brings back from disk has other keys, and what a failover lost."""
    name = f"cache:{format_number}:{history}:{hash_tag(key)}"
    return [name, f"{name}:lease"]


def hash_tag(key: str) -> str:
    """What decides in which slot of a cluster the key's entry and lease are."""
    return f"{{{key}}}"


def entry_of(found: Versioned | None) -> bytes:
    return b"v%d:%b" % (found.version, found.body) if found else b"n0:"


def is_tombstone(entry: bytes) -> bool:
    return entry.startswith(b"t")


def is_value(entry: bytes) -> bool:
    return entry.startswith(b"v")


def version_of(entry: bytes) -> int:
    return int(entry.partition(b":")[0][1:])


def body_of(entry: bytes) -> bytes | None:
    """None when the entry is no value."""
    return entry.partition(b":")[2] if is_value(entry) else None


def versioned(entry: bytes) -> Versioned | None:
    """None when the entry is no value."""
    body = body_of(entry)
    return None if body is None else Versioned(version_of(entry), body)
