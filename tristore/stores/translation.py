"""How a driver's error becomes StoreUnavailable; each store's file brings the tables that say which do."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeVar

import structlog

from tristore.errors import Reason, StoreName, StoreUnavailable

Verdict = Reason | Literal["unknown"] | None
"""`unknown`: the server refused, with a code that no table has. None: the error does not say that a store is down."""
Key = TypeVar("Key")

log = structlog.get_logger()

_told: set[tuple[StoreName, str]] = set()


def by_code(groups: Mapping[Key, str]) -> dict[str, Key]:
    """The table that finds the key of a code, from lists of codes in words."""
    return {code: key for key, codes in groups.items() for code in codes.split()}


@contextmanager
def translating(
    store: StoreName,
    reason_of: Callable[[BaseException], Verdict],
    cause_of: Callable[[BaseException], str],
    *,
    raise_unknown: bool = False,
) -> Iterator[None]:
    """Turn what means "this store cannot serve us now" into StoreUnavailable; let everything else pass."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if reason is None or (reason == "unknown" and raise_unknown):
            raise
        cause = cause_of(error)
        if reason == "unknown":
            _tell_once(store, cause)
            reason = "refuses writes"
        raise StoreUnavailable(store, reason, cause) from error


def _tell_once(store: StoreName, cause: str) -> None:
    if (store, cause) not in _told:
        _told.add((store, cause))
        log.error("unknown_refusal", store=store, cause=cause)
