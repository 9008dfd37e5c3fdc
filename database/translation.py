"""How a driver's error becomes StoreUnavailable; each store's file brings the table that says which do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.errors import Reason, StoreName, StoreUnavailable


@contextmanager
def translating(store: StoreName, reason_of: Callable[[BaseException], Reason | None]) -> Iterator[None]:
    """Turn what means "this store cannot serve us now" into StoreUnavailable; let everything else pass."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise StoreUnavailable(store, reason) from error
